"""Rewards by hand, and every way in which a scorer can misbehave: contained, counted, and ended when it goes on."""

import math
import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

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


class Untold(Exception):
    def __str__(self) -> str:
        while True:
            pass


def exploding(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
    return [float(bool(re.match(r"(a+)+$", "a" * 26 + "b"))) for _ in answers]  # seconds each, with the lock held


def looping(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
    while True:
        pass


def swallowing(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
    try:
        return looping(asked, answers)
    except BaseException:  # noqa: BLE001 - as foreign code does
        return [1.0] * len(answers)


def speechless(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
    raise Untold


@pytest.fixture
def alarms() -> Iterator[list[float]]:
    """When an alarm rang that is not of the rewards. The test's own time limit waits meanwhile."""
    rang: list[float] = []
    timer = signal.setitimer(signal.ITIMER_REAL, 0)
    handler = signal.signal(signal.SIGALRM, lambda number, frame: rang.append(time.monotonic()))
    yield rang
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, *timer)


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


def test_a_scorer_that_is_slow_with_nothing_did_not_hang() -> None:
    def loading(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
        time.sleep(0.05)
        return length(asked, answers)

    def forbidden(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
        time.sleep(0.05)
        raise RecipeError("not allowed here")

    mixture = Mixture({"loading": (1.0, loading)})
    assert mixture([], []) == ()
    assert not mixture.faults
    with pytest.raises(RecipeError, match="not allowed here"):
        Mixture({"forbidden": (1.0, forbidden)})([], [])


def test_a_scorer_that_cannot_score_nothing_has_no_fault() -> None:
    mixture = Mixture({"best": (1.0, lambda asked, answers: [float(max(map(len, answers)))] * len(answers))})
    assert mixture([], []) == ()
    assert not mixture.faults


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


def test_a_scorer_that_hangs_is_counted_and_then_ends_it() -> None:
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


@pytest.mark.parametrize("scorer", [exploding, looping, swallowing, speechless, hanging])
def test_what_does_not_return_is_interrupted_and_leaves_nothing(scorer: Scorer, alarms: list[float]) -> None:
    mixture, threads, began = Mixture({"slow": (1.0, scorer)}, seconds=0.1), threading.active_count(), time.monotonic()
    theirs = signal.getsignal(signal.SIGALRM)
    assert same(mixture(asked("a"), ["x"]), [NAN])
    assert time.monotonic() - began < 1.0
    assert mixture.faults == {"slow hung": 1}
    assert threading.active_count() == threads
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is theirs
    assert not alarms


def test_what_is_swallowed_is_told_again() -> None:
    def twice(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
        return [swallowing(asked, answers)[0] for _ in "ab"]

    mixture = Mixture({"twice": (1.0, twice)}, seconds=0.05)
    assert same(mixture(asked("a", "b"), ["x", "y"]), [NAN, NAN])
    assert mixture.faults == {"twice hung": 1}


def test_outside_the_main_thread_a_scorer_that_hangs_is_left_behind() -> None:
    mixture = Mixture({"slow": (1.0, hanging), "length": (1.0, length)}, seconds=0.05)
    with ThreadPoolExecutor(1) as pool:
        assert same(pool.submit(mixture, asked("a"), ["x"]).result(timeout=10), [NAN])
        assert pool.submit(Mixture({"length": (1.0, length)}), asked("a"), ["x"]).result(timeout=10) == (1.0,)
    assert mixture.faults == {"slow hung": 1}


def test_a_timer_that_was_there_goes_on(alarms: list[float]) -> None:
    theirs = signal.getsignal(signal.SIGALRM)
    signal.setitimer(signal.ITIMER_REAL, 30.0, 7.0)
    Mixture({"slow": (1.0, hanging)}, seconds=0.2)(asked("a"), ["x"])
    left, interval = signal.getitimer(signal.ITIMER_REAL)
    assert 25.0 < left < 29.9
    assert interval == 7.0
    assert signal.getsignal(signal.SIGALRM) is theirs
    assert not alarms
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    Mixture({"slow": (1.0, hanging)}, seconds=0.2)(asked("a"), ["x"])
    time.sleep(0.05)
    assert len(alarms) == 1  # late, not lost


def test_a_scorer_that_ends_at_the_last_moment_has_its_value_or_hung(alarms: list[float]) -> None:
    def close(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
        until = time.monotonic() + 0.002
        while time.monotonic() < until:
            pass
        return length(asked, answers)

    for _ in range(300):
        mixture = Mixture({"close": (1.0, close)}, seconds=0.002)
        value = mixture(asked("a"), ["x"])[0]
        assert value == 1.0 if not mixture.faults else math.isnan(value)
    assert not alarms


def test_a_signal_to_stop_is_heard_while_a_scorer_works() -> None:
    def stopped(asked: Sequence[Asked], answers: Sequence[str]) -> list[float]:
        signal.raise_signal(signal.SIGTERM)
        return length(asked, answers)

    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGTERM, hear)
    try:
        assert Mixture({"stopped": (1.0, stopped)})(asked("a"), ["x"]) == (1.0,)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


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
