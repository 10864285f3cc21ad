"""Values with intervals: every system passes through this one function, so all are scored alike.

Notable: the interval's rule is the same everywhere. 0/1 metrics: Wilson's score interval (1927), which stays honest
near 0 and 1. All others, and all metrics where rows belong together in units: the 95% percentile bootstrap over rows or
units; where every row scores the same, the bootstrap knows no spread and the exact bound of Clopper and Pearson stands
in. Known limit: for macro-F1 over many classes of few rows the percentile interval holds the truth in about 90% of
draws, not 95%, and the estimate can lie at its edge, for rare classes drop out of a resample.
Legend: N rows, U units, K statistics, S resamples.
"""

import math
from collections.abc import Sequence

import numpy as np

from tunesmith.core import parts
from tunesmith.core.errors import DataError
from tunesmith.core.recipe import Task
from tunesmith.core.report import Estimate, Prediction
from tunesmith.evaluate.bootstrap import by_unit, interval, resample_counts, unseen_share
from tunesmith.evaluate.forms import answer_form
from tunesmith.evaluate.metrics._metric import Array, Metric, per_row

Z95 = 1.959963984540054
SAMPLES = 2_000


def find_metric(name: str) -> Metric:
    """The metric called ``name``. Raises PartError with the nearest name."""
    metric: Metric = parts.find("evaluate.metrics", name)
    return metric


def has_inputs(metric: Metric, predictions: Sequence[Prediction]) -> bool:
    """False for a metric of what a prediction does not carry: a likelihood, a reward, a judge's word."""
    return metric.needs == "text" or all(_needed(metric, p) is not None for p in predictions)


def _needed(metric: Metric, prediction: Prediction) -> float | None:
    """What the prediction carries of the metric's need; None where it carries none. A reward that could not be found
    is none either."""
    found = {"likelihood": prediction.nll, "reward": prediction.reward, "judged": prediction.judged}[metric.needs]
    return None if found is None or math.isnan(found) else found


def statistics(metric: Metric, predictions: Sequence[Prediction], references: Sequence[str]) -> Array:
    """Sufficient statistics [N, K] of ``predictions``, one a reference in the same order. Raises DataError when they
    do not line up."""
    if not references or len(predictions) != len(references):
        raise DataError(
            f"{metric.name}: found {len(predictions)} predictions for {len(references)} references; expected one each "
            "and at least one. "
            "Score the predictions of one whole split at a time."
        )
    if metric.needs == "text":
        return metric.rows([p.answer for p in predictions], references)
    found = [_needed(metric, p) for p in predictions]
    if any(value is None for value in found):
        raise DataError(
            f"{metric.name}: row {predictions[found.index(None)].id} has no {metric.needs}; expected one for every "
            "row. Leave this metric out for systems that have none."
        )
    return metric.rows(found, [p.nll_tokens for p in predictions] if metric.needs == "likelihood" else references)


def row_scores(metric: str, predictions: Sequence[Prediction], references: Sequence[str]) -> Array:
    """The metric of each row alone, [N]: for corpus metrics what the row would score as a set of its own."""
    part = find_metric(metric)
    return part.reduce(statistics(part, predictions, references))


