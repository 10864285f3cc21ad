"""The answer of the most similar training row: what a search index over the same data would give.

Notable: a strong bar on narrow data, and it costs no generation; similarity is the encoder's where the run has one,
else TF-IDF.
"""

from tunesmith.core.report import Prediction
from tunesmith.evaluate.baselines._context import Baseline, BaselineContext, needs_train
from tunesmith.evaluate.similarity import nearest


def answer(context: BaselineContext) -> tuple[Prediction, ...]:
    """One copied answer a test row."""
    texts = [example.input_text for example in context.train]
    found = nearest([row.input_text for row in context.test], texts, 1, context.embedder)[:, 0]
    return tuple(
        Prediction(id=row.id, answer=context.train[n].answer) for row, n in zip(context.test, found, strict=True)
    )


PART = Baseline("nearest_neighbour", "The answer of the most similar training row.", needs_train, answer, looks_up=True)
