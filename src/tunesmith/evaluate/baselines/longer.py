"""The longer of two answers: what a preference amounts to that is no more than length.

Notable: annotators and judges favour length (Singhal et al., 2023), so on many sets this is the bar to beat.
"""

from tunesmith.core.report import Prediction
from tunesmith.data.preferences import said
from tunesmith.evaluate.baselines._context import Baseline, BaselineContext, needs_pairs


def answer(context: BaselineContext) -> tuple[Prediction, ...]:
    """By characters; answers of one length are neither."""
    found = []
    for row in context.test:
        lead = len(row.answer) - len(row.rejected.content if row.rejected else "")
        found.append(Prediction(id=row.id, answer=said(lead)))
    return tuple(found)


PART = Baseline("longer", "The longer of two answers is the better one.", needs_pairs, answer, ("prefer",))
