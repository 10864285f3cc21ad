"""What a run stands on: whatever must be the same when it is resumed, in the words in which a change is told."""

from collections.abc import Iterator, Sequence
from typing import Any

from tunesmith.core.errors import RecipeError, did_you_mean
from tunesmith.core.noun import Noun
from tunesmith.core.recipe import Recipe

MAY_CHANGE = (  # without making earlier steps wrong
    "train.epochs",
    "train.learning_rate",
    "train.patience",
    "train.save_every",
    "train.memory",
    "train.compile",
    "budget.time",
    "budget.memory",
    "versions",
)


class Origin(Noun):
    """``files`` are hashes of the data files by role, ``rows`` one of all token rows, ``test`` that of the locked
    test."""

    schema_version: int = 1
    recipe: Recipe
    files: dict[str, str]
    model: dict[str, str]
    rows: str
    test: str
    versions: dict[str, str]

    def changes(self, now: "Origin") -> Iterator[tuple[str, str]]:
        """(name, sentence) of everything in which ``now`` differs from this."""
        then_keys, now_keys = _leaves(self.recipe), _leaves(now.recipe)
        for key, was in then_keys.items():
            if now_keys.get(key) != was:
                yield key, f"{key} was {was!r} and is {now_keys.get(key)!r}"
        for role, was in self.files.items():
            if now.files.get(role) != was:
                yield (
                    f"data.{role}",
                    f"the file of data.{role} has changed (sha256 {was[:12]}, now {now.files[role][:12]})",
                )
        for what, was in self.model.items():
            if now.model.get(what) != was:
                yield what, f"the {what} of the model has changed ({was}, now {now.model.get(what)})"
        if self.test != now.test:
            yield "test", f"the locked test holds other rows (hash {self.test}, now {now.test})"
        if self.rows != now.rows:
            yield "rows", f"the rendered rows are others (hash {self.rows}, now {now.rows})"
        for name, was in self.versions.items():
            if now.versions.get(name) != was:
                yield "versions", f"{name} was {was} and is {now.versions.get(name)}"


def check_same(then: Origin, now: Origin, allowed: Sequence[str]) -> tuple[str, ...]:
    """The changes that ``allowed`` names, as sentences. Raises RecipeError with every other one."""
    odd = next((name for name in allowed if name not in MAY_CHANGE), None)
    if odd is not None:
        raise RecipeError(
            f"--allow-change {odd}: this cannot change within a run.{did_you_mean(odd, MAY_CHANGE)} "
            f"These can: {', '.join(MAY_CHANGE)}. For anything else start a new run."
        )
    changes = list(then.changes(now))
    refused = [(name, told) for name, told in changes if name not in allowed]
    if refused:
        ways = sorted({f"--allow-change {name}" for name, _ in refused if name in MAY_CHANGE})
        out = f"Put it back, or resume with {' '.join(ways)}." if ways else "Put it back, or start a new run."
        raise RecipeError("\n".join([*(f"Since this run began, {told}." for _, told in refused), out]))
    return tuple(told for _, told in changes)


def _leaves(value: Noun, path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in type(value).model_fields:
        item, key = getattr(value, name), f"{path}{name}"
        found |= _leaves(item, f"{key}.") if isinstance(item, Noun) else {key: item}
    return found
