"""What an answer is worth to a policy that learns from rewards: the weighted sum of its rewards, in the mean."""

from collections.abc import Sequence

from tunesmith.evaluate.metrics._metric import Array, Metric, per_row


def rows(values: Sequence[float], references: Sequence[str]) -> Array:
    """Statistics [N, 2]; the references are not looked at.

    >>> rows([0.5, 1.5], ["", ""]).sum(axis=0).tolist()
    [2.0, 2.0]
    """
    assert len(values) == len(references)  # scoring lines them up
    return per_row(values)


PART = Metric(
    "reward",
    "What an answer is worth to a policy that learns from rewards: the weighted sum of its rewards.",
    "row_mean",
    rows,
    needs="reward",
)
