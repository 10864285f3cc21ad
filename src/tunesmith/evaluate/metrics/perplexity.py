"""Perplexity: the exponential of the mean negative log-likelihood of a reference token. Lower is better.

Notable: it needs the likelihood of the references, so systems that only copy answers (nearest neighbour, majority)
have none.
"""

from collections.abc import Sequence

import numpy as np

from tunesmith.evaluate.metrics._metric import Array, Metric


def rows(nll: Sequence[float], tokens: Sequence[int]) -> Array:
    """Statistics [N, 2] from the natural-log likelihood lost on each reference and its number of tokens.

    >>> import math; float(reduce(rows([math.log(8), math.log(2)], [2, 2]).sum(axis=0)).round(6))  # 16 ** (1/4)
    2.0
    """
    return np.stack([np.asarray(nll, dtype=np.float64), np.asarray(tokens, dtype=np.float64)], axis=1)


def reduce(totals: Array) -> Array:
    """Totals [..., 2] to perplexities [...]."""
    return np.asarray(np.exp(totals[..., 0] / np.maximum(totals[..., 1], 1)))


PART = Metric(
    "perplexity",
    "How many tokens the model hesitates between, on average, when it reads the references; lower is better.",
    "corpus",
    rows,
    reduce,
    higher_is_better=False,
    needs="likelihood",
)
