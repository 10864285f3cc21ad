"""Accuracy: the share of rows with the right label. The same number as exact match, under the name that classification
uses."""

from tunesmith.evaluate.metrics._metric import Metric
from tunesmith.evaluate.metrics.exact_match import rows

PART = Metric("accuracy", "Share of rows with the right label.", "zero_one", rows)
