"""The longer of two answers: what a preference amounts to that is no more than length.

Notable: annotators and judges favour length (Singhal et al., 2023), so on many sets this is the bar to beat.
"""

from tunesmith.core.report import Prediction
from tunesmith.data.preferences import longer_by, said
from tunesmith.evaluate.baselines._context import Baseline, BaselineContext, needs_pairs


def answer(context: BaselineContext) -> tuple[Prediction, ...]:
    """By characters; answers of one length are neither."""
    return tuple(Prediction(id=row.id, answer=said(longer_by(row))) for row in context.test)


PART = Baseline("longer", "The longer of two answers is the better one.", needs_pairs, answer, ("prefer",))
