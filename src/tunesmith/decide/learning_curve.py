"""What more examples would bring: curves through a few small runs, drawn as often as they are likely.

Notable: four points cannot tell one curve from another, so none is chosen. A power law ``c - a * n^-b`` (Hestness et
al., 2017) for each of many exponents, and S-shaped rises over log n for tasks that are learned all at once, are each
weighted by how likely they make the points; given its shape a curve is linear, so its two heights are drawn from an
exact Gaussian, and those that leave the metric's range are dropped. What the scored rows have in common is in the
covariance: all runs and the baseline answered the same rows, so a gain is surer than either score. How much one run
differs from the next (order, start, the rows that were drawn) is a part of each curve, learned where a size was run
twice. More examples never harm on average: a curve does not fall. On simulated curves (of ``tests/decide``, 100 of
each kind) the 80% band held 84% of the outcomes of power laws, 80% of plateaus, 71% of level curves and 72% of S-shaped
rises.
Legend: K points, S drawn curves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EXPONENTS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.65, 0.9, 1.3, 2.0)
LIKELY_EXPONENT, SPREAD = 0.45, 0.8  # most published exponents lie within a factor of two or three (log-normal)
MIDDLES = (-2.5, -1.5, -0.75, 0.0, 0.75, 1.5, 2.25)  # of a rise, in log n after the largest size that was run
WIDTHS = (0.35, 0.7, 1.1)
POWER, FLAT = 0.3, 0.2  # of the curves, before the points are seen, are power laws, or have no rise to speak of
RUN_NOISE = ((0.005, 0.2), (0.012, 0.35), (0.025, 0.3), (0.05, 0.15))  # at the largest size, and how likely
NOISE_POWER = 0.25  # smaller sizes differ more from run to run: noise x (largest / n) ** NOISE_POWER
HEIGHT, NO_HEIGHT, S_HEIGHT = 0.5, 0.01, 1.0  # standard deviation of a curve's rise before that; an S rises farther
SLACK = 0.05  # of the range: a curve may lie so far below it at the smallest size, where scores vary most
STEPS = 400  # of an integral over the rise
TRIES = 300  # draws of the heights a shape
DRAWS = 4000
FARTHEST = 10.0  # times the rows at hand: a forecast beyond is no forecast
FEWEST = 3  # sizes
SHARES = (0.05, 0.1, 0.2, 0.4)  # of the rows, that are run
LEAST, APART = 16, 1.5  # rows of a run, and how many times the next smaller size one is: nearer ones tell the same


class Band(NamedTuple):
    """A median with the limits that hold 80% and 95% of the draws."""

    value: float
    low80: float
    high80: float
    low95: float
    high95: float


@dataclass(frozen=True)
class Measured:
    """``score_K`` (higher is better, within ``low`` to ``high``) of runs on ``size_K`` rows. ``noise_KK`` is the
    covariance of the scores over draws of the scored rows, ``bar`` the baseline on the same rows with its variance
    and its covariance with each score. Scores are shares of 1, or logarithms: what is likely of curves is in these."""

    size_K: Array
    score_K: Array
    noise_KK: Array
    bar: float
    bar_noise: float
    bar_with_K: Array
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True)
class Curves:
    """Drawn curves, all equally likely: ``height + rise * shape(n / largest)``. ``exponent_S`` is 0 for an S-shape,
    whose ``middle_S`` and ``width_S`` are in log n; ``bar_S`` are the baseline's true scores that go with the curves,
    ``run_S`` the standard deviation from run to run."""

    largest: float
    low: float
    high: float
    exponent_S: Array
    middle_S: Array
    width_S: Array
    height_S: Array
    rise_S: Array
    run_S: Array
    bar_S: Array

    def mean(self, n: float) -> Array:
        """The score that runs on ``n`` rows have on average, [S]."""
        log = np.log(n / self.largest)
        power = 1 - np.exp(-self.exponent_S * log)
        rise = _logistic((log - self.middle_S) / self.width_S)
        value_S: Array = self.height_S + self.rise_S * np.where(self.exponent_S > 0, power, rise)
        return np.asarray(np.clip(value_S, self.low, self.high))

    def run(self, n: float, *, extra: float | Array = 0.0) -> Array:
        """The score of one run on ``n`` rows, [S]; ``extra`` is the variance of what it is measured on, one or [S]."""
        noise_S = np.random.default_rng(0).standard_normal(len(self.run_S))
        spread_S = np.sqrt((self.run_S * (self.largest / n) ** NOISE_POWER) ** 2 + extra)
        return np.asarray(np.clip(self.mean(n) + spread_S * noise_S, self.low, self.high))

    def gain(self, n: float) -> Array:
        """How far one run on ``n`` rows is above the baseline, [S]."""
        return self.run(n) - self.bar_S

    def more(self, n: float, rows: float) -> Array:
        """What ``rows`` more than ``n`` bring on average, [S]."""
        return self.mean(n + rows) - self.mean(n)

    def overtakes(self, n: float, least: float) -> Array:
        """The rows at which runs are on average ``least`` above the baseline, [S]; infinite where that is not within
        ``FARTHEST`` times ``n``."""
        grid = np.geomspace(min(self.largest / 10, n), FARTHEST * n, 120)
        above = np.array([self.mean(size) - self.bar_S >= least for size in grid])  # [sizes, S]
        return np.where(above.any(axis=0), grid[above.argmax(axis=0)], np.inf)


def band(value_S: Array) -> Band:
    """
    >>> band(np.arange(101.0)) == Band(50.0, 10.0, 90.0, 2.5, 97.5)
    True
    """
    middle, *limits = (float(q) for q in np.quantile(value_S, (0.5, 0.1, 0.9, 0.025, 0.975), method="inverted_cdf"))
    if np.isfinite(value_S).all():
        middle, *limits = (float(q) for q in np.quantile(value_S, (0.5, 0.1, 0.9, 0.025, 0.975)))
    return Band(middle, *limits)


def sizes(rows: int) -> tuple[int, ...]:
    """The sizes to run of ``rows``, ascending.

    >>> sizes(1000), sizes(200), sizes(118), sizes(117)
    ((50, 100, 200, 400), (16, 40, 80), (16, 24, 47), (16, 47))
    """
    found: list[int] = []
    for share in SHARES:
        size = max(LEAST, round(share * rows))
        if not found or size >= APART * found[-1]:
            found.append(size)
    return tuple(found)


def curves(measured: Measured, *, seed: int = 0) -> Curves:
    """``DRAWS`` curves, as often each as the points and what is known of learning curves make it likely.

    Raises ValueError for fewer than ``FEWEST`` sizes: two points lie on any curve.
    """
    count = len(set(measured.size_K.tolist()))
    if count < FEWEST:
        raise ValueError(f"{count} sizes; a learning curve needs at least {FEWEST}.")
    rng = np.random.default_rng(seed)
    found = [drawn for shape in _shapes() for drawn in [_heights(measured, shape, rng)] if drawn is not None]
    log_S = np.concatenate([f.log_weight_S for f in found])
    chance = np.exp(log_S - log_S.max())
    chosen = rng.choice(len(log_S), DRAWS, p=chance / chance.sum())
    columns = {name: np.concatenate([getattr(f, name) for f in found])[chosen] for name in _Drawn._fields[1:]}
    return Curves(float(measured.size_K.max()), measured.low, measured.high, **columns)


# -- shapes and heights ------------------------------------------------------------------------------------------------


class _Shape(NamedTuple):
    """A shape (``exponent`` 0: an S with ``middle`` and ``width``), its run noise, its log weight beforehand, and the
    standard deviation of its rise."""

    exponent: float
    middle: float
    width: float
    noise: float
    log_weight: float
    height: float = HEIGHT

    def at(self, log_K: Array) -> Array:
        if self.exponent:
            return np.asarray(1 - np.exp(-self.exponent * log_K))
        return _logistic((log_K - self.middle) / self.width)


class _Drawn(NamedTuple):
    log_weight_S: Array
    exponent_S: Array
    middle_S: Array
    width_S: Array
    height_S: Array
    rise_S: Array
    run_S: Array
    bar_S: Array


def _logistic(value: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(value, -60, 60))))


def _shapes() -> Iterator[_Shape]:
    log = np.log(np.array(EXPONENTS) / LIKELY_EXPONENT)
    weight = np.exp(-0.5 * (log / SPREAD) ** 2)
    for noise, likely in RUN_NOISE:
        for exponent, share in zip(EXPONENTS, weight / weight.sum(), strict=True):
            yield _Shape(exponent, 0.0, 1.0, noise, float(np.log(likely * POWER * share)))
        yield _Shape(LIKELY_EXPONENT, 0.0, 1.0, noise, float(np.log(likely * FLAT)), NO_HEIGHT)
        each = (1 - POWER - FLAT) / (len(MIDDLES) * len(WIDTHS))
        for middle in MIDDLES:
            for width in WIDTHS:
                yield _Shape(0.0, middle, width, noise, float(np.log(likely * each)), S_HEIGHT)


@cache
def _possible(lowest: float, height: float) -> float:
    """The share of a shape's curves, before the points are seen, that neither fall nor leave the range. ``lowest`` is
    the shape at the smallest size, ``height`` the standard deviation of its rise in parts of the range.

    >>> round(_possible(0.0, 0.01), 3), round(_possible(-63.0, 0.5), 4)  # level; a fall of 63 times the rise
    (0.199, 0.0026)
    """
    from scipy.special import ndtr

    step = min(8 * height, (1 + SLACK) / (1 - lowest)) / STEPS
    rise = (np.arange(STEPS) + 0.5) * step
    room = ndtr(0.5 - rise) - ndtr(-0.5 - SLACK - rise * lowest)
    return float((room * np.exp(-0.5 * (rise / height) ** 2)).sum() * step / (height * np.sqrt(2 * np.pi)))


def _heights(measured: Measured, shape: _Shape, rng: np.random.Generator) -> _Drawn | None:
    """Heights and rises of one shape from their Gaussian given the points; None where none stays in the range. What is
    likely of heights is a Gaussian within the range, so a shape weighs as its evidence without that limit, times the
    share of its curves that keep to it given the points (each one kept counts), over that share beforehand."""
    reach = measured.high - measured.low
    largest = measured.size_K.max()
    log_K = np.log(measured.size_K / largest)
    run_K = shape.noise * (largest / measured.size_K) ** NOISE_POWER
    basis_K2 = np.stack([np.ones_like(log_K), shape.at(log_K)], axis=1)
    prior_2 = np.array([(measured.low + measured.high) / 2, 0.0])
    prior_22 = np.diag([reach**2, shape.height**2])
    noise_KK = measured.noise_KK + np.diag(run_K**2)
    whole_KK = basis_K2 @ prior_22 @ basis_K2.T + noise_KK
    off_K = measured.score_K - basis_K2 @ prior_2
    pull_2K = np.linalg.solve(whole_KK, basis_K2 @ prior_22).T
    mean_2 = prior_2 + pull_2K @ off_K
    spread_22 = prior_22 - pull_2K @ basis_K2 @ prior_22
    evidence = -0.5 * (off_K @ np.linalg.solve(whole_KK, off_K) + np.linalg.slogdet(whole_KK)[1])
    root_22 = np.linalg.cholesky((spread_22 + spread_22.T) / 2 + 1e-12 * np.eye(2))
    drawn_S2 = mean_2 + rng.standard_normal((TRIES, 2)) @ root_22.T
    lowest_S = drawn_S2[:, 0] + drawn_S2[:, 1] * basis_K2[:, 1].min()
    inside_S = (
        (drawn_S2[:, 1] >= 0) & (drawn_S2.sum(axis=1) <= measured.high) & (lowest_S >= measured.low - SLACK * reach)
    )
    kept_S2 = drawn_S2[inside_S]
    if not len(kept_S2):
        return None
    left_SK = measured.score_K - kept_S2 @ basis_K2.T
    tied_K = np.linalg.solve(noise_KK, measured.bar_with_K)
    alone = max(measured.bar_noise - float(measured.bar_with_K @ tied_K), 0.0)
    bar_S = measured.bar - left_SK @ tied_K - np.sqrt(alone) * rng.standard_normal(len(kept_S2))
    possible = _possible(float(basis_K2[:, 1].min()), shape.height / reach)
    same = np.ones(len(kept_S2))
    return _Drawn(
        log_weight_S=(evidence + shape.log_weight - np.log(possible)) * same,
        exponent_S=shape.exponent * same,
        middle_S=shape.middle * same,
        width_S=shape.width * same,
        height_S=kept_S2[:, 0],
        rise_S=kept_S2[:, 1],
        run_S=shape.noise * same,
        bar_S=np.clip(bar_S, measured.low, measured.high),
    )
