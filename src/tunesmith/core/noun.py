"""The base of every value that crosses a doorway: frozen, JSON round-trip, content hash.

Notable: the hash is over canonical JSON (sorted keys, no spaces), so equal values have equal hashes on every machine.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from tunesmith.core import files


def canonical_json(value: Any) -> str:
    """JSON text with sorted keys and no spaces: the form that is hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=True)


def content_hash(value: Any) -> str:
    """The first 16 hex digits of the sha256 of ``value``'s canonical JSON.

    >>> content_hash({"b": 1, "a": 2}) == content_hash({"a": 2, "b": 1})
    True
    """
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()[:16]


class Noun(BaseModel):
    """A frozen value. Unknown fields are errors; ``save`` is atomic."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    def content_hash(self) -> str:
        return content_hash(self.model_dump(mode="json"))

    def save(self, path: Path) -> None:
        files.write_text(path, self.model_dump_json(indent=2) + "\n")

    def changed(self) -> set[str]:
        """The fields that were given a value other than their default."""
        fields = type(self).model_fields
        return {name for name in self.model_fields_set if getattr(self, name) != fields[name].default}

    @classmethod
    def load(cls, path: Path) -> Self:
        return cls.model_validate_json(path.read_text(encoding="utf-8"))
