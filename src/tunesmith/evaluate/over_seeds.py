"""The mean of a metric over runs that differ in their seed, and differences of such means, with one honest interval.

Notable: all runs answer the same test rows, so rows are drawn anew for all seeds at once; drawing them for each seed
apart would count the same rows as new evidence. The interval is that of the rows, for these seeds: two or three seeds
tell too little of others to be drawn from, so the value of each seed is shown beside it.
Legend: N rows, K statistics, S resamples, R runs.
"""

from collections.abc import Sequence

import numpy as np

from tunesmith.core.report import Estimate
from tunesmith.evaluate.bootstrap import by_unit, interval, resample_counts, unseen_share
from tunesmith.evaluate.metrics._metric import Array, Metric

SAMPLES = 2_000
RULE = (
    "Values are means over the seeds. Their intervals are 95% percentile bootstraps over the test rows (whole groups "
    "where rows belong together), drawn alike for all seeds and methods, so that differences are paired; with one seed "
    "the interval of a method is that of its run. How much seeds differ is shown by the lowest and the highest. The "
    "best method is chosen on these rows, which flatters it a little. Forgetting is the mean over the seeds of "
    "difference and interval of each run."
)


def mean_over_seeds(
    metric: Metric,
    runs: Sequence[Array],
    against: Sequence[Array] = (),
    *,
    seed: int,
    units: Sequence[int] | None = None,
) -> Estimate:
    """The mean of ``metric`` over ``runs``, each statistics [N, K] of the same rows; less that over ``against``.

    >>> from tunesmith.evaluate.metrics import accuracy
    >>> half, all_ = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 1.0], [1.0, 1.0]])
    >>> mean_over_seeds(accuracy.PART, [half, all_], seed=0).value
    0.75
    """
    rows = len(runs[0])
    value = float(_mean(metric, [r.sum(axis=0) for r in runs]) - _mean(metric, [a.sum(axis=0) for a in against]))
    of_runs, of_against = ([by_unit(r, units) for r in side] for side in (runs, against))
    independent, drawn = len(of_runs[0]), []
    for counts in resample_counts(independent, SAMPLES, seed):
        drawn.append(_mean(metric, [counts @ r for r in of_runs]) - _mean(metric, [counts @ a for a in of_against]))
    low, high = interval(np.concatenate(drawn), value)
    moved_N = _mean(metric, list(runs)) - _mean(metric, list(against))
    if metric.bounded and np.ptp(moved_N) == 0:  # a bootstrap of rows all alike knows no spread
        doubt, floor = unseen_share(independent), -1.0 if against else 0.0
        low, high = min(low, value - doubt * (value - floor)), max(high, value + doubt * (1 - value))
    return Estimate(value=value, low=low, high=high, n=rows)


def _mean(metric: Metric, totals: Sequence[Array]) -> Array:
    """The metric's mean over sides of totals [..., K]; 0 for none."""
    return np.asarray(sum((metric.reduce(t) for t in totals), np.asarray(0.0)) / max(len(totals), 1))


def mean_interval(estimates: Sequence[Estimate]) -> Estimate:
    """Means of value, low and high: never narrower than the interval of the mean.

    >>> mean_interval([Estimate(value=1, low=0, high=2, n=5), Estimate(value=3, low=2, high=4, n=5)]).value
    2.0
    """
    value, low, high = (sum(getattr(e, name) for e in estimates) / len(estimates) for name in ("value", "low", "high"))
    return Estimate(value=value, low=low, high=high, n=estimates[0].n)
