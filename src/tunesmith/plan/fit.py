"""Settings that fit: what to change in a recipe, least first, so that memory, time and money suffice.

Notable: the ladder changes the method before it cuts rows, for a shorter row is a poorer example; micro-batches and
recomputing, which change no result, are tried within each step of it (``memory.choose``). Where the recipe sets
``train.memory``, auto comes first.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tunesmith.core.card import ModelCard
from tunesmith.core.errors import MemoryNeeded, RecipeError
from tunesmith.core.plan import Machine, Plan, Technique
from tunesmith.core.recipe import Recipe
from tunesmith.plan.objectives import objective_facts
from tunesmith.plan.rates import Rates
from tunesmith.plan.resolve import Data, resolve
from tunesmith.plan.shape import Shape
from tunesmith.plan.trained import method_facts, technique, trained, with_heads
from tunesmith.plan.work import Work

Settings = Mapping[str, str | int]


@dataclass(frozen=True)
class Job:
    """What is to be trained: the recipe with its objective's name, the network, and the rows."""

    recipe: Recipe
    objective: str
    card: ModelCard
    shape: Shape
    data: Data

    def technique(self) -> Technique:
        """Raises RecipeError."""
        method, facts = method_facts(self.recipe.method.name), objective_facts(self.objective)
        heads = facts.needs in ("class_logp", "score")
        count = trained(self.shape, self.recipe.method, self.card.name, classifies=heads)
        count = with_heads(count, facts.needs, classes=self.data.outputs, width=self.shape.width)
        return technique(method, count, facts.rate)

    def resolved(self, machine: Machine, rates: Rates | None = None) -> tuple[Plan, Work]:
        """Raises MemoryNeeded, RecipeError."""
        technique = self.technique()
        return resolve(
            self.recipe, self.card, self.data, shape=self.shape, machine=machine, technique=technique, rates=rates
        )

    def least(self, machine: Machine, rates: Rates | None = None) -> tuple[Plan, Work]:
        """The leanest plan at the level of the recipe, or of all where that is auto, whether it fits or not."""
        budget = self.recipe.budget.model_copy(update={"memory": None})
        recipe = self.recipe.model_copy(update={"budget": budget})
        return replace(self, recipe=recipe).resolved(replace(machine, memory=0), rates)

    def changed(self, settings: Settings) -> "Job":
        recipe, data = self.recipe, self.data
        for key, value in settings.items():
            group, _, field = key.partition(".")
            recipe = recipe.model_copy(update={group: getattr(recipe, group).model_copy(update={field: value})})
        if (cut := settings.get("train.max_length")) is not None:
            data = data.cut(int(cut))
        return replace(self, recipe=recipe, data=data)


def ways(job: Job) -> Iterator[Settings]:
    """The ladder."""
    yield {}
    first: Settings = {} if job.recipe.train.memory == "auto" else {"train.memory": "auto"}
    if first:
        yield first
    methods = {"full": ("lora", "qlora"), "qlora": ()}.get(job.recipe.method.name, ("qlora",))
    if job.shape.kind == "encoder":
        methods = tuple(m for m in methods if m != "qlora")
    for name in methods:
        yield {**first, "method.name": name}
    leanest: Settings = {**first, "method.name": methods[-1]} if methods else first
    for part in (2, 4, 8):
        if (length := job.data.longest // part) >= 64:
            yield {**leanest, "train.max_length": length}


def would_fit(job: Job, machine: Machine) -> str:
    """A sentence on the first change by which training fits; that nothing does."""
    for settings in ways(job):
        if not settings:
            continue
        try:
            plan, _ = job.changed(settings).resolved(machine)
        except (MemoryNeeded, RecipeError):
            continue
        told = ", ".join(f"{key}: {value}" for key, value in settings.items())
        return f"It would fit with {told} (about {(plan.peak_bytes or 0) / 2**30:.1f} GiB)."
    plan, _ = job.changed(list(ways(job))[-1]).least(machine)
    return f"Even the leanest settings need about {(plan.peak_bytes or 0) / 2**30:.1f} GiB."
