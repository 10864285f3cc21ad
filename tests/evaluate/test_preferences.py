"""Confidence, length and baselines of systems that prefer."""

import math

import pytest

from tunesmith.core import parts
from tunesmith.core.example import Example, Message, Place
from tunesmith.core.report import Prediction
from tunesmith.evaluate.preferences import preferences


def pair(line: int, better: str, worse: str) -> Example:
    turns = (Message(role="user", content=f"question {line}"), Message(role="assistant", content=better))
    return Example(place=Place(file="a", line=line), messages=turns, rejected=Message(role="assistant", content=worse))


def said(examples: list[Example], right: list[bool], odds: list[float | None]) -> list[Prediction]:
    return [
        Prediction(id=e.id, answer="chosen" if r else "rejected", log_odds=o)
        for e, r, o in zip(examples, right, odds, strict=True)
    ]


def test_calibration_is_the_mean_distance_of_confidence_from_accuracy() -> None:
    examples = [pair(n, "good", "evil") for n in range(10)]
    odds: list[float | None] = [math.log(3)] * 10  # three quarters sure of the first
    found = preferences(said(examples, [True] * 5 + [False] * 5, odds), examples)
    assert found is not None and found.error is not None
    assert [b.confidence for b in found.bins] == pytest.approx([0.75] * 5)
    assert sum(b.accuracy.n for b in found.bins) == 10
    perfect = preferences(said(examples, [True] * 10, [50.0] * 10), examples)
    assert perfect is not None and perfect.error == pytest.approx(0.0)


def test_a_system_that_sees_length_alone_is_told() -> None:
    examples = [pair(n, *(("a longer answer", "short") if n % 4 else ("short", "a longer answer"))) for n in range(80)]
    found = preferences(said(examples, [n % 4 != 0 for n in range(80)], [None] * 80), examples)
    assert found is not None and found.when_longer is not None and found.when_shorter is not None
    assert (found.longer.value, found.when_longer.value, found.when_shorter.value) == (0.75, 1.0, 0.0)
    assert found.sentence.endswith("it favours length.")
    assert found.error is None and found.bins == ()
    fair = preferences(said(examples, [n % 3 != 0 for n in range(80)], [None] * 80), examples)
    assert fair is not None and fair.sentence.endswith("do not show that length decides.")


def test_pairs_without_a_preference_are_told() -> None:
    examples = [pair(n, "good", "evil") for n in range(10)]
    undecided = [Prediction(id=e.id, answer="neither") for e in examples[6:]]
    found = preferences([*said(examples[:6], [True] * 6, [2.0] * 6), *undecided], examples)
    assert found is not None
    assert found.sentence.endswith(" On 4 of them all it prefers neither answer, which counts as wrong.")


def test_rows_that_belong_together_make_length_less_sure() -> None:
    examples = [pair(n, *(("a longer answer", "short") if n % 2 else ("short", "a longer answer"))) for n in range(40)]
    predictions = said(examples, [n % 2 != 0 for n in range(40)], [None] * 40)
    alone, two = (preferences(predictions, examples, units) for units in (None, [n // 39 for n in range(40)]))
    assert alone is not None and alone.sentence.endswith("it favours length.")
    assert two is not None and two.sentence.endswith("do not show that length decides.")


def test_rows_without_two_answers_have_no_such_report() -> None:
    alone = Example(place=Place(file="a", line=1), messages=(Message(role="user", content="a"),), wanted=True)
    assert preferences([Prediction(id="a", answer="wanted")], [alone]) is None


@pytest.mark.parametrize(
    ("name", "answers"),
    [("longer", ["chosen", "rejected", "neither"]), ("shorter", ["rejected", "chosen", "neither"])],
)
def test_length_as_a_baseline(name: str, answers: list[str]) -> None:
    from tunesmith.evaluate.baselines._context import BaselineContext

    rows = (pair(1, "long one", "one"), pair(2, "one", "long one"), pair(3, "same", "size"))
    context = BaselineContext("prefer", rows, rows, (), None, None, 1, None, 16, 0)
    part = parts.find("evaluate.baselines", name)
    assert part.applies(context) is None
    assert [p.answer for p in part.answer(context)] == answers
    for other in ("few_shot", "nearest_neighbour", "majority", "zero_shot"):
        assert parts.find("evaluate.baselines", other).applies(context), other
