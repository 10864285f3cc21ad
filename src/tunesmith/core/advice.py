"""What was asked, measured and advised before anything is spent: prompt, retrieve, tune, collect more, or not enough
evidence.

Notable: everything that the advice stands on is in it, the points of the learning curve and the facts that only the
user knows among it, so that the same advice can be derived again from the value alone.
"""

from typing import Literal

from tunesmith.core.noun import Noun
from tunesmith.core.recipe import Recipe, Task
from tunesmith.core.report import Estimate

Decision = Literal["tune", "prompt", "retrieve", "collect more data", "not enough evidence"]
Side = Literal["for", "against", "neutral"]
Strength = Literal["strong", "medium", "weak", "none"]
Change = Literal["never", "yearly", "monthly", "weekly", "daily"]


class Facts(Noun):
    """What only the user can know; None where it is not known. Prices are in one currency: ``price_in`` and
    ``price_out`` of a million tokens of the prompted model, ``host_price`` of an hour of the machine that serves the
    tuned one, ``label_price`` of one labelled example. ``latency`` is in seconds an answer, ``retrain_every`` in
    days. ``asked`` names those that a person was asked for at a terminal."""

    calls_per_day: float | None = None
    facts_change: Change | None = None
    prototype: bool | None = None
    latency: float | None = None
    label_price: float | None = None
    price_in: float | None = None
    price_out: float | None = None
    host_price: float | None = None
    retrain_every: float | None = None
    asked: tuple[str, ...] | None = None


class Band(Noun):
    """A forecast's median and the limits that it lies within with 80% and with 95%. A limit is infinite where no
    value within reach was found."""

    value: float
    low80: float
    high80: float
    low95: float
    high95: float


class CurvePoint(Noun):
    """A small run on ``rows`` training rows, scored on held-back training rows."""

    rows: int
    seed: int
    score: Estimate
    steps: int
    seconds: float


class CurvePlace(Noun):
    """The forecast of one run's score on ``rows`` training rows."""

    rows: int
    score: Band


class Curve(Noun):
    """The learning curve. ``at_full`` is one run's score on all ``rows`` training rows, ``gain`` how far that is above
    the best baseline, ``in_report`` what a run's report will show on its locked test rows, ``more`` what 1,000 more
    examples bring, ``overtakes`` the rows at which tuning is ``worth`` above the best baseline, ``within_reach`` the
    share of the drawn curves on which that is within ten times the rows at hand; ``least`` is the gain that a verdict
    has to be above. Scores are in the metric's own units (of a perplexity ``worth`` and ``least`` are shares); ``gain``
    and ``more`` are positive where tuning is better."""

    rows: int
    at_full: Band
    gain: Band
    in_report: Band
    more: Band
    overtakes: Band
    within_reach: float
    chance: float
    worth: float
    least: float = 0.0
    places: tuple[CurvePlace, ...]


class Bar(Noun):
    """A way without training, scored on the same rows. ``tokens_in`` and ``tokens_out`` are those of an answer,
    ``seconds`` the time of one answer, asked alone; None where it asks no model."""

    name: str
    score: Estimate
    tokens_in: float
    tokens_out: float
    seconds: float | None = None


class Variety(Noun):
    """How much alike the inputs are and whether like inputs have like answers. ``repeated`` is the share of rows that
    nearly repeat another, ``agree`` what the answer of the most similar row scores and ``chance`` that of any row,
    ``torn`` the share of near repeats whose answers differ, ``doubted`` the share of rows against whose answer their
    five nearest rows are of one mind (None: answers are no closed set). ``types`` are distinct words a word,
    ``pieces`` tokens a word against general text."""

    rows: int
    answers: int
    repeated: float
    agree: float
    chance: float
    torn: float | None
    doubted: float | None
    types: float
    pieces: float


class Quality(Noun):
    """What the checks found among the ``rows`` of the training file: the rows that each of them ``found``, by its name.
    ``left_out`` rows could not be read."""

    rows: int
    left_out: int = 0
    found: dict[str, int] = {}


class CostPoint(Noun):
    calls_per_day: float
    prompted: float
    tuned: float


class Sensitivity(Noun):
    """The break-even traffic where one input is halved and where it is doubled."""

    name: str
    halved: float | None
    doubled: float | None


class Economics(Noun):
    """Prompting against tuning in money. ``break_even`` is in calls a day, 0 where tuning is always cheaper, None where
    it never is; None everywhere where prices are not known. ``tokens_share`` is what a prompted answer costs in
    times of a tuned one, by tokens alone (``sentence`` tells it only where prices are not known);
    ``quality_share`` what it scores in times of the middle of the forecast, or of the largest small run without one.
    ``assumes`` says what the money takes for granted."""

    tokens_share: float | None = None
    quality_share: float | None = None
    sentence: str
    assumes: str = ""
    known: bool = False
    prompted_call: float | None = None
    tuned_call: float | None = None
    prompted_month: float | None = None
    tuned_month: float | None = None
    once: float = 0.0
    break_even: float | None = None
    curve: tuple[CostPoint, ...] = ()
    sensitivity: tuple[Sensitivity, ...] = ()


class Reason(Noun):
    """One consideration: which side it speaks for and how strongly; ``measured`` is False where only the user can
    know and has not said."""

    topic: str
    side: Side
    strength: Strength
    sentence: str
    measured: bool = True


class Evidence(Noun):
    """All that the rules read. ``rows`` can be trained on; ``scored`` rows were held back from them to score on,
    ``test_rows`` are locked and were not looked at. ``method`` is that of the small runs. ``majority`` is the constant
    answer."""

    task: Task
    metric: str
    higher_is_better: bool = True
    method: str
    rows: int
    scored: int
    test_rows: int
    points: tuple[CurvePoint, ...]
    bars: tuple[Bar, ...]
    tuned: Bar | None = None
    curve: Curve | None = None
    variety: Variety
    quality: Quality | None = None
    facts: Facts = Facts()
    train_seconds: float | None = None


class Advice(Noun):
    """The decision with its rule and reasons. ``lists`` are the two lists that every practitioner knows, each item
    with what was measured for it. ``notes`` say how it was measured."""

    schema_version: int = 1
    id: str = ""
    created: str = ""
    recipe: Recipe | None = None
    model: str = ""
    decision: Decision
    sentence: str
    rule: str
    next: str
    reasons: tuple[Reason, ...]
    lists: dict[str, tuple[Reason, ...]] = {}
    evidence: Evidence
    economics: Economics
    seconds: float = 0.0
    environment: dict[str, str] = {}
    notes: tuple[str, ...] = ()
