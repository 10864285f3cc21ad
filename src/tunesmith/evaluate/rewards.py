"""Rewards of reinforcement learning: any metric that scores a row alone, and mixtures of them.

Notable: what is rewarded is what is measured, for a reward is a metric of ``evaluate.metrics``. Scorers are foreign
code in the middle of a long run, so a mixture contains their faults: a guilty answer has the value NaN, every fault is
named and counted in ``faults``, and a scorer that goes on failing ends with a sentence instead of a run that learns
nothing. A scorer that hangs is interrupted by a timer, which ends regular expressions, loops and waiting alike. Where
that cannot be (outside the main thread, on Windows) it is asked in a thread that is left behind, so what torch keeps
per thread, such as ``no_grad``, a scorer sets for itself. Not contained: C code that never looks at signals, code that
goes on whatever it is told, and in a thread what holds the interpreter's lock, as a regular expression does.
"""

import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any

from tunesmith.core import parts
from tunesmith.core.errors import DataError, RecipeError
from tunesmith.core.protocols import Conversation
from tunesmith.evaluate.metrics._metric import Metric
from tunesmith.evaluate.score import find_metric

A_TIME = 16  # answers for which ``seconds`` are meant
HANGS = 3  # of one process
LOST_CALLS = 3  # in a row
AGAIN = 1.0  # seconds until a scorer that caught its interruption has the next one
KINDS = 100  # different sentences of faults that are kept apart


@dataclass(frozen=True, slots=True)
class Asked:
    """What an answer was given to: the prompt, and the reference of its row (empty where it has none)."""

    prompt: Conversation
    reference: str


Scorer = Callable[[Sequence[Asked], Sequence[str]], Sequence[float]]
Work = Callable[[], list[list[float] | str]]


