"""Paired tests against scipy, and against the truth in simulations where both systems are equally good."""

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test

from tunesmith.core.errors import DataError
from tunesmith.evaluate.metrics._metric import per_row
from tunesmith.evaluate.score import find_metric
from tunesmith.evaluate.significance import compare, mcnemar, sign_flip, swap

SIMULATIONS = 400


def test_mcnemar_is_the_exact_binomial_test_of_wins_and_losses() -> None:
    first = np.array([1.0] * 40 + [1] * 12 + [0] * 3 + [0] * 20)
    second = np.array([1.0] * 40 + [0] * 12 + [1] * 3 + [0] * 20)
    assert mcnemar(first, second) == pytest.approx(binomtest(12, 15, 0.5).pvalue)
    assert mcnemar(first, first) == 1.0


def test_sign_flip_agrees_with_scipy() -> None:
    rng = np.random.default_rng(1)
    differences = rng.normal(0.3, 1, 12)
    exact = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=2**13, alternative="two-sided"
    ).pvalue
    assert sign_flip(differences, seed=0) == pytest.approx(exact, abs=0.015)


def test_sign_flip_is_never_zero_and_one_for_ties() -> None:
    assert sign_flip(np.ones(200), seed=0, samples=999) == 0.001
    assert sign_flip(np.zeros(5), seed=0) == 1.0
    assert sign_flip(np.ones(60), seed=0) == sign_flip(np.full(60, 0.1), seed=0)  # rounding splits no ties


def test_swap_is_the_sign_flip_test_for_row_means() -> None:
    rng = np.random.default_rng(4)
    one, other = per_row(rng.random(40)), per_row(rng.random(40) - 0.1)
    flipped = sign_flip(one[:, 0] - other[:, 0], seed=0)
    assert 0.01 < flipped < 0.9
    assert swap(find_metric("token_f1"), one, other, seed=0) == pytest.approx(flipped, abs=0.02)


def test_swap_agrees_with_scipy_on_macro_f1() -> None:
    expected, one, other = list("aabbccab"), list("aabbccba"), list("abbaccaa")
    metric = find_metric("macro_f1")
    stats = np.stack([metric.rows(one, expected), metric.rows(other, expected)])

    def difference(first: np.ndarray, second: np.ndarray) -> float:
        rows = np.arange(8)
        totals = [stats[which, rows].sum(axis=0) for which in (first.astype(int), second.astype(int))]
        return float(metric.reduce(totals[0]) - metric.reduce(totals[1]))

    exact = permutation_test(
        (np.zeros(8), np.ones(8)), difference, permutation_type="samples", vectorized=False, n_resamples=2**9
    ).pvalue
    assert swap(metric, stats[0], stats[1], seed=0) == pytest.approx(exact, abs=0.015)


@pytest.mark.parametrize("name", ["accuracy", "token_f1", "macro_f1"])
def test_equal_systems_differ_significantly_in_about_one_run_of_twenty(name: str) -> None:
    metric, rng = find_metric(name), np.random.default_rng(2)
    alarms = covered = 0
    for n in range(SIMULATIONS):
        expected = rng.integers(0, 3, 80)
        systems = [np.where(rng.random(80) < 0.7, expected, rng.integers(0, 3, 80)) for _ in range(2)]
        one, other = (metric.rows([f"c{x}" for x in s], [f"c{x}" for x in expected]) for s in systems)
        result = compare(metric, one, other, seed=n, samples=400, flips=400)
        alarms += result.p_value < 0.05
        covered += result.difference.low <= 0 <= result.difference.high
    assert alarms / SIMULATIONS <= 0.075
    assert alarms > 0
    assert 0.92 <= covered / SIMULATIONS <= 0.985


def test_a_real_difference_is_found_and_its_interval_covers_it() -> None:
    metric, rng = find_metric("token_f1"), np.random.default_rng(3)
    covered = 0
    for n in range(200):
        base = rng.random(100) * 0.5
        one, other = per_row(base + rng.random(100) * 0.4), per_row(base)
        result = compare(metric, one, other, seed=n, samples=400, flips=400)
        assert result.p_value < 0.05
        covered += result.difference.low <= 0.2 <= result.difference.high
    assert covered >= 180


def test_compare_names_its_test_and_turns_round_with_its_arguments() -> None:
    rng = np.random.default_rng(0)
    for name, test in (("accuracy", "exact McNemar test"), ("rouge_l", "sign-flip permutation test")):
        one, other = per_row(rng.integers(0, 2, 50)), per_row(rng.integers(0, 2, 50))
        there, back = (compare(find_metric(name), *pair, seed=0) for pair in ((one, other), (other, one)))
        assert there.test == test
        assert there.difference.value == pytest.approx(-back.difference.value)
        assert there.difference.low == pytest.approx(-back.difference.high)
        assert there.p_value == pytest.approx(back.p_value)
    chrf = find_metric("chrf")
    stats = chrf.rows(["abc", "b"] * 20, ["abd", "b"] * 20)
    assert compare(chrf, stats, stats, seed=0).test == "approximate randomisation test"
    assert compare(chrf, stats, stats, seed=0).p_value == 1.0


def test_rows_without_a_difference_still_leave_doubt() -> None:
    same = per_row([1.0, 0.0] * 15)
    result = compare(find_metric("accuracy"), same, same, seed=0)
    assert result.difference.high == pytest.approx(1 - 0.025 ** (1 / 30))
    assert result.difference.low == pytest.approx(-result.difference.high)


def test_unpaired_statistics_are_refused() -> None:
    with pytest.raises(DataError, match="expected the same rows for both"):
        compare(find_metric("accuracy"), per_row([1.0]), per_row([1.0, 0.0]), seed=0)