def wilson(value: float, rows: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share.

    >>> [round(x, 4) for x in wilson(0.9, 10)]
    [0.5958, 0.9821]
    """
    z2 = Z95**2 / rows
    centre = (value + z2 / 2) / (1 + z2)
    half = Z95 / (1 + z2) * (value * (1 - value) / rows + z2 / (4 * rows)) ** 0.5
    return max(0.0, min(centre - half, value)), min(1.0, max(centre + half, value))


def score(
    predictions: Sequence[Prediction],
    references: Sequence[str],
    metrics: Sequence[str],
    *,
    seed: int,
    units: Sequence[int] | None = None,
    samples: int = SAMPLES,
) -> dict[str, Estimate]:
    """Each metric's value on all rows with its 95% interval; metrics that need a likelihood are left out where there
    is none. ``units`` names the unit of each row; None where each row stands for itself.

    Raises DataError when predictions and references do not line up, PartError for an unknown metric.

    >>> rows = [Prediction(id="a", answer="yes"), Prediction(id="b", answer="no")]
    >>> score(rows, ["yes", "yes"], ["exact_match"], seed=0)["exact_match"].value
    0.5
    """
    found = [find_metric(name) for name in metrics]
    scored = {m.name: (m, statistics(m, predictions, references)) for m in found if has_inputs(m, predictions)}
    grouped = units is not None and len(set(units)) < len(references)
    drawn = [pair for pair in scored.values() if grouped or pair[0].kind != "zero_one"]
    resampled = _resample(drawn, units if grouped else None, seed, samples)
    independent = len(set(units)) if grouped and units is not None else len(references)
    return {
        name: _estimate(metric, stats, resampled.get(name), independent) for name, (metric, stats) in scored.items()
    }


def share(hits: Sequence[float], units: Sequence[int] | None = None) -> Estimate:
    """Share of the rows that are hit (1), missed (0) or neither (a half), with its 95% interval. ``units`` as in
    ``score``; rows of one unit alone tell nothing of others.

    >>> found = share([1.0, 0.0, 1.0, 1.0])
    >>> found.value, round(found.low, 4), round(found.high, 4), share([1.0, 1.0], units=[7, 7]).low
    (0.75, 0.3006, 0.9544, 0.0)
    """
    metric, stats = find_metric("accuracy"), per_row(list(hits))
    if units is None or len(set(units)) == len(hits):
        return _estimate(metric, stats, None, len(hits))
    independent = len(set(units))
    found = _estimate(metric, stats, _resample([(metric, stats)], units, 0, SAMPLES)[metric.name], independent)
    return found if independent > 1 else found.model_copy(update={"low": 0.0, "high": 1.0})


def _resample(
    scored: list[tuple[Metric, Array]], units: Sequence[int] | None, seed: int, samples: int
) -> dict[str, Array]:
    if not scored:
        return {}
    together = by_unit(np.concatenate([stats for _, stats in scored], axis=1), units)
    ends = np.cumsum([stats.shape[1] for _, stats in scored])[:-1]
    chunks: dict[str, list[Array]] = {metric.name: [] for metric, _ in scored}
    for counts in resample_counts(len(together), samples, seed):
        for (metric, _), totals in zip(scored, np.split(counts @ together, ends, axis=1), strict=True):
            chunks[metric.name].append(metric.reduce(totals))
    return {name: np.concatenate(values) for name, values in chunks.items()}


def _estimate(metric: Metric, stats: Array, resampled: Array | None, independent: int) -> Estimate:
    rows = len(stats)
    value = float(metric.reduce(stats.sum(axis=0)))
    if resampled is None:
        low, high = wilson(value, rows)
    elif metric.bounded and np.ptp(metric.reduce(stats)) == 0:
        doubt = unseen_share(independent)
        low, high = value * (1 - doubt), value + (1 - value) * doubt
    else:
        low, high = interval(resampled, value)
    return Estimate(value=value, low=low, high=high, n=rows)


def default_metrics(task: Task, references: Sequence[str]) -> tuple[str, ...]:
    """The metrics that suit the references; the first is the primary one.

    Labels: accuracy, then macro-F1 for rare classes. Preferences: accuracy. JSON: field accuracy first, because it
    tells nearly right from wrong; exact match and validity beside it. Closed answers: exact match. Open text: token F1
    first, for it rewards the right content in any order, exists for every system and is 1 only for the reference's own
    words; perplexity last, for systems that copy answers have none. Nothing to compare with but the text itself (plain
    text): perplexity alone.

    >>> default_metrics("classify", ["a", "b"]), default_metrics("generate", ['{"a": 1}'])
    (('accuracy', 'macro_f1'), ('json_field_accuracy', 'exact_match', 'json_valid'))
    """
    if task == "classify":
        return ("accuracy", "macro_f1")
    if task == "prefer":
        return ("accuracy",)
    if not any(references):
        return ("perplexity",)
    by_form = {
        "json": ("json_field_accuracy", "exact_match", "json_valid"),
        "closed": ("exact_match", "macro_f1"),
        "open": ("token_f1", "rouge_l", "chrf", "perplexity"),
    }
    return by_form[answer_form(references, task)]
