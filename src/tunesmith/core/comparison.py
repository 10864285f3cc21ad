"""What a comparison of methods found out: one recipe, the same data and seeds, a run for each method and seed."""

from tunesmith.core.noun import Noun
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import Decision, Estimate, Forgetting
from tunesmith.core.run import Status


class Outcome(Noun):
    """What a run that ended well measured. ``baseline`` is the best one, ``seconds`` those of training."""

    score: Estimate
    baseline: str
    baseline_score: Estimate
    decision: Decision
    forgetting: Forgetting | None
    learning_rate: float
    loss: float
    dev_loss: float
    trainable_parameters: int
    peak_bytes: int | None
    peak_of: str
    seconds: float
    total_seconds: float
    tokens_per_second: float


class Attempt(Noun):
    """One run of one method with one seed: its outcome, or why there is none."""

    method: str
    seed: int
    run_id: str
    status: Status
    error: str = ""
    outcome: Outcome | None = None


class MethodResult(Noun):
    """A method over its seeds; estimates are None where no run of it ended well. ``gain`` is against the best baseline,
    ``behind`` against the best method, both on the same test rows; ``left_out`` are keys of the recipe that the method
    does not read. Memory is the largest of the runs, the other measures are means."""

    name: str
    attempts: tuple[Attempt, ...]
    left_out: tuple[str, ...] = ()
    quality: Estimate | None = None
    gain: Estimate | None = None
    behind: Estimate | None = None
    forgetting: Estimate | None = None
    trainable_parameters: int | None = None
    peak_bytes: int | None = None
    seconds: float | None = None
    tokens_per_second: float | None = None

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        return tuple(a.outcome for a in self.attempts if a.outcome is not None)


class Comparison(Noun):
    """``methods``: the best first, those without a result last. ``notes`` say what the intervals are, and what else a
    reader has to know."""

    schema_version: int = 1
    id: str
    created: str
    recipe: Recipe
    model: str
    metric: str
    seeds: tuple[int, ...]
    test_rows: int
    test_hash: str
    methods: tuple[MethodResult, ...]
    environment: dict[str, str]
    notes: tuple[str, ...]
