"""A metric is sufficient statistics per row plus a reduction of their sum.

Notable: with that shape a bootstrap of any metric, macro-F1 and chrF included, is one matrix product: resample counts
[S, N] times statistics [N, K] gives the totals of every resample, and ``reduce`` turns totals into values.
Legend: N rows, K statistics, S resamples.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def mean(totals: Array) -> Array:
    """Totals [..., 2] of (score, rows) to means [...].

    >>> mean(np.array([3.0, 4.0])).item()
    0.75
    """
    return np.asarray(totals[..., 0] / totals[..., 1], dtype=np.float64)


def per_row(scores: Iterable[Any]) -> Array:
    """Statistics [N, 2] of a metric that is the mean of a score per row."""
    values = np.fromiter(scores, dtype=np.float64)
    return np.stack([values, np.ones_like(values)], axis=1)


@dataclass(frozen=True, slots=True)
class Metric:
    """``rows(answers, references) -> [N, K]`` (for ``needs="likelihood"``: ``rows(nll, tokens)``; for what a reward
    or a judge says: ``rows(values, references)``), ``reduce([..., K]) -> [...]``.

    ``kind`` says how rows combine and with it which test compares two systems: "zero_one" (a row is right or wrong;
    exact McNemar), "row_mean" (a score per row; sign-flip permutation), "corpus" (no mean over rows;
    approximate randomisation). Values lie in 0..1, except perplexity and what models say.
    """

    name: str
    description: str
    kind: Literal["zero_one", "row_mean", "corpus"]
    rows: Callable[..., Array]
    reduce: Callable[[Array], Array] = mean
    higher_is_better: bool = True
    needs: Literal["text", "likelihood", "reward", "judged"] = "text"

    @property
    def bounded(self) -> bool:
        """True when every value, of a row as of a set, lies in 0..1."""
        return self.needs == "text"
