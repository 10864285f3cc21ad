"""Intervals: the stated rule, coverage, one resampling for all; default metrics."""

import numpy as np
import pytest
from scipy.stats import binomtest

from tunesmith.core.errors import DataError, PartError
from tunesmith.core.report import Prediction
from tunesmith.evaluate.bootstrap import resample_counts
from tunesmith.evaluate.score import default_metrics, row_scores, score, wilson


def predictions(answers: list[str]) -> list[Prediction]:
    return [Prediction(id=str(n), answer=a) for n, a in enumerate(answers)]


@pytest.mark.parametrize(("right", "rows"), [(0, 10), (7, 10), (10, 10), (450, 500)])
def test_zero_one_intervals_are_wilsons(right: int, rows: int) -> None:
    answers = ["y"] * right + ["n"] * (rows - right)
    estimate = score(predictions(answers), ["y"] * rows, ["accuracy"], seed=0)["accuracy"]
    theirs = binomtest(right, rows).proportion_ci(method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((theirs.low, theirs.high))
    assert wilson(right / rows, rows) == pytest.approx((theirs.low, theirs.high))


def test_row_mean_interval_is_the_percentile_bootstrap_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    answers = [" ".join(["x"] * rng.integers(0, 5)) for _ in range(200)]
    references = ["x x"] * 200
    estimate = score(predictions(answers), references, ["token_f1"], seed=3)["token_f1"]
    rows = row_scores("token_f1", predictions(answers), references)
    assert estimate.value == pytest.approx(rows.mean())
    half = 1.96 * rows.std() / 200**0.5  # the normal approximation is close for 200 rows
    assert (estimate.low, estimate.high) == pytest.approx((rows.mean() - half, rows.mean() + half), abs=0.01)


def test_equal_rows_still_leave_doubt() -> None:
    estimate = score(predictions(["a b"] * 10), ["a b"] * 10, ["token_f1"], seed=0)["token_f1"]
    assert estimate.value == estimate.high == 1.0
    assert estimate.low == pytest.approx(0.025**0.1)  # exact bound of Clopper and Pearson for 10 of 10
    assert estimate.low == pytest.approx(binomtest(10, 10).proportion_ci().low)


def test_several_metrics_give_what_each_gives_alone() -> None:
    answers, references = ["a b", "c", "a", "d e"] * 10, ["a b", "c d", "b", "d e"] * 10
    names = ["token_f1", "chrf", "macro_f1", "exact_match"]
    together = score(predictions(answers), references, names, seed=1)
    assert list(together) == names
    for name in names:
        alone = score(predictions(answers), references, [name], seed=1)[name]
        assert together[name].model_dump() == pytest.approx(alone.model_dump())


def test_seed_decides_and_repeats() -> None:
    answers, references = ["a b", "c", "a", "d e"] * 10, ["a b", "c d", "b", "d e"] * 10
    one, same, other = (score(predictions(answers), references, ["chrf"], seed=s)["chrf"] for s in (0, 0, 1))
    assert one == same
    assert one != other


def test_bootstrap_coverage_is_near_95_percent() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        drawn = rng.integers(0, 5, 60)  # token F1 against "x x": 0, 2/3, 1, 4/5, 2/3 with equal chance
        rows = predictions([" ".join(["x"] * k) for k in drawn])
        estimate = score(rows, ["x x"] * 60, ["token_f1"], seed=1, samples=500)["token_f1"]
        covered += estimate.low <= (0 + 2 / 3 + 1 + 4 / 5 + 2 / 3) / 5 <= estimate.high
    assert 0.91 <= covered / 400 <= 0.98


def test_resamples_draw_every_row_equally_often() -> None:
    counts = np.concatenate(list(resample_counts(7, 3_000, seed=0)))
    assert counts.shape == (3_000, 7)
    assert (counts.sum(axis=1) == 7).all()
    np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.06)
    np.testing.assert_allclose(counts.var(axis=0), 6 / 7, atol=0.1)  # multinomial: n p (1 - p)


def test_rows_that_do_not_line_up_are_refused() -> None:
    with pytest.raises(DataError, match="found 1 predictions for 2 references"):
        score(predictions(["a"]), ["a", "b"], ["accuracy"], seed=0)
    with pytest.raises(DataError, match="at least one"):
        score([], [], ["accuracy"], seed=0)
    with pytest.raises(PartError, match='Did you mean "accuracy"'):
        score(predictions(["a"]), ["a"], ["acuracy"], seed=0)


def test_default_metrics() -> None:
    assert default_metrics("classify", ["a"]) == ("accuracy", "macro_f1")
    assert default_metrics("generate", ["yes", "no"] * 10) == ("exact_match", "macro_f1")
    assert default_metrics("generate", ['{"a": 1}'] * 99 + ["oops"])[0] == "json_field_accuracy"
    assert default_metrics("generate", [f"Answer {n}" for n in range(9)])[0] == "token_f1"
    assert default_metrics("generate", ["", ""]) == ("perplexity",)


@pytest.mark.parametrize("metric", ["accuracy", "token_f1"])
def test_rows_that_belong_together_widen_the_interval(metric: str) -> None:
    """Ten customers with ten rows each, right or wrong as a whole: ten pieces of evidence, not a hundred."""
    rows = [Prediction(id=str(i), answer="y" if (i // 10) % 2 else "n") for i in range(100)]
    alone = score(rows, ["y"] * 100, [metric], seed=0)[metric]
    grouped = score(rows, ["y"] * 100, [metric], seed=0, units=[i // 10 for i in range(100)])[metric]
    assert grouped.value == alone.value == 0.5
    assert grouped.n == 100
    assert 2.5 < (grouped.high - grouped.low) / (alone.high - alone.low) < 3.6  # the root of ten
    assert score(rows, ["y"] * 100, [metric], seed=0, units=range(100))[metric] == alone
