"""What a training is foreseen to need before a weight is read: memory by part, time, money, and what was taken for
granted."""

from typing import Literal

from tunesmith.core.noun import Noun
from tunesmith.core.plan import Plan

Pair = tuple[float, float]


class Choice(Noun):
    """One way to do it: on a device, or with other settings of the recipe. ``fits`` says whether memory, time and money
    suffice; ``why`` what is missing, or what the choice costs."""

    name: str
    settings: dict[str, str | int | float] = {}
    peak_bytes: int
    limit: int | None
    seconds: Pair | None
    usd: Pair | None
    fits: bool
    why: str


class Forecast(Noun):
    """``memory`` by part sums to ``peak_bytes``, ``activations`` to that part of it, ``time`` by part to ``seconds``;
    four of five are expected within the ``range`` of the seconds: by what runs took where a processor was probed or a
    machine has earlier runs, else by a rule of thumb. ``usd`` and ``kwh`` come of it. ``answering_bytes`` are keys
    and values while answers are written. ``choices`` are other devices or settings, where they were asked for;
    ``assumed`` is what was taken for granted."""

    model: str
    parameters: int
    active_parameters: int
    kind: Literal["decoder", "encoder"]
    method: str
    objective: str
    trained: int
    rows: int
    tokens: int
    longest: int
    device: str
    limit: int | None
    fits: bool
    memory: dict[str, int]
    activations: dict[str, int] = {}
    peak_bytes: int
    answering_bytes: int
    time: dict[str, float]
    seconds: float | None
    range: Pair | None
    step_seconds: float | None
    usd: Pair | None
    kwh: Pair | None
    plan: Plan
    choices: tuple[Choice, ...] = ()
    assumed: tuple[str, ...] = ()
