"""Exact match: the answer is the reference, up to white space; JSON is compared as values, so key order and spacing do
not count."""

from collections.abc import Sequence

from tunesmith.evaluate.extract import same_answer
from tunesmith.evaluate.metrics._metric import Array, Metric, per_row


def rows(answers: Sequence[str], references: Sequence[str]) -> Array:
    """Statistics [N, 2].

    >>> rows(["refund ", '{"b":2,"a":1}', "no"], ["refund", '{"a": 1, "b": 2}', "yes"])[:, 0].tolist()
    [1.0, 1.0, 0.0]
    """
    return per_row(same_answer(a, r) for a, r in zip(answers, references, strict=True))


PART = Metric(
    "exact_match",
    "Share of answers equal to the reference, as text up to white space or as JSON values.",
    "zero_one",
    rows,
)