def rule(name: str) -> Scorer:
    """The metric called ``name`` as a reward: its value of each answer alone.

    A metric of which less is better wants a negative weight. Raises PartError for a name that no metric has, with the
    nearest one, and RecipeError for a metric that has no value of a row alone or needs likelihoods.

    >>> rule("exact_match")([Asked(prompt=(), reference="yes")] * 2, ["yes", "no"])
    [1.0, 0.0]
    """
    metric = find_metric(name)
    if not _scores_rows(metric):
        of = {"likelihood": "the reference's likelihood"}.get(metric.needs, "what a model says")
        what = "of a whole set of answers" if metric.kind == "corpus" else f"of {of}"
        fitting = [n for n in parts.names("evaluate.metrics") if _scores_rows(find_metric(n))]
        raise RecipeError(
            f'reward "{name}": found a metric {what}, expected one that scores each answer alone. '
            f"Choose one of: {', '.join(fitting)}."
        )

    def scorer(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
        values = metric.reduce(metric.rows(answers, [one.reference for one in asked]))
        return [float(value) for value in values]

    return scorer


def _scores_rows(metric: Metric) -> bool:
    return metric.kind != "corpus" and metric.needs == "text"


class Mixture:
    """A weighted sum of scorers, called with what was asked and what was answered.

    ``faults`` counts what went wrong, by sentence. Answers of white space alone are scored like all others. A
    RecipeError of a scorer passes through, for it is meant for a person.

    >>> half = Mixture({"exact_match": (0.5, rule("exact_match")), "token_f1": (1.0, rule("token_f1"))})
    >>> half([Asked(prompt=(), reference="call us")], ["call me"])
    (0.5,)
    """

    def __init__(self, scorers: Mapping[str, tuple[float, Scorer]], *, seconds: float = 60.0) -> None:
        """``scorers`` gives a weight and a scorer by name; a scorer may take ``seconds`` for each ``A_TIME`` answers.
        Raises RecipeError for weights that cannot be."""
        weights = {name: weight for name, (weight, _) in scorers.items()}
        for name, weight in weights.items():
            if not math.isfinite(weight):
                raise RecipeError(f'reward "{name}": found the weight {weight}, expected a number. Give it one.')
        if not any(weights.values()):
            found = "the weights " + ", ".join(f"{n}: {w:g}" for n, w in weights.items()) if weights else "no reward"
            raise RecipeError(
                f"rewards: found {found}, expected one whose weight is not 0; "
                "otherwise every answer is worth the same. Name a reward with a weight such as 1."
            )
        if not (math.isfinite(seconds) and seconds > 0):
            raise RecipeError(
                f"rewards: found {seconds} seconds for a scorer, expected more than 0. Leave it out for 60."
            )
        self.faults: Counter[str] = Counter()
        self._told: Counter[str] = Counter()
        self._scorers, self._seconds = dict(scorers), seconds
        self._hung: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()  # calls in a row without a value
        self._last: dict[str, str] = {}  # the newest fault of each

    def __call__(self, asked: Sequence[Asked], answers: Sequence[str]) -> tuple[float, ...]:
        """The weighted sum for each of ``answers``, one for each of ``asked``; NaN where any part failed. Raises
        DataError when they do not line up, RecipeError when a scorer goes on failing."""
        if len(asked) != len(answers):
            raise DataError(
                f"rewards: found {len(answers)} answers to {len(asked)} prompts, expected one each. "
                "Repeat a prompt for each of its answers."
            )
        values = {name: self._values(name, scorer, asked, answers) for name, (_, scorer) in self._scorers.items()}
        total = tuple(
            sum(weight * values[name][n] for name, (weight, _) in self._scorers.items()) for n in range(len(answers))
        )
        for n, value in enumerate(total):
            if not math.isfinite(value) and all(math.isfinite(part[n]) for part in values.values()):
                self._fault("the sum", "is too large for a number")
        return tuple(value if math.isfinite(value) else math.nan for value in total)

    def untold(self) -> Counter[str]:
        """The faults since this was asked last."""
        found = self.faults - self._told
        self._told = Counter(self.faults)
        return found

    def _values(self, name: str, scorer: Scorer, asked: Sequence[Asked], answers: Sequence[str]) -> tuple[float, ...]:
        values = self._asked(name, scorer, asked, answers)
        lost = bool(answers) and not any(map(math.isfinite, values))
        self._lost[name] = self._lost[name] + 1 if lost else self._lost[name] * (not answers)
        if self._hung[name] >= HANGS:
            raise RecipeError(
                f'reward "{name}": found it not returning within {self._seconds:g} seconds for each {A_TIME} '
                f"answers, {HANGS} times; expected {len(answers)} values. Make it faster, or leave it out."
            )
        if self._lost[name] >= LOST_CALLS:
            raise RecipeError(
                f'reward "{name}": found no value in {LOST_CALLS} calls in a row (last: {self._last[name]}); expected '
                "one number an answer. Mend it, or leave it out."
            )
        return values

    def _asked(self, name: str, scorer: Scorer, asked: Sequence[Asked], answers: Sequence[str]) -> tuple[float, ...]:
        """All at once; where that fails, one by one, so that only the guilty answers lose their value."""
        seconds = self._seconds * max(1, -(-len(answers) // A_TIME))
        together = _within(lambda: [_ask(scorer, asked, answers)], seconds)
        if together is None:
            return self._hangs(name, len(answers))
        whole = together[0]
        if not isinstance(whole, str):
            return tuple(self._finite(name, value) for value in whole)
        if not answers:  # nothing was lost
            return ()
        alone = _within(lambda: [_ask(scorer, [a], [b]) for a, b in zip(asked, answers, strict=True)], seconds)
        if alone is None:
            return self._hangs(name, len(answers))
        if not any(isinstance(one, str) for one in alone):
            self._fault(name, f"{whole}; not so when asked answer by answer")
        return tuple(self._fault(name, one) if isinstance(one, str) else self._finite(name, one[0]) for one in alone)

    def _finite(self, name: str, value: float) -> float:
        return value if math.isfinite(value) else self._fault(name, f"gave {value}")

    def _hangs(self, name: str, count: int) -> tuple[float, ...]:
        self._hung[name] += 1
        self._fault(name, "hung")
        return (math.nan,) * count

    def _fault(self, name: str, what: str) -> float:
        """Counts a fault, and returns the value that its answer has from now on."""
        sentence = f"{name} {what}"
        self._last[name] = sentence
        if sentence not in self.faults and len(self.faults) >= KINDS:
            sentence = f"{name} {what.partition(':')[0]}"  # texts that differ each time are counted together
        self.faults[sentence] += 1
        return math.nan


class _Late(BaseException):
    """The time of a scorer is over. No Exception, for those are often contained where they arise."""


def _within(work: Work, seconds: float) -> list[list[float] | str] | None:
    """What ``work`` returns; None when it takes too long. What it raises is raised here."""
    seconds = min(seconds, threading.TIMEOUT_MAX)
    if threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer"):
        handler = signal.getsignal(signal.SIGALRM)
        if handler is not None:  # one that is not Python's could not be put back
            return _interrupted(work, seconds, handler)
    return _left_behind(work, seconds)


def _interrupted(work: Work, seconds: float, handler: Any) -> list[list[float] | str] | None:
    """In this thread, under a timer. ``handler`` is put back afterwards, and a timer that ran with it goes on."""
    late, box = False, list[list[list[float] | str]]()

    def run() -> None:
        box.append(work())

    def ring(number: int, frame: FrameType | None) -> None:
        nonlocal late
        while frame is not None and frame.f_code is not run.__code__:
            frame = frame.f_back
        if frame is not None:  # otherwise ``work`` came to its end before
            late = True
            raise _Late

    began = time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)  # before the handler, which another timer must not reach
    signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        run()
    except _Late:
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 1e-6), interval)
    return None if late else box[0]


def _left_behind(work: Work, seconds: float) -> list[list[float] | str] | None:
    """In a thread of its own, for which nobody waits any longer."""
    caught, box = _Caught(), list[list[list[float] | str]]()

    def run() -> None:
        with caught:
            box.append(work())

    thread = threading.Thread(target=run, name="reward", daemon=True)
    thread.start()
    thread.join(seconds)
    if caught.error is not None:
        raise caught.error
    return box[0] if box else None


class _Caught:
    """Keeps what foreign code raises as a value, so that it can be named, counted or raised where someone waits."""

    error: BaseException | None = None

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.error = error
        return True


def _ask(scorer: Scorer, asked: Sequence[Asked], answers: Sequence[str]) -> list[float] | str:
    """The values, or what the scorer did instead. Raises what is not for a mixture to contain."""
    caught = _Caught()
    with caught:
        values = [float(value) for value in scorer(asked, answers)]
        return values if len(values) == len(answers) else f"gave {len(values)} values for {len(answers)} answers"
    error = caught.error
    if isinstance(error, RecipeError) or (error is not None and not isinstance(error, Exception)):
        raise error
    said, told = [""], _Caught()
    with told:  # foreign too
        said = str(error).splitlines() or said
    if told.error is not None and not isinstance(told.error, Exception):
        raise told.error
    return f"raised {type(error).__name__}" + (f": {said[0][:200]}" if said[0] else "")
