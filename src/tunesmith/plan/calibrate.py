"""What earlier runs say of predictions: a factor on the time of a device, and how far it can be trusted.

Notable: the median of measured over predicted, so that one run beside a busy neighbour changes little; three runs at
least, of the same method where there are as many, and drawn towards 1 as long as they are few (as if two more runs had
been predicted right). The spread is what the runs still differ by, never less than a tenth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

LEAST_RUNS, PRIOR_RUNS = 3, 2
NORMAL = 1.4826 * 1.28  # median distance from the middle to four fifths of a normal distribution
LEAST_SPREAD = 1.1


@dataclass(frozen=True, slots=True)
class Earlier:
    """A run of the past: seconds of a step as predicted (without any correction) and as measured."""

    predicted: float
    measured: float
    device: str
    method: str


@dataclass(frozen=True, slots=True)
class Correction:
    """Times ``factor``; four runs of five are expected within ``spread`` of it, either way. ``method`` is empty where
    runs of all methods were taken together."""

    factor: float
    spread: float
    runs: int
    method: str = ""

    def __str__(self) -> str:
        what = f"{self.method} runs" if self.method else "runs"
        return f"{self.runs} earlier {what} took {self.factor:.2g} times as long as predicted"


def correction(runs: Sequence[Earlier], device: str, method: str) -> Correction | None:
    """By the runs on ``device``; None where they are too few.

    >>> runs = [Earlier(1.0, seconds, "laptop", "lora") for seconds in (2.0, 2.0, 9.0)]
    >>> found = correction(runs, "laptop", "lora")
    >>> round(found.factor, 3), found.runs  # 2 to the power of 3 / (3 + 2)
    (1.516, 3)
    """
    here = [run for run in runs if run.device == device and _sound(run)]
    own = [run for run in here if run.method == method]
    chosen, name = (own, method) if len(own) >= LEAST_RUNS else (here, "")
    if len(chosen) < LEAST_RUNS:
        return None
    logs = [math.log(run.measured / run.predicted) for run in chosen]
    middle = median(logs) * len(logs) / (len(logs) + PRIOR_RUNS)
    distance = NORMAL * median(abs(x - middle) for x in logs) * math.sqrt(1 + 1 / len(logs))
    return Correction(math.exp(middle), max(LEAST_SPREAD, math.exp(distance)), len(chosen), name)


def _sound(run: Earlier) -> bool:
    return all(0 < x < math.inf for x in (run.predicted, run.measured))
