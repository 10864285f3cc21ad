"""From the answers of small runs to a learning curve: scores, what their errors have in common, and the forecasts.

Notable: rows are drawn with replacement once for all runs and for the baseline, whole units where rows belong
together, so their covariance holds what all of them found hard. A perplexity is forecast as a log-likelihood, which
may lie anywhere below 0, and shown as a perplexity again. How far the locked test is off by chance is that of the score
that is forecast: rows that are right or wrong vary least where nearly all are right.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from tunesmith.core.advice import Band, Curve, CurvePlace
from tunesmith.decide import learning_curve as curves
from tunesmith.evaluate.bootstrap import by_unit, resample_counts, unseen_share
from tunesmith.evaluate.metrics._metric import Array
from tunesmith.evaluate.score import find_metric, statistics
from tunesmith.evaluate.systems import Ruler
from tunesmith.flows.trials import Answered

SAMPLES, PLACES = 2000, 40
MORE = 1000
LEAST_LOGP = -12.0


def curve(
    trials: Sequence[Answered], bar: Answered, ruler: Ruler, *, rows: int, test_rows: int, worth: float
) -> Curve | None:
    """The learning curve through ``trials`` against ``bar``, up to ten times ``rows``; None where fewer than three
    sizes were run. ``worth`` is in the metric's own units, for a perplexity a share of it."""
    if len({t.rows for t in trials}) < curves.FEWEST:
        return None
    metric = find_metric(ruler.metrics[0])
    turned = _turned if metric.higher_is_better else _as_logp
    low, high = (0.0, 1.0) if metric.higher_is_better else (LEAST_LOGP, 0.0)
    stats = [statistics(metric, a.predictions, ruler.references) for a in (*trials, bar)]
    units = [by_unit(s, ruler.units) for s in stats]
    drawn_KS = np.stack(
        [
            np.concatenate([turned(metric.reduce(c @ u)) for c in resample_counts(len(u), SAMPLES, ruler.seed)])
            for u in units
        ]
    )
    value_K = np.array([float(turned(metric.reduce(s.sum(axis=0)))) for s in stats])
    floor = (unseen_share(len(units[0])) / 4) ** 2
    spread_KK = np.cov(drawn_KS)
    noise_KK = spread_KK + floor * np.eye(len(stats))
    found = curves.curves(
        curves.Measured(
            size_K=np.array([float(t.rows) for t in trials]),
            score_K=value_K[:-1],
            noise_KK=noise_KK[:-1, :-1],
            bar=value_K[-1],
            bar_noise=float(noise_KK[-1, -1]),
            bar_with_K=noise_KK[-1, :-1],
            low=low,
            high=high,
        ),
        seed=ruler.seed,
    )
    if metric.kind == "zero_one":
        row = _row_of_share(found.mean(rows), value_K, np.diag(spread_KK) * len(ruler.references))
    else:
        largest = max(range(len(trials)), key=lambda k: trials[k].rows)
        row = noise_KK[largest, largest] * len(ruler.references)
    return _forecasts(found, rows, row / max(test_rows, 1), worth, higher_is_better=metric.higher_is_better)


def _row_of_share(forecast_S: Array, value_K: Array, row_K: Array) -> Array:
    """The variance of one row of a 0/1 metric where the share is as forecast, [S]: as wide against that of rows that
    are drawn one by one as the variances ``row_K`` are at the shares that were measured."""
    alone = float((value_K * (1 - value_K)).sum())
    wider = float(row_K.sum()) / alone if alone else 1.0
    return np.asarray(forecast_S * (1 - forecast_S) * wider)


def _forecasts(found: curves.Curves, rows: int, asked: float | Array, worth: float, *, higher_is_better: bool) -> Curve:
    """``asked`` is the variance of a score on the locked test rows, one or [S]."""
    shown: Callable[[Array], Array] = _turned if higher_is_better else (lambda x: np.exp(-x))
    gained: Callable[[Array], Array] = _turned if higher_is_better else (lambda x: 1 - np.exp(-x))
    least = worth if higher_is_better else -math.log(1 - worth)
    overtakes_S = found.overtakes(rows, least)
    places = sorted({*np.geomspace(found.largest / 8, 10 * rows, PLACES).round().astype(int).tolist(), rows})
    return Curve(
        rows=rows,
        at_full=_band(shown(found.run(rows))),
        gain=_band(gained(found.gain(rows))),
        in_report=_band(shown(found.run(rows, extra=asked))),
        more=_band(gained(found.more(rows, MORE))),
        overtakes=_band(overtakes_S),
        within_reach=float(np.isfinite(overtakes_S).mean()),
        chance=float((found.gain(rows) >= least).mean()),
        worth=worth,
        places=tuple(CurvePlace(rows=n, score=_band(shown(found.run(n)))) for n in places if n > 0),
    )


def _band(value_S: Array) -> Band:
    return Band(**curves.band(value_S)._asdict())


def _turned(value: Array) -> Array:
    return value


def _as_logp(perplexity: Array) -> Array:
    return np.asarray(-np.log(np.maximum(perplexity, 1.0)))
