"""Rewards by hand, and every way in which a scorer can misbehave: contained, counted, and ended when it goes on."""

import math
import threading
from collections.abc import Sequence

import pytest

from tunesmith.core import parts
from tunesmith.core.errors import DataError, PartError, RecipeError
from tunesmith.core.example import Message
from tunesmith.evaluate.rewards import KINDS, Asked, Mixture, Scorer, rule
from tunesmith.evaluate.score import find_metric

NAN = math.nan
PROMPT = (Message(role="user", content="How many?"),)


def asked(*references: str) -> list[Asked]:
    return [Asked(prompt=PROMPT, reference=r) for r in references]


def length(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
    return [float(len(answer)) for answer in answers]


def poisoned(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
    """Falls over the whole batch when one answer holds "bad"."""
    for answer in answers:
        if "bad" in answer:
            raise ValueError(f"cannot read {answer!r}\nmore lines")
    return length(asked, answers)


def always(value: object) -> Scorer:
    return lambda asked, answers: [value] * len(answers)  # type: ignore[list-item]


def hanging(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
    threading.Event().wait(20)
    return []


def same(found: Sequence[float], expected: Sequence[float]) -> bool:
    return found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("name", parts.names("evaluate.metrics"))
def test_every_metric_of_rows_is_a_reward_and_no_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_RUN_CODE", "1")
    metric = find_metric(name)
    if metric.kind == "corpus" or metric.needs != "text":
        with pytest.raises(RecipeError, match=f'reward "{name}": found a metric of .*accuracy, exact_match') as caught:
            rule(name)
        assert f" {name}," not in str(caught.value)
        return
    references, answers = ['{"n": 18}', '{"n": 1}'], ['{"n": 18}', "no"]
    values = rule(name)(asked(*references), answers)
    assert values == metric.reduce(metric.rows(answers, references)).tolist()
    assert values[0] > values[1]
    assert list(rule(name)([], [])) == []


def test_an_unknown_reward_names_the_nearest() -> None:
    with pytest.raises(PartError, match='Did you mean "maths_answer"'):
        rule("math_answer")


def test_total_is_the_weighted_sum() -> None:
    mixture = Mixture({"maths_answer": (2.0, rule("maths_answer")), "length": (-0.5, length), "off": (0.0, length)})
    scored = mixture(asked("#### 18", "#### 18"), ["18", "17."])
    assert scored == (2.0 * 1 - 0.5 * 2, -0.5 * 3)
    assert not mixture.faults


def test_no_answers_have_no_values() -> None:
    assert Mixture({"length": (1.0, length)})([], []) == ()


def test_answers_of_white_space_are_scored_like_others() -> None:
    mixture = Mixture({"length": (1.0, length)})
    assert mixture(asked("", "", ""), ["", " \n", "x"]) == (0.0, 2.0, 1.0)
    assert mixture(asked(""), ["\t"]) == (1.0,)


def test_only_the_guilty_answers_lose_their_value() -> None:
    mixture = Mixture({"poisoned": (1.0, poisoned), "length": (1.0, length)})
    scored = mixture(asked(*"abcd"), ["x", "bad", "yy", "bad"])
    assert same(scored, [2.0, NAN, 4.0, NAN])
    assert mixture.faults == {"poisoned raised ValueError: cannot read 'bad'": 2}


def test_a_fault_of_the_batch_alone_is_counted_too() -> None:
    def shy(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
        return length(asked, answers) if len(answers) == 1 else [1.0]

    mixture = Mixture({"shy": (1.0, shy)})
    assert mixture(asked(*"ab"), ["x", "yy"]) == (1.0, 2.0)
    assert mixture.faults == {"shy gave 1 values for 2 answers; not so when asked answer by answer": 1}


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (NAN, "odd gave nan"),
        (math.inf, "odd gave inf"),
        (-math.inf, "odd gave -inf"),
        (None, "odd raised TypeError: float() argument must be a string or a real number, not 'NoneType'"),
        ("much", "odd raised ValueError: could not convert string to float: 'much'"),
        (10**400, "odd raised OverflowError: int too large to convert to float"),
    ],
)
def test_what_is_no_number_is_a_fault(value: object, sentence: str) -> None:
    mixture = Mixture({"odd": (0.0, always(value)), "length": (1.0, length)})
    scored = mixture(asked(*"ab"), ["x", "yy"])
    assert same(scored, [NAN, NAN])
    assert mixture.faults == {sentence: 2}


def test_too_few_values_are_a_fault_of_each_answer() -> None:
    mixture = Mixture({"none": (1.0, lambda asked, answers: [])})
    assert same(mixture(asked(*"ab"), ["x", "yy"]), [NAN, NAN])
    assert mixture.faults == {"none gave 0 values for 1 answers": 2}


def test_a_sum_that_overflows_is_a_fault() -> None:
    mixture = Mixture({"huge": (1e300, always(1e300)), "length": (1.0, length)})
    assert same(mixture(asked("a"), ["x"]), [NAN])
    assert mixture.faults == {"the sum is too large for a number": 1}


def test_a_scorer_that_hangs_is_left_behind_and_then_ends_it() -> None:
    mixture = Mixture({"slow": (1.0, hanging), "length": (1.0, length)}, seconds=0.05)
    for times in (1, 2):
        scored = mixture(asked(*"ab"), ["x", "yy"])
        assert same(scored, [NAN, NAN])
        assert mixture.faults == {"slow hung": times}
    with pytest.raises(
        RecipeError,
        match=r'reward "slow": found it not returning within 0.05 seconds for each 16 answers, 3 times.*leave',
    ):
        mixture(asked("a"), ["x"])


def test_one_answer_that_hangs_when_asked_alone_counts_as_hung() -> None:
    def picky(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
        if len(answers) > 1:
            raise ValueError("one at a time")
        return hanging(asked, answers)

    mixture = Mixture({"picky": (1.0, picky)}, seconds=0.05)
    assert same(mixture(asked(*"ab"), ["x", "y"]), [NAN, NAN])
    assert mixture.faults == {"picky hung": 1}


def test_hangs_are_counted_over_the_run_and_not_in_a_row() -> None:
    def moody(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
        return hanging(asked, answers) if "slow" in answers else length(asked, answers)

    mixture = Mixture({"moody": (1.0, moody)}, seconds=0.05)
    for answer in ("slow", "fast", "slow", "fast"):
        mixture(asked("a"), [answer])
    with pytest.raises(RecipeError, match="3 times"):
        mixture(asked("a"), ["slow"])


def test_a_scorer_without_a_value_in_three_calls_in_a_row_ends_it() -> None:
    mixture = Mixture({"poisoned": (1.0, poisoned), "length": (1.0, length)})
    for answers in (["bad", "bad"], ["bad"], ["bad", "good"], ["bad"], ["bad"]):  # the third has a value
        mixture(asked(*answers), answers)
    mixture([], [])  # says nothing
    with pytest.raises(
        RecipeError,
        match=r'reward "poisoned": found no value in 3 calls in a row \(last: poisoned raised ValueError: cannot read',
    ):
        mixture(asked("a"), ["bad"])


def test_sentences_that_differ_each_time_do_not_pile_up() -> None:
    mixture = Mixture({"poisoned": (1.0, poisoned)})
    answers = [f"bad {n}" for n in range(KINDS + 50)]
    mixture(asked(*answers), answers)
    assert len(mixture.faults) == KINDS + 1
    assert mixture.faults["poisoned raised ValueError"] == 50
    assert mixture.faults.total() == KINDS + 50


def test_a_scorer_that_may_not_run_passes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNESMITH_RUN_CODE", raising=False)
    mixture = Mixture({"unit_tests": (1.0, rule("unit_tests"))})
    for answers in ([], ["x = 1"], ["x = 1", "y = 2"]):  # without answers too, so that a flow can ask beforehand
        with pytest.raises(RecipeError, match="found TUNESMITH_RUN_CODE unset"):
            mixture(asked(*answers), answers)
    assert not mixture.faults


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_wants_to_end_the_program_passes_through(error: type[BaseException]) -> None:
    def leaving(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
        raise error

    with pytest.raises(error):
        Mixture({"leaving": (1.0, leaving)})(asked("a"), ["x"])


def test_an_error_that_cannot_be_told_is_contained() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    def mute(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
        raise Mute

    mixture = Mixture({"mute": (1.0, mute)})
    assert same(mixture(asked("a"), ["x"]), [NAN])
    assert mixture.faults == {"mute raised Mute": 1}


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({"a": NAN}, 'reward "a": found the weight nan'),
        ({"a": 1.0, "b": math.inf}, 'reward "b": found the weight inf'),
        ({"a": 0.0, "b": 0.0}, "found the weights a: 0, b: 0, expected one whose weight is not 0"),
        ({}, "found no reward"),
    ],
)
def test_weights_that_cannot_be(weights: dict[str, float], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        Mixture({name: (weight, length) for name, weight in weights.items()})


@pytest.mark.parametrize("seconds", [0.0, -1.0, NAN, math.inf])
def test_seconds_that_cannot_be(seconds: float) -> None:
    with pytest.raises(RecipeError, match="seconds for a scorer, expected more than 0"):
        Mixture({"a": (1.0, length)}, seconds=seconds)


def test_answers_and_prompts_line_up() -> None:
    with pytest.raises(DataError, match="found 1 answers to 2 prompts"):
        Mixture({"a": (1.0, length)})(asked("a", "b"), ["x"])
