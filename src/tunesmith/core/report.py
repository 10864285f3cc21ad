"""What a run found out. Every number carries its n and interval; the report is a value, its pictures are made
elsewhere."""

from math import isfinite
from typing import Literal, Self

from tunesmith.core.card import ModelCard
from tunesmith.core.noun import Noun
from tunesmith.core.plan import Plan
from tunesmith.core.recipe import Recipe

SCHEMA_VERSION = 1
Severity = Literal["info", "warning", "blocking"]
Decision = Literal["SHIP", "HOLD", "NOT ENOUGH EVIDENCE"]


class Estimate(Noun):
    """A value with its 95% interval and the number of rows behind it."""

    value: float
    low: float
    high: float
    n: int


class Finding(Noun):
    """One result of a data check. ``rows`` are example ids; ``samples`` a few short texts."""

    check: str
    severity: Severity
    count: int
    message: str
    rows: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()


class DataReport(Noun):
    """What was read and what the checks found. ``token_lengths`` is one length a row, in row order; empty before
    rendering."""

    rows: int
    format: str
    why: str
    quarantined: int
    findings: tuple[Finding, ...]
    token_lengths: tuple[int, ...] = ()
    trained_share: float | None = None
    label_counts: dict[str, int] = {}
    file_sha256: str = ""

    @property
    def blocking(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == "blocking")


class Prediction(Noun):
    """One answer of one system to one row. ``log_odds`` are those of the first of two answers being the better one;
    ``reward`` is what the answer is worth to a policy that learns from rewards, 0 where that could not be found
    (``unrewarded``); ``judged`` is what an independent judge says of it."""

    id: str
    answer: str
    prompt_tokens: int = 0
    new_tokens: int = 0
    nll: float | None = None
    nll_tokens: int = 0
    finish: str = "stop"
    log_odds: float | None = None
    reward: float | None = None
    unrewarded: bool = False
    judged: float | None = None


class SystemResult(Noun):
    """A system on the locked test: ``tuned``, or a baseline by its name. ``seconds`` is wall time for all rows."""

    name: str
    kind: Literal["baseline", "tuned"]
    metrics: dict[str, Estimate]
    seconds: float
    prompt_tokens: float = 0.0
    new_tokens: float = 0.0
    invalid: int = 0
    note: str = ""


class Verdict(Noun):
    """SHIP, HOLD or NOT ENOUGH EVIDENCE with the rule that gave it."""

    decision: Decision
    metric: str
    baseline: str
    difference: Estimate
    p_value: float
    test: str
    rule: str
    sentence: str
    cost_sentence: str


class SampledAnswer(Noun):
    """An answer of a policy, to be read. ``reward`` is None where none could be found."""

    prompt: str
    answer: str
    reward: float | None

    @classmethod
    def of(cls, prompt: str, answer: str, reward: float) -> Self:
        """Cut for a page; ``reward`` is no number where none was found."""
        return cls(prompt=prompt[-500:], answer=answer[:1000], reward=reward if isfinite(reward) else None)


class CurvePoint(Noun):
    """``seconds`` since training began; ``took``: of this step and the making of its rows, without looks and saves;
    ``answers`` to the first dev prompts, where this look at dev wrote some."""

    step: int
    tokens: int
    seconds: float
    loss: float | None = None
    dev_loss: float | None = None
    learning_rate: float | None = None
    took: float | None = None
    answers: tuple[SampledAnswer, ...] = ()


class RolloutPoint(Noun):
    """A rollout after ``step`` optimiser steps. ``reward`` is the mean of its answers, ``spread`` their standard
    deviation, ``error`` the standard error of the mean over prompts; ``kl`` to the reference in nats an answer,
    ``entropy`` in nats a token (the answers' own surprise).
    ``equal`` is the share of prompts whose answers are all worth the same, ``repeated`` that of stretches of three
    tokens that stood in the answer before; ``cut``, ``empty`` and ``unrewarded`` count answers, ``faults`` what went
    wrong with rewards since the rollout before, by sentence."""

    step: int
    answers: int
    reward: float | None
    spread: float | None
    error: float | None = None
    unrewarded: int
    empty: int
    cut: int
    equal: float
    length: float
    kl: float | None
    entropy: float
    repeated: float
    coefficient: float = 1.0
    faults: tuple[tuple[str, int], ...] = ()
    samples: tuple[SampledAnswer, ...] = ()


