"""What a baseline may use, and what a baseline is.

Notable: every baseline sees the same frozen context and answers with the same ``Prediction`` as the tuned system, so
one scorer serves all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunesmith.core.example import Example
from tunesmith.core.protocols import Completer, Embedder, Writer
from tunesmith.core.recipe import Task
from tunesmith.core.report import Prediction


@dataclass(frozen=True, slots=True)
class BaselineContext:
    """``completer`` is the untuned decoder, ``embedder`` the untuned encoder; a run has at most one of them.
    ``prompt`` is the user's own system prompt (None: written from ``train``). ``likelihood`` asks for the likelihood
    of each reference (``run_baselines`` sets it). ``start`` is the tuned model that training goes on from;
    ``rewarded`` adds to answers what they are worth; ``rival`` is a model elsewhere that the recipe names."""

    task: Task
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    labels: tuple[str, ...]
    completer: Completer | None
    embedder: Embedder | None
    shots: int
    prompt: str | None
    max_new_tokens: int
    seed: int
    likelihood: bool = False
    start: Completer | None = None
    rewarded: Callable[[Sequence[Example], Sequence[Prediction]], tuple[Prediction, ...]] | None = None
    rival: Writer | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """``applies`` returns None, or the reason why this baseline cannot run here; ``answer`` gives one prediction a
    test row, in order. ``tasks`` are those for which it is run unasked, where it is ``wanted`` at all. One that
    ``looks_up`` answers from the training rows that are most like the question; one that is ``elsewhere`` is paid for,
    and may not be reached."""

    name: str
    description: str
    applies: Callable[[BaselineContext], str | None]
    answer: Callable[[BaselineContext], tuple[Prediction, ...]]
    tasks: tuple[Task, ...] = ("generate", "classify")
    wanted: Callable[[BaselineContext], bool] = lambda _: True
    looks_up: bool = False
    elsewhere: bool = False


def needs_train(context: BaselineContext) -> str | None:
    """The reason of baselines that copy from the training rows."""
    if context.task == "prefer":
        return "answers are compared, and none is written"
    return None if context.train else "there are no training rows"


def needs_pairs(context: BaselineContext) -> str | None:
    """The reason of baselines that choose between two answers."""
    paired = context.task == "prefer" and all(row.rejected is not None for row in context.test)
    return None if paired else "the test rows have no two answers to choose from"
