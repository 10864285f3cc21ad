"""What a judge that trained nothing says of an answer (reward.judge), in the mean; the rows are those of ``reward``."""

from tunesmith.evaluate.metrics._metric import Metric
from tunesmith.evaluate.metrics.reward import rows

PART = Metric(
    "judged", "What a judge that trained nothing says of an answer (reward.judge).", "row_mean", rows, needs="judged"
)
