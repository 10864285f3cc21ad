"""The untuned model with an instruction and no examples.

Notable: an encoder, which cannot be prompted, compares the text with the names of the labels ("card_arrival" read as
"card arrival") by embedding instead; plain text is scored as it stands, without an instruction.
"""

import numpy as np

from tunesmith.core.protocols import Embedder
from tunesmith.core.report import Prediction
from tunesmith.evaluate.baselines._context import Baseline, BaselineContext, needs_pairs
from tunesmith.evaluate.baselines._prompting import likelier, prompted


def applies(context: BaselineContext) -> str | None:
    """A decoder always, but for answers that are judged alone; an encoder for labels."""
    if context.task == "classify" and not context.labels:
        return "there are no labels to choose from"
    if context.completer is None and context.embedder is None:
        return "there is no untuned model to ask"
    if context.completer is None and context.task != "classify":
        return "an encoder cannot be prompted"
    return needs_pairs(context) if context.task == "prefer" else None


def answer(context: BaselineContext) -> tuple[Prediction, ...]:
    """One answer a test row: written, or the likeliest label, or the label with the nearest name, or the likelier of
    two answers."""
    if context.task == "prefer" and context.completer is not None:
        return likelier(context, context.completer)
    if context.completer is not None:
        return prompted(context, context.completer, [()] * len(context.test))
    assert context.embedder is not None, "applies() admits no context without a model"
    return _by_name(context, context.embedder)


def _by_name(context: BaselineContext, embedder: Embedder) -> tuple[Prediction, ...]:
    names = np.asarray(embedder.embed([label.replace("_", " ") for label in context.labels]), dtype=np.float32)
    texts = np.asarray(embedder.embed([row.input_text for row in context.test]), dtype=np.float32)
    best = (texts @ names.T).argmax(axis=1)
    return tuple(Prediction(id=row.id, answer=context.labels[n]) for row, n in zip(context.test, best, strict=True))


PART = Baseline(
    "zero_shot",
    "The untuned model with an instruction (labels: the likeliest, two answers: the likelier).",
    applies,
    answer,
    ("generate", "classify", "prefer"),
)
