"""Is the difference between two systems on the same rows more than luck? Paired tests, one for each kind of metric.

Notable: 0/1 metrics: McNemar's exact test (1947) on the rows where just one system is right. Row means: sign-flip
permutation (Fisher, 1935). Corpus metrics: the same idea on their statistics, the two systems trade places on random
rows (approximate randomisation: Noreen, 1989), which keeps its 5% where the p of a bootstrap does not on 80 rows. Both
add one (Phipson and Smyth, 2010), so p is never 0. The interval is always the paired percentile bootstrap: both systems
see the same resampled rows. Where rows belong together in units, each of these is done on units: they are drawn whole,
flipped whole and trade places whole, for rows of one customer are no independent evidence.
Legend: N rows, U units, K statistics, S resamples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.core.report import Estimate
from tunesmith.core.seeds import stream
from tunesmith.evaluate.bootstrap import by_unit, interval, resample_counts, unseen_share
from tunesmith.evaluate.metrics._metric import Array, Metric

FLIPS = 10_000
SAMPLES = 2_000
COINS = 1_000_000


@dataclass(frozen=True, slots=True)
class Comparison:
    """``difference`` is first minus second in the metric's own units; ``test`` names where ``p_value`` comes from."""

    difference: Estimate
    p_value: float
    test: str


def mcnemar(first: Array, second: Array) -> float:
    """Two-sided exact p that wins and losses are equally likely, from 0/1 scores [N] of each system.

    Three wins, no loss: p = 2 * (1/2)^3.

    >>> mcnemar(np.array([1., 1, 1, 1]), np.array([0., 0, 0, 1]))
    0.25
    """
    from scipy.stats import binomtest

    wins, losses = int((first > second).sum()), int((first < second).sum())
    return float(binomtest(wins, wins + losses, 0.5).pvalue) if wins + losses else 1.0


def sign_flip(differences: Array, *, seed: int, samples: int = FLIPS) -> float:
    """Two-sided p that row differences [N] are as likely up as down: (1 + flips at least as far out) / (1 + samples).

    Of the eight sign patterns of three equal differences two are as far out, so p is near 1/4.

    >>> abs(sign_flip(np.array([1., 1, 1]), seed=0) - 0.25) < 0.02
    True
    """
    moved = differences[differences != 0]
    if not len(moved):
        return 1.0
    observed = abs(moved.sum()) - 1e-9 * np.abs(moved).sum()  # rounding must not split ties
    beyond = 0
    for coins in _coins(len(moved), samples, stream(seed, "sign-flip")):
        beyond += int((np.abs(2 * (coins @ moved) - moved.sum()) >= observed).sum())
    return (1 + beyond) / (1 + samples)


def swap(metric: Metric, first: Array, second: Array, *, seed: int, samples: int = FLIPS) -> float:
    """Two-sided p that it does not matter which system gave which answer, for any metric, from statistics [N, K].

    On random rows the systems trade places; p is (1 + trades that differ at least as much) / (1 + samples). For row
    means this is the sign-flip test.

    >>> from tunesmith.evaluate.metrics import macro_f1
    >>> expected = ["a", "b"] * 4
    >>> right, wrong = macro_f1.rows(expected, expected), macro_f1.rows([""] * 8, expected)
    >>> swap(macro_f1.PART, right, wrong, seed=0) < 0.02  # 2 of the 256 ways to trade differ as much: p is near 1/128
    True
    """
    moved = (first != second).any(axis=1)
    if not moved.any():
        return 1.0
    change, one, other = (second - first)[moved], first.sum(axis=0), second.sum(axis=0)
    observed = abs(float(metric.reduce(one) - metric.reduce(other))) - 1e-9
    beyond = 0
    for coins in _coins(len(change), samples, stream(seed, "swap")):
        traded = coins @ change
        beyond += int((np.abs(metric.reduce(one + traded) - metric.reduce(other - traded)) >= observed).sum())
    return (1 + beyond) / (1 + samples)


def _coins(rows: int, samples: int, seed: int) -> Iterator[Array]:
    """Fair coins [S', N] of 0 and 1, ``samples`` rows in all, in chunks."""
    draw = np.random.default_rng(seed)
    chunk = max(1, COINS // rows)
    for start in range(0, samples, chunk):
        size = min(chunk, samples - start)
        drawn = draw.integers(0, 256, (size, -(-rows // 8)), dtype=np.uint8)
        yield np.unpackbits(drawn, axis=1, count=rows).astype(np.float64)


def resampled_difference(metric: Metric, first: Array, second: Array, *, seed: int, samples: int = SAMPLES) -> Array:
    """The difference of the metric, [S], on the same resampled rows for both systems; statistics are [N, K]."""
    both = np.concatenate([first, second], axis=1)
    values = []
    for counts in resample_counts(len(first), samples, seed):
        one, other = np.split(counts @ both, 2, axis=1)
        values.append(metric.reduce(one) - metric.reduce(other))
    return np.concatenate(values)


def compare(
    metric: Metric,
    first: Array,
    second: Array,
    *,
    seed: int,
    units: Sequence[int] | None = None,
    samples: int = SAMPLES,
    flips: int = FLIPS,
) -> Comparison:
    """First minus second system with its 95% paired interval and p, from their statistics [N, K] on the same rows.

    ``units`` names the unit of each row; None where each row stands for itself. Where all rows differ alike (often: not
    at all) the bootstrap knows no spread; for 0..1 metrics the interval then allows for the share of other rows that N
    rows could have missed. Raises DataError when the statistics do not pair.
    """
    _check_paired(metric, first, second)
    grouped = units is not None and len(set(units)) < len(first)
    one, other = (by_unit(stats, units if grouped else None) for stats in (first, second))
    resampled = resampled_difference(metric, one, other, seed=seed, samples=samples)
    value = float(metric.reduce(first.sum(axis=0)) - metric.reduce(second.sum(axis=0)))
    moved = metric.reduce(first) - metric.reduce(second)
    low, high = interval(resampled, value)
    if metric.bounded and np.ptp(moved) == 0:
        doubt = unseen_share(len(one))
        low, high = min(low, value - doubt * (1 + value)), max(high, value + doubt * (1 - value))
    difference = Estimate(value=value, low=low, high=high, n=len(first))
    if metric.kind == "zero_one" and not grouped:
        return Comparison(difference, mcnemar(metric.reduce(first), metric.reduce(second)), "exact McNemar test")
    of_units = " of whole groups" if grouped else ""
    if metric.kind != "corpus":
        p = sign_flip(by_unit(moved, units if grouped else None), seed=seed, samples=flips)
        return Comparison(difference, p, f"sign-flip permutation test{of_units}")
    p = swap(metric, one, other, seed=seed, samples=flips)
    return Comparison(difference, p, f"approximate randomisation test{of_units}")


def _check_paired(metric: Metric, first: Array, second: Array) -> None:
    if first.shape != second.shape or not len(first):
        raise DataError(
            f"{metric.name}: the two systems have statistics of shape {first.shape} and {second.shape}, expected the "
            "same rows for both and at least one. Score both systems on the whole test."
        )
