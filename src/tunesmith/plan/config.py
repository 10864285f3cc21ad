"""A ``config.json`` as numbers that can be trusted: each is there, whole and in range, or a sentence says so.

Notable: what a file leaves out has the family's default, as in transformers (published Gemma 3 files leave out their
heads); width, layers and inner width must stand there, for a network guessed from defaults is some other network.
"""

from collections.abc import Mapping
from typing import Any

from tunesmith.core.errors import ModelError

MOST = 10**9
MOST_LAYERS = 10_000


class Config:
    """``values`` over ``defaults``; ``where`` names the file in errors."""

    def __init__(self, values: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> None:
        self.values, self.where = {**defaults, **values}, where

    def number(self, *keys: str, most: int = MOST) -> int:
        """The first of ``keys`` that is given. Raises ModelError."""
        found = self.optional(*keys, most=most)
        if found is None:
            raise ModelError(f"model: {self.where} has no {keys[0]}; expected a whole number. Fetch the model again.")
        return found

    def optional(self, *keys: str, most: int = MOST) -> int | None:
        """The first of ``keys`` that is given, None where none is, or it is null. Raises ModelError."""
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
                raise ModelError(
                    f"model: {self.where}, field {key}: found {value!r}; expected a whole number from 1 to {most}. "
                    "Fetch the model again."
                )
            return value
        return None

    def count(self, key: str) -> int:
        """Like ``number``, where 0 means none and so does a key that is not given."""
        return 0 if self.values.get(key) in (None, 0) else self.number(key)

    def flag(self, key: str | bool) -> bool:
        """Whether ``key`` is true; a bool is itself. Raises ModelError."""
        value = key if isinstance(key, bool) else self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise ModelError(
                f"model: {self.where}, field {key}: found {value!r}; expected true or false. Fetch the model again."
            )
        return bool(value)

    def numbers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers, empty where none is given. Raises ModelError."""
        value = self.values.get(key) or []
        if not isinstance(value, list) or not all(type(i) is int for i in value):
            raise ModelError(
                f"model: {self.where}, field {key}: found {value!r}; expected a list of whole numbers. "
                "Fetch the model again."
            )
        return tuple(value)

    def layers(self) -> int:
        return self.number("num_hidden_layers", "n_layer", "n_layers", most=MOST_LAYERS)

    def heads(self, width: int) -> tuple[int, int, int]:
        """(heads, key-value heads, head width). Raises ModelError where they do not divide."""
        heads = self.number("num_attention_heads", "n_head", "n_heads")
        grouped, head_width = self.optional("num_key_value_heads") or heads, self.optional("head_dim")
        if head_width is None and width % heads:
            raise ModelError(f"model: {self.where}: a width of {width} cannot be cut into {heads} heads. {self._way()}")
        if heads % grouped:
            raise ModelError(
                f"model: {self.where}: {heads} heads cannot share {grouped} key-value heads. {self._way()}"
            )
        return heads, grouped, head_width or width // heads

    def sliding(self, layers: int) -> list[bool] | None:
        """Which layers look at a window, by ``layer_types``; None where it is not given. Raises ModelError."""
        kinds = self.values.get("layer_types")
        if kinds is None:
            return None
        known = {"full_attention": False, "sliding_attention": True}
        odd = [repr(kinds)] if not isinstance(kinds, list) else [repr(k) for k in kinds if str(k) not in known]
        if odd or len(kinds) != layers:
            found = odd[0] if odd else f"{len(kinds)} entries"
            raise ModelError(
                f"model: {self.where}, field layer_types: found {found}; expected full_attention or sliding_attention "
                f"for each of the {layers} layers. {self._way()}"
            )
        return [known[k] for k in kinds]

    @staticmethod
    def _way() -> str:
        return "Fetch the model again, or use another."
