"""chrF (Popović, 2015): F2 over character n-grams of length 1 to 6, over the whole set of answers.

Notable: n-grams and arithmetic are sacrebleu's (corpus_score, no smoothing) in the form of per-row counts; the value
is divided by 100, so that every text metric lies in 0..1 and ``min_gain`` means the same for each.
Legend: N rows.
"""

from collections.abc import Sequence

import numpy as np

from tunesmith.evaluate.metrics._metric import Array, Metric

ORDER = 6
BETA = 2


def rows(answers: Sequence[str], references: Sequence[str]) -> Array:
    """Statistics [N, 18]: for each length the n-grams of the answer, of the reference, and those in common."""
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    stats = np.zeros((len(references), ORDER, 3))
    for n, (answer, reference) in enumerate(zip(answers, references, strict=True)):
        pairs = zip(extract_all_char_ngrams(answer, ORDER), extract_all_char_ngrams(reference, ORDER), strict=True)
        for k, (found, expected) in enumerate(pairs):
            common = sum(min(count, expected[gram]) for gram, count in found.items() if gram in expected)
            stats[n, k] = (found.total() if expected else 0, expected.total(), common)
    return stats.reshape(len(references), -1)


def reduce(totals: Array) -> Array:
    """Totals [..., 18] to chrF in 0..1: precision and recall are means over the lengths that both sides have."""
    shaped = totals.reshape(*totals.shape[:-1], ORDER, 3)
    found, expected, common = shaped[..., 0], shaped[..., 1], shaped[..., 2]
    both = (found > 0) & (expected > 0)
    lengths = np.maximum(both.sum(axis=-1), 1)
    precision = np.where(both, common / np.maximum(found, 1), 0).sum(axis=-1) / lengths
    recall = np.where(both, common / np.maximum(expected, 1), 0).sum(axis=-1) / lengths
    weighted = BETA**2 * precision + recall
    return np.asarray((1 + BETA**2) * precision * recall / np.where(weighted > 0, weighted, 1))


PART = Metric(
    "chrf", "Character n-gram F2 over the whole set (sacrebleu's chrF divided by 100).", "corpus", rows, reduce
)
