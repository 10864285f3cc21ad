"""What a run in stages found out: one run a stage, each going on from the former, and what the last one is worth."""

from tunesmith.core.noun import Noun
from tunesmith.core.report import Decision, Estimate, Rewarded


class StageResult(Noun):
    """A stage that is done. ``follows`` are the runs that it stands on, by their role (start, reward)."""

    name: str
    task: str
    run_id: str
    follows: dict[str, str]
    metric: str
    score: Estimate
    baseline: str
    baseline_score: Estimate
    decision: Decision
    sentence: str
    seconds: float


class Win(Noun):
    """How often the answers of ``system`` are worth more than those of ``against``, by the reward or by the judge, on
    the locked test of the last stage; a tie counts half."""

    system: str
    against: str
    by: str
    share: Estimate


class Staged(Noun):
    """``total`` stages were asked for; ``stages`` are those that are done. ``rewarded`` is that of the last one, where
    it learned from rewards; ``notes`` are its warnings."""

    schema_version: int = 1
    id: str
    created: str
    total: int
    stages: tuple[StageResult, ...]
    wins: tuple[Win, ...] = ()
    rewarded: Rewarded | None = None
    notes: tuple[str, ...] = ()
    environment: dict[str, str] = {}
