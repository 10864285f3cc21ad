"""Well-known models by name, so that a plan needs neither their files nor a network.

Notable: facts alone, in ``known_models.json``: the few numbers of the config that the shape depends on, and the count
of parameters as published, by which the tests check each row (within 1%, or a reason stands there). A row that is
``like`` another has the same network and names what differs. Published counts are those of the hub (safetensors), of
the model's card or of its paper; ``source`` says where to look.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from tunesmith.core.errors import ModelError, did_you_mean
from tunesmith.plan.families import shape_of
from tunesmith.plan.shape import Shape


@dataclass(frozen=True, slots=True)
class KnownModel:
    """``name`` as on the hub, ``config`` the numbers of its config.json; ``parameters`` as published, ``licence`` by
    the hub's short name, ``released`` a month. ``reason``: why the published count is another than the network's."""

    name: str
    model_type: str
    config: Mapping[str, Any]
    parameters: int
    licence: str
    released: str
    source: str
    reason: str = ""

    def shape(self) -> Shape:
        return shape_of({"model_type": self.model_type, **self.config}, f"known_models.json, {self.name}")


@cache
def known_models() -> dict[str, KnownModel]:
    """All rows by name, in the order of the file."""
    text = (resources.files("tunesmith.plan") / "known_models.json").read_text("utf-8")
    rows: dict[str, dict[str, Any]] = {}
    for row in json.loads(text):
        like = row.pop("like", None)
        base = rows[like] if like else {}
        own = row.get("config")
        config = {**base["config"], **own} if base and own else own or base["config"]
        rows[row["name"]] = {**base, **row, "config": config}
    return {name: KnownModel(**row) for name, row in rows.items()}


def find(name: str) -> KnownModel:
    """The model called ``name``, whole or by its last part, in whatever case: mirrors carry the last part. Raises
    ModelError with the nearest name.

    >>> find("llama-3.1-405b").name
    'meta-llama/Llama-3.1-405B'
    """
    models = known_models()
    whole = {known.casefold(): known for known in models}
    last = {known.casefold().rpartition("/")[2]: known for known in models}
    wanted = name.strip().casefold()
    tail = wanted.rpartition("/")[2]
    found = whole.get(wanted) or last.get(tail)
    if found is None:
        hint = did_you_mean(wanted, whole) or did_you_mean(tail, last)
        for key, known in (whole | last).items():  # in the case of the hub, with the owner
            hint = hint.replace(f'"{key}"', f'"{known}"')
        raise ModelError(
            f'model: "{name}" is not among the {len(models)} models whose size is known here.{hint} Name a folder that '
            "holds its config.json, or a model of the hub when online."
        )
    return models[found]
