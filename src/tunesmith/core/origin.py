"""What a run stands on: whatever must be the same when it is resumed, in the words in which a change is told."""

from collections.abc import Iterator, Sequence
from typing import Any

from tunesmith.core.errors import RecipeError, did_you_mean
from tunesmith.core.noun import Noun
from tunesmith.core.plan import Plan
from tunesmith.core.recipe import Recipe

OF_PLAN = {  # keys that may change without making earlier steps wrong, and what of the plan follows them
    "train.epochs": ("epochs", "steps", "warmup_steps", "eval_every"),
    "train.learning_rate": ("learning_rate",),
    "train.patience": ("patience",),
    "train.save_every": ("save_seconds",),
    "train.compile": ("compiled",),
    "budget.time": ("seconds",),
}
MAY_CHANGE = (*OF_PLAN, "versions")
BY_HASH = {"data.train": "train", "data.dev": "dev", "data.test": "test", "model": "weights"}  # moved is not changed


class Origin(Noun):
    """``files`` are hashes of the data files by role, ``rows`` one of all token rows, ``test`` that of the locked
    test; ``before`` names the origins that this one took the place of, by an allowed change."""

    schema_version: int = 1
    recipe: Recipe
    plan: Plan
    files: dict[str, str]
    model: dict[str, str]
    rows: str
    test: str
    versions: dict[str, str]
    before: tuple[str, ...] = ()

    def changes(self, now: "Origin") -> Iterator[tuple[str, str]]:
        """(name, sentence) of everything in which ``now`` differs from this."""
        then_keys, now_keys = _leaves(self.recipe), _leaves(now.recipe)
        for key, was in then_keys.items():
            if now_keys.get(key) != was and not self._moved(key, now):
                yield key, f"{key} was {was!r} and is {now_keys.get(key)!r}"
        for role, was in self.files.items():
            if now.files.get(role) != was:
                found = now.files.get(role, "none")[:12]
                yield f"data.{role}", f"the file of data.{role} has changed (sha256 {was[:12]}, now {found})"
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

    def _moved(self, key: str, now: "Origin") -> bool:
        """Whether a path differs and what lies there does not."""
        name = BY_HASH.get(key, "")
        held = {**self.files, **self.model}.get(name)
        return held is not None and held == {**now.files, **now.model}.get(name)


def plan_after(then: Plan, fresh: Plan, changed: Sequence[str]) -> Plan:
    """The plan of a run whose recipe has ``changed`` in these keys: what follows them is ``fresh``, nothing else is."""
    names = [name for key in changed for name in OF_PLAN.get(key, ())]
    reasons = then.reasons | {name: fresh.reasons[name] for name in names if name in fresh.reasons}
    return then.model_copy(update={name: getattr(fresh, name) for name in names} | {"reasons": reasons})


def check_same(then: Origin, now: Origin, allowed: Sequence[str]) -> dict[str, str]:
    """The changes that ``allowed`` names, each as a sentence. Raises RecipeError with every other one."""
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
    return dict(changes)


def _leaves(value: Noun, path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in type(value).model_fields:
        item, key = getattr(value, name), f"{path}{name}"
        found |= _leaves(item, f"{key}.") if isinstance(item, Noun) else {key: item}
    return found