class Fit(Noun):
    """How training went and what its curves say. ``overfit`` is one plain sentence, ``notes`` are what the training
    told on its way; ``peak_bytes`` is the most memory while it trained, ``peak_of`` what kind of memory that is;
    ``step_seconds`` a usual step, without looks at dev and saves, with its share of writing answers where it learns
    from them."""

    curve: tuple[CurvePoint, ...]
    best_step: int
    steps: int
    stopped: str
    train_loss: float
    dev_loss: float
    train_score: Estimate | None
    dev_score: Estimate | None
    overfit: str
    trainable_parameters: int
    tokens_per_second: float
    trained_tokens: int
    seconds: float
    compile_seconds: float = 0.0
    saves: int = 0
    save_seconds: float = 0.0
    save_bytes: int = 0
    notes: tuple[str, ...] = ()
    peak_bytes: int | None = None
    peak_of: str = ""
    step_seconds: float | None = None


class Forgetting(Noun):
    """Bits per byte of held-out general text, by the base before training and by the tuned model; ``difference`` is
    after minus before, paired, so that more than zero is forgetting."""

    before: Estimate
    after: Estimate
    difference: Estimate
    sentence: str


class Bin(Noun):
    """Pairs on which a system was about equally sure: mean confidence, and how often it was right."""

    confidence: float
    accuracy: Estimate


class Preferences(Noun):
    """What stands beside the accuracy on pairs: whether confidence is calibrated (``error`` is its mean distance from
    accuracy), and whether length decides. ``longer`` is the share of pairs whose better answer is the longer one."""

    bins: tuple[Bin, ...]
    error: float | None
    longer: Estimate
    when_longer: Estimate | None
    when_shorter: Estimate | None
    sentence: str


class RowOutcome(Noun):
    """One test row with the answers of the tuned system and of the best baseline, for the reader's eye."""

    id: str
    input: str
    expected: str
    tuned: str
    baseline: str
    tuned_score: float
    baseline_score: float


class Rewarded(Noun):
    """What stands beside the scores of a policy that learned from rewards: its rollouts, how often its answer is worth
    more than another system's on the locked test (a tie counts half), by the reward and by the judge, how often that of
    the model it started from is worth more than the base's by either (``start_wins``), and signs that the reward rather
    than the answer got better, of what was ``looked`` at. With ``doubts``, which are signs too, nothing ships."""

    points: tuple[RolloutPoint, ...]
    wins: dict[str, Estimate]
    judged_wins: dict[str, Estimate] = {}
    start_wins: dict[str, Estimate] = {}
    signs: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    looked: tuple[str, ...] = ()
    sentence: str = ""


class Confusion(Noun):
    """Counts of (expected, predicted) over the ``labels`` shown; rows are expected."""

    field: str
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


class Report(Noun):
    schema_version: int = SCHEMA_VERSION
    run_id: str
    created: str
    recipe: Recipe
    card: ModelCard
    plan: Plan
    data: DataReport
    split_sizes: dict[str, int]
    split_how: str
    test_hash: str
    primary: str
    systems: tuple[SystemResult, ...]
    verdict: Verdict
    fit: Fit
    forgetting: Forgetting | None = None
    preferences: Preferences | None = None
    rewarded: Rewarded | None = None
    confusions: tuple[Confusion, ...] = ()
    worst: tuple[RowOutcome, ...] = ()
    best: tuple[RowOutcome, ...] = ()
    wins: tuple[RowOutcome, ...] = ()
    losses: tuple[RowOutcome, ...] = ()
    seconds: dict[str, float] = {}
    environment: dict[str, str] = {}
    adapter: str = ""
    warnings: tuple[str, ...] = ()
