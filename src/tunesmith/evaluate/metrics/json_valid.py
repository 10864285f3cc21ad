"""JSON validity: the share of answers that hold a JSON object (prose or a code fence around it is allowed; constants
such as NaN are not)."""

from collections.abc import Sequence

from tunesmith.evaluate.extract import first_object
from tunesmith.evaluate.metrics._metric import Array, Metric, per_row


def rows(answers: Sequence[str], references: Sequence[str]) -> Array:
    """Statistics [N, 2]; the references are not looked at.

    >>> rows(['{"a": 1}', "{'a': 1}"], ["", ""])[:, 0].tolist()
    [1.0, 0.0]
    """
    return per_row(first_object(a) is not None for a, _ in zip(answers, references, strict=True))


PART = Metric("json_valid", "Share of answers that hold a JSON object.", "zero_one", rows)
