"""Forgetting: what a model has lost as a language model, in bits per byte of general text that no run trains on.

Notable: the same passages are read before and after, so the interval is that of the paired difference, which is much
narrower than those of the two values. Bytes, and not tokens, are counted: bits per byte of different models can stand
side by side.
Legend: N passages.
"""

from collections.abc import Sequence
from importlib import resources

import numpy as np

from tunesmith.core.report import Estimate, Forgetting
from tunesmith.evaluate.bootstrap import interval, resample_counts

SAMPLES = 2_000
SPARE = 8  # tokens that a tokenizer may add to a text


def passages(context: int) -> tuple[str, ...]:
    """The packaged passages (their source stands beside them), cut so that each fits ``context``: no token of theirs
    is shorter than a byte."""
    text = resources.files("tunesmith").joinpath("assets/general/passages.txt").read_text(encoding="ascii")
    return tuple(line[: max(1, context - SPARE)] for line in text.splitlines())


def forgetting(texts: Sequence[str], before: Sequence[float], after: Sequence[float]) -> Forgetting:
    """From the bits that each text costs before and after training.

    >>> forgetting(["four", "four"], [8.0, 8.0], [10.0, 10.0]).sentence
    'It forgot: general text costs 0.500 bits per byte more than before (95% interval 0.500 to 0.500, n = 2 passages).'
    """
    bytes_N = [float(len(text.encode())) for text in texts]
    totals_N3 = np.stack([np.asarray(before), np.asarray(after), np.asarray(bytes_N)], axis=1)
    drawn_S3 = np.concatenate([counts @ totals_N3 for counts in resample_counts(len(texts), SAMPLES, seed=0)])
    whole_3, rows = totals_N3.sum(axis=0), len(texts)

    def estimate(*signs: int) -> Estimate:
        value = float(whole_3[:2] @ signs / whole_3[2])
        low, high = interval(drawn_S3[:, :2] @ np.asarray(signs) / drawn_S3[:, 2], value)
        return Estimate(value=value, low=low, high=high, n=rows)

    difference = estimate(-1, 1)
    return Forgetting(
        before=estimate(1, 0), after=estimate(0, 1), difference=difference, sentence=_sentence(difference)
    )


def _sentence(difference: Estimate) -> str:
    around = f"(95% interval {difference.low:.3f} to {difference.high:.3f}, n = {difference.n} passages)"
    if difference.low > 0:
        return f"It forgot: general text costs {difference.value:.3f} bits per byte more than before {around}."
    if difference.high < 0:
        return f"It forgot nothing: general text costs {-difference.value:.3f} bits per byte less than before {around}."
    return (
        f"No forgetting could be shown: the change in bits per byte of general text is {difference.value:.3f} {around}."
    )
