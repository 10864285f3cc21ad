"""The shorter of two answers: the bar to beat where the better answers are the brief ones."""

from tunesmith.core.report import Prediction
from tunesmith.data.preferences import longer_by, said
from tunesmith.evaluate.baselines._context import Baseline, BaselineContext, needs_pairs


def answer(context: BaselineContext) -> tuple[Prediction, ...]:
    """By characters; answers of one length are neither."""
    return tuple(Prediction(id=row.id, answer=said(-longer_by(row))) for row in context.test)


PART = Baseline("shorter", "The shorter of two answers is the better one.", needs_pairs, answer, ("prefer",))
