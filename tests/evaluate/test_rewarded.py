"""Win rates by hand, and each sign of a fooled reward alone."""

import random
from typing import Any

import pytest

from tunesmith.core.report import Prediction, RolloutPoint
from tunesmith.evaluate.rewarded import rewarded, win_rate

CALM: dict[str, Any] = {
    "answers": 10, "reward": 1.0, "spread": 1.0, "error": 0.5, "unrewarded": 0, "empty": 0, "cut": 0, "equal": 0.0,
    "length": 10.0, "kl": 1.0, "entropy": 1.0, "repeated": 0.0,
}  # fmt: skip


def points(count: int = 20, **last: Any) -> list[RolloutPoint]:
    """``count`` calm rollouts, of which the second half has ``last``."""
    return [RolloutPoint(step=i, **(CALM | (last if i >= count // 2 else {}))) for i in range(count)]


def answers(tokens: int = 10, reward: float | None = 0.0, judged: float | None = None) -> list[Prediction]:
    return [Prediction(id=str(i), answer="x", new_tokens=tokens, reward=reward, judged=judged) for i in range(40)]


def told(own: list[Prediction], before: list[Prediction], rollouts: list[RolloutPoint]) -> tuple[str, ...]:
    return rewarded({"tuned": own, "start": before}, rollouts, "start", 10**6, by_model=True).signs


def test_a_tie_counts_half_and_rows_without_a_value_do_not_count() -> None:
    found = win_rate([2.0, 1.0, 1.0, None, 5.0], [1.0, 1.0, 3.0, 0.0, None])
    assert found is not None
    assert (found.value, found.n) == (0.5, 3)
    assert 0 < found.low < 0.5 < found.high < 1
    assert win_rate([None], [1.0]) is None


def test_an_answer_whose_reward_was_lost_neither_wins_nor_loses() -> None:
    own = answers(reward=-0.5)
    lost = [p.model_copy(update={"unrewarded": i < 30}) for i, p in enumerate(answers(reward=0.0))]
    found = rewarded({"tuned": own, "start": lost}, points(), "start", 10**6, by_model=True)
    assert (found.wins["start"].value, found.wins["start"].n) == (0.0, 10)
    judged = [p.model_copy(update={"judged": 0.4}) for p in lost]
    fallen = told([p.model_copy(update={"judged": 0.1}) for p in answers(reward=-0.5)], judged, points())
    assert fallen == ()  # the reward of what is known has not risen


def test_rows_that_belong_together_are_one_word_for_or_against() -> None:
    values: list[float | None] = [2.0] * 20 + [0.0] * 20
    alone = win_rate(values, [1.0] * 40)
    together = win_rate(values, [1.0] * 40, [i // 10 for i in range(40)])
    assert alone is not None and together is not None and alone.value == together.value == 0.5
    assert together.high - together.low > 2 * (alone.high - alone.low)
    one = win_rate([2.0] * 9, [1.0] * 9, [0] * 9)
    assert one is not None and (one.low, one.high) == (0.0, 1.0)


def test_a_judge_that_falls_in_one_unit_of_rows_is_no_sign() -> None:
    before = answers(reward=1.0, judged=0.4)
    own = [p.model_copy(update={"reward": 2.0, "judged": 0.0 if i < 20 else 0.4}) for i, p in enumerate(before)]
    units = [min(i // 20, 1) for i in range(40)]
    signs = [
        rewarded({"tuned": own, "start": before}, points(), "start", 10**6, by_model=True, units=of).signs
        for of in (None, units)
    ]
    assert [len(found) for found in signs] == [1, 0]


def test_calm_rollouts_show_no_sign() -> None:
    assert told(answers(reward=1.0), answers(), points()) == ()


@pytest.mark.parametrize(
    ("last", "sign"),
    [
        ({"kl": 14.0}, "14.0 nats an answer away from its reference"),
        ({"repeated": 0.3}, "30% of an answer repeats itself, at first 0%"),
        ({"cut": 4}, "40% of the answers are cut off"),
    ],
)
def test_each_sign_of_the_rollouts(last: dict[str, Any], sign: str) -> None:
    (found,) = told(answers(reward=1.0), answers(), points(**last))
    assert sign in found


def test_rollouts_after_the_kept_weights_show_no_sign_of_them() -> None:
    far = points(kl=14.0)
    kept, last = (
        rewarded({"tuned": answers(), "start": answers()}, far, "start", step, by_model=True) for step in (9, 19)
    )
    assert kept.signs == () and len(last.signs) == 1
    assert kept.points == last.points


@pytest.mark.parametrize(("tokens", "seen"), [(16, True), (6, True), (14, False), (7, False)])
def test_answers_that_grew_or_shrank(tokens: int, seen: bool) -> None:
    assert bool(told(answers(tokens), answers(10), points())) is seen


def test_a_judge_that_falls_while_the_reward_rises() -> None:
    (found,) = told(answers(reward=2.0, judged=0.1), answers(reward=1.0, judged=0.4), points())
    assert found == "The reward rose by 1 while the independent judge fell by 0.3."
    assert told(answers(reward=2.0, judged=0.5), answers(reward=1.0, judged=0.4), points()) == ()
    assert told(answers(reward=0.5, judged=0.1), answers(reward=1.0, judged=0.4), points()) == ()


def test_a_judge_that_falls_by_chance_is_no_sign() -> None:
    rng = random.Random(0)
    seen = 0
    for _ in range(200):
        own, before = (
            [p.model_copy(update={"judged": rng.gauss(0, 1)}) for p in answers(reward=reward)] for reward in (2.0, 1.0)
        )
        seen += bool(told(own, before, points()))
    assert seen < 20  # one in forty by chance


def test_rules_are_doubted_by_a_judge_alone() -> None:
    long, before = answers(40, reward=2.0, judged=0.1), answers(10, reward=1.0, judged=0.4)
    by_model, by_rules = (
        rewarded({"tuned": long, "start": before}, points(kl=14.0), "start", 10**6, by_model=found)
        for found in (True, False)
    )
    assert len(by_model.signs) == len(by_rules.signs) == len(by_model.doubts) == 3
    (doubt,) = by_rules.doubts
    assert "judge fell" in doubt
    assert by_rules.looked == ("length", "repetition", "distance", "an independent judge")
    plain = rewarded(
        {"tuned": answers(), "start": answers()},
        [p.model_copy(update={"kl": None}) for p in points()],
        "start",
        10**6,
        by_model=True,
    )
    assert plain.looked == ("length", "repetition")


def test_the_sentence_counts_what_had_no_reward() -> None:
    lost = [p.model_copy(update={"unrewarded": 2, "empty": 1}) for p in points(4, reward=3.0)]
    found = rewarded({"tuned": answers(), "start": answers()}, lost, "start", 10**6, by_model=True)
    assert found.sentence == (
        "In 4 rollouts the mean reward went from 1 (standard error 0.5, n = 8) to 3 (standard error 0.5, n = 8), "
        "1 nats an answer away from the reference; 8 answers had no reward; 4 were empty."
    )
    early = rewarded({"tuned": answers(), "start": answers()}, lost, "start", 1, by_model=True)
    assert early.sentence.startswith(
        "In 2 rollouts of 4, until step 1, whose weights are kept, the mean reward went from 1 "
    )
    assert early.sentence.endswith("8 answers had no reward; 4 were empty.")
    one = rewarded({"tuned": answers(), "start": answers()}, lost, "start", 0, by_model=True)
    assert one.sentence.startswith("In 1 rollout of 4, ")
    none = rewarded({"tuned": answers(), "start": answers()}, [], "start", 10**6, by_model=True)
    assert none.sentence == "No rollout had a reward."


def test_wins_are_told_for_each_system() -> None:
    by_name = {
        "tuned": answers(reward=2.0, judged=1.0),
        "start": answers(reward=1.0, judged=2.0),
        "zero_shot": answers(),
    }
    found = rewarded(by_name, points(), "start", 10**6, by_model=True)
    assert {name: e.value for name, e in found.wins.items()} == {"start": 1.0, "zero_shot": 1.0}
    assert {name: e.value for name, e in found.judged_wins.items()} == {"start": 0.0}
    assert {by: e.value for by, e in found.start_wins.items()} == {"reward": 1.0}  # the base was not judged
