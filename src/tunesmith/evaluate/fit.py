"""What the curves and the train/dev gap say about overfitting, in plain words.

Notable: the kept checkpoint is the best one on dev, so overfitting after it harms nothing but time; the words say so.
"""

from collections.abc import Sequence
from statistics import fmean

from tunesmith.core.report import CurvePoint, Estimate
from tunesmith.evaluate.score import find_metric

CLEAR_RISE = 0.05
MILD_RISE = 0.01
SMOOTH = 5


def overfitting(
    curve: Sequence[CurvePoint],
    best_step: int,
    train: Estimate | None,
    dev: Estimate | None,
    metric: str,
    *,
    worth: bool = False,
) -> str:
    """Overfitting: dev loss ends more than 5% above its best while train loss fell on; mild: more than 1% above. Where
    dev losses are ``worth``, mean rewards turned round, both rewards are told instead: they have no zero.

    A second sentence compares ``train`` and ``dev``, the scores of the kept checkpoint on ``metric``: a train score
    better than the dev score with intervals apart means rows were memorised.

    >>> losses = [(10, 2.0, 2.0), (20, 1.5, 1.6), (30, 0.9, 2.0)]
    >>> curve = [CurvePoint(step=s, tokens=s, seconds=s, loss=l, dev_loss=d) for s, l, d in losses]
    >>> overfitting(curve, 20, None, None, "accuracy").split(";")[0]
    'Overfitting after step 20: dev loss rose 25% above its best while train loss fell'
    """
    measured = [(p.step, p.dev_loss) for p in curve if p.dev_loss is not None]
    gap = _gap(train, dev, metric)
    if measured and best_step == 0:
        return (
            "It did not learn: on dev no step was better than the start, whose weights were kept. Lower "
            f"train.learning_rate, or give it more rows. {gap}"
        ).strip()
    if not measured:
        return gap or "Overfitting cannot be judged: the dev loss was never measured."
    lowest, best = min(measured, key=lambda point: point[1])
    kept = f"the checkpoint of step {best_step} was kept"
    if worth:
        at_last = f"at last {-measured[-1][1]:.3g}"
        return f"The mean reward on dev was best at step {lowest} ({-best:.3g}), {at_last}; {kept}. {gap}".strip()
    rise = measured[-1][1] / best - 1 if best > 0 else 0.0
    if rise > CLEAR_RISE and _fell(curve, lowest):
        rose = f"dev loss rose {rise:.0%} above its best while train loss fell"
        base = f"Overfitting after step {lowest}: {rose}; {kept}."
    elif rise > MILD_RISE:
        base = f"Mild overfitting after step {lowest}: dev loss ended {rise:.0%} above its best; {kept}."
    else:
        base = f"No sign of overfitting in the losses: dev loss ended within {MILD_RISE:.0%} of its best."
    return f"{base} {gap}".strip()


def _fell(curve: Sequence[CurvePoint], best_step: int) -> bool:
    before = [p.loss for p in curve if p.loss is not None and p.step <= best_step]
    after = [p.loss for p in curve if p.loss is not None and p.step > best_step]
    return bool(before and after) and fmean(after[-SMOOTH:]) < fmean(before[-SMOOTH:])


def _gap(train: Estimate | None, dev: Estimate | None, metric: str) -> str:
    if train is None or dev is None:
        return ""
    apart = train.low > dev.high if find_metric(metric).higher_is_better else train.high < dev.low
    values = f"{metric} {train.value:.3f} on {train.n} train rows, {dev.value:.3f} on {dev.n} dev rows"
    if apart:
        return f"Train and dev scores lie apart ({values}): part of the training rows was memorised."
    return f"No gap between train and dev scores could be shown ({values})."
