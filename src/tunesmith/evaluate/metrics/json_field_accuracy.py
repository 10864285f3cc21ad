"""JSON field accuracy: the share of the reference's top-level fields that the answer gets right, the mean over rows.

Notable: an answer without a JSON object scores 0 (and is counted apart by ``extract.invalid``); fields that the
reference lacks cost nothing here, exact match punishes them; a reference that is no object, or an empty one, counts as
a single field.
"""

from collections.abc import Sequence

from tunesmith.evaluate.extract import canonical, first_object, same_answer, whole_object
from tunesmith.evaluate.metrics._metric import Array, Metric, per_row


def _share(answer: str, reference: str) -> float:
    expected = whole_object(reference)
    if not expected:
        return float(same_answer(answer, reference))
    found = first_object(answer) or {}
    right = sum(key in found and canonical(found[key]) == canonical(value) for key, value in expected.items())
    return right / len(expected)


def rows(answers: Sequence[str], references: Sequence[str]) -> Array:
    """Statistics [N, 2].

    >>> rows(['{"intent": "refund", "urgent": false}'], ['{"intent": "refund", "urgent": true}'])[0, 0].item()
    0.5
    """
    return per_row(_share(a, r) for a, r in zip(answers, references, strict=True))


PART = Metric("json_field_accuracy", "Mean share of the reference's JSON fields that are right.", "row_mean", rows)
