"""Resampling rows with replacement (Efron, 1979), as counts: row n is drawn ``counts[s, n]`` times in resample s.

Notable: the counts depend on seed and number of rows alone, so every metric and every system sees the same resamples;
that is what makes a difference paired. Made in chunks, so memory stays small whatever the number of rows. Rows that
belong together (one customer's tickets, near-duplicates) are no independent evidence: ``by_unit`` sums them first, and
whole units are drawn (the cluster bootstrap: Field and Welsh, 2007).
Legend: S resamples, N rows, U units, K statistics.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from tunesmith.core.seeds import stream
from tunesmith.evaluate.metrics._metric import Array

CHUNK_CELLS = 1_000_000


def resample_counts(rows: int, samples: int, seed: int) -> Iterator[Array]:
    """Yield counts [S', N], ``samples`` rows in all; each row sums to N.

    >>> [chunk.sum(axis=1).tolist() for chunk in resample_counts(3, 2, seed=0)]
    [[3.0, 3.0]]
    """
    draw = np.random.default_rng(stream(seed, "bootstrap"))
    chunk = max(1, CHUNK_CELLS // rows)
    for start in range(0, samples, chunk):
        size = min(chunk, samples - start)
        drawn = draw.integers(0, rows, (size, rows)) + rows * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows).astype(np.float64)


def by_unit(stats: Array, units: Sequence[int] | None) -> Array:
    """Statistics [N, K] or [N] summed over the rows of each unit, [U, K] or [U]; as they are where ``units`` is None.

    >>> by_unit(np.array([1.0, 2.0, 4.0]), [7, 3, 7]).tolist()
    [2.0, 5.0]
    """
    if units is None:
        return stats
    names, place = np.unique(np.asarray(units), return_inverse=True)
    sums = np.zeros((len(names), *stats.shape[1:]))
    np.add.at(sums, place, stats)
    return sums


def interval(values: Array, point: float) -> tuple[float, float]:
    """The 95% percentile interval of resampled ``values``, widened where needed to hold the ``point`` estimate."""
    low, high = np.quantile(values, [0.025, 0.975])
    return min(float(low), point), max(float(high), point)


def unseen_share(rows: int) -> float:
    """With ``rows`` rows all alike, the largest share of others that a 95% test would still miss (Clopper and Pearson,
    1934).

    A bootstrap of identical rows has an interval of no width; this keeps it honest.

    >>> round(unseen_share(100), 4)
    0.0362
    """
    return float(1 - 0.025 ** (1 / rows))
