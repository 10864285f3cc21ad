"""Macro-F1: the mean of F1 over the classes of the references.

Notable: an answer that names no reference class is a miss for its row's class and opens no class of its own
(scikit-learn's ``f1_score(labels=classes of the references, average="macro")``); so two systems are always averaged
over the same classes, in every resample too, and one misspelt answer does not cost as much as a class.
Legend: N rows, C classes.
"""

from collections.abc import Sequence

import numpy as np

from tunesmith.core.errors import DataError
from tunesmith.evaluate.extract import canonical, first_object, squash, whole_object
from tunesmith.evaluate.metrics._metric import Array, Metric

MAX_CLASSES = 4_000


def rows(answers: Sequence[str], references: Sequence[str]) -> Array:
    """Statistics [N, 3C]: true positives, false positives and false negatives of each class.

    Raises DataError above 4,000 classes.

    >>> totals = rows(["a", "a", "b"], ["a", "b", "b"]).sum(axis=0)  # F1 of a: 2/3, of b: 2/3
    >>> round(float(reduce(totals)), 4)
    0.6667
    """
    expected = [_class(r, as_json=whole_object(r) is not None) for r in references]
    index = {label: c for c, label in enumerate(sorted(set(expected)))}
    if len(index) > MAX_CLASSES:
        raise DataError(
            f"macro_f1 found {len(index):,} different answers in {len(references):,} rows; expected a closed set of at "
            "most "
            f"{MAX_CLASSES:,}. Set evaluate.metrics to token_f1 or rouge_l for open answers."
        )
    stats = np.zeros((len(references), 3, len(index)))
    for n, (answer, label, raw) in enumerate(zip(answers, expected, references, strict=True)):
        found = _class(answer, as_json=whole_object(raw) is not None)
        if found == label:
            stats[n, 0, index[label]] = 1
            continue
        stats[n, 2, index[label]] = 1
        if found in index:
            stats[n, 1, index[found]] = 1
    return stats.reshape(len(references), -1)


def _class(text: str, *, as_json: bool) -> str:
    value = first_object(text) if as_json else None
    return squash(text) if value is None else canonical(value)


def reduce(totals: Array) -> Array:
    """Totals [..., 3C] to the mean F1 over the classes that have reference rows in them."""
    hits, false_positives, misses = np.split(totals, 3, axis=-1)
    present = hits + misses > 0
    f1 = 2 * hits / np.maximum(2 * hits + false_positives + misses, 1)
    return np.asarray((f1 * present).sum(axis=-1) / np.maximum(present.sum(axis=-1), 1))


PART = Metric(
    "macro_f1", "Mean F1 over the classes, so that rare classes count as much as common ones.", "corpus", rows, reduce
)
