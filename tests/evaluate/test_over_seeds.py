"""Means over seeds by hand, and that an interval counts rows once however many seeds answer them."""

import numpy as np
import pytest

from tunesmith.evaluate.metrics import accuracy, macro_f1
from tunesmith.evaluate.over_seeds import mean_over_seeds


def answers(*right: int) -> np.ndarray:
    return accuracy.PART.rows(["a" if r else "b" for r in right], ["a"] * len(right))


def test_a_mean_and_a_difference() -> None:
    one, two = answers(1, 1, 0, 0), answers(1, 0, 0, 0)
    assert mean_over_seeds(accuracy.PART, [one, two], seed=0).value == 0.375
    gap = mean_over_seeds(accuracy.PART, [one, two], [answers(0, 0, 0, 0)] * 2, seed=0)
    assert (gap.value, gap.n) == (0.375, 4)


def test_more_seeds_of_the_same_answers_are_no_more_evidence() -> None:
    rows = answers(*(i % 3 == 0 for i in range(60)))
    five, one = (mean_over_seeds(accuracy.PART, [rows] * n, seed=0) for n in (5, 1))
    assert (five.low, five.high) == (pytest.approx(one.low), pytest.approx(one.high))


def test_a_difference_is_paired() -> None:
    hard = [i % 2 for i in range(80)]
    better = answers(*hard[:78], 1, 1)
    alone = mean_over_seeds(accuracy.PART, [better], seed=0)
    gap = mean_over_seeds(accuracy.PART, [better], [answers(*hard)], seed=0)
    assert gap.high - gap.low < 0.4 * (alone.high - alone.low)


def test_rows_of_one_unit_are_drawn_together() -> None:
    rows = answers(*([1] * 20 + [0] * 20))
    units = [i // 10 for i in range(40)]
    apart, together = (mean_over_seeds(accuracy.PART, [rows], seed=0, units=u) for u in (None, units))
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_rows_all_alike_have_an_interval_all_the_same() -> None:
    found = mean_over_seeds(accuracy.PART, [answers(*[1] * 50)] * 3, seed=0)
    assert found.value == 1 and 0.9 < found.low < 0.95
    gap = mean_over_seeds(accuracy.PART, [answers(*[1] * 50)], [answers(*[1] * 50)], seed=0)
    assert gap.low == -gap.high < -0.05


def test_a_corpus_metric_is_reduced_once_a_seed() -> None:
    expected = ["a", "b", "a", "b"]
    runs = [macro_f1.rows(given, expected) for given in (expected, ["a"] * 4)]
    one = [float(macro_f1.PART.reduce(r.sum(axis=0))) for r in runs]
    assert mean_over_seeds(macro_f1.PART, runs, seed=0).value == pytest.approx(sum(one) / 2)
