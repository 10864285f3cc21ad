"""The untuned model with an instruction and the k most similar training rows as earlier turns (Liu et al., 2022: kNN
in-context examples).

Notable: examples are chosen for each test row, the most similar last, next to the question; those that do not fit the
context are left out.
"""

from tunesmith.core.report import Prediction
from tunesmith.evaluate.baselines._context import Baseline, BaselineContext
from tunesmith.evaluate.baselines._prompting import prompted, similar
from tunesmith.evaluate.forms import is_plain_text


def applies(context: BaselineContext) -> str | None:
    """Needs a decoder, training rows, and rows that have answers to show."""
    if context.task == "prefer":
        return "answers are compared, and none is written"
    if context.completer is None:
        return "an encoder cannot be prompted"
    if not context.train:
        return "there are no training rows to show"
    if context.task == "classify" and not context.labels:
        return "there are no labels to choose from"
    if all(is_plain_text(row) for row in context.test):
        return "plain text has no questions and answers to show"
    return None


def answer(context: BaselineContext) -> tuple[Prediction, ...]:
    """One answer a test row."""
    assert context.completer is not None, "applies() admits no context without a decoder"
    return prompted(context, context.completer, similar(context))


PART = Baseline("few_shot", "The untuned model shown the k most similar training rows.", applies, answer, looks_up=True)
