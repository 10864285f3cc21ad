"""Another model, behind the endpoint of ``evaluate.rival``, with an instruction and the k most similar training rows as
earlier turns: what prompting reaches that does not depend on the base.

Notable: it is asked only where the recipe names it, for rows then leave this machine. It is asked as ``few_shot`` is. A
label is written, not compared; one written in other letters or marks counts as the label.
"""

from dataclasses import replace

from tunesmith.core.report import Prediction
from tunesmith.evaluate.baselines._context import Baseline, BaselineContext
from tunesmith.evaluate.baselines._prompting import written
from tunesmith.evaluate.forms import is_plain_text
from tunesmith.evaluate.similarity import nearest

LABEL_TOKENS = 40


def applies(context: BaselineContext) -> str | None:
    """Where an endpoint is named, and questions are answered in words."""
    if context.rival is None:
        return "no endpoint is named (evaluate.rival)"
    if context.task == "prefer":
        return "answers are compared, and none is written"
    if any(row.ends_in_calls for row in context.test):
        return "answers that call tools are compared as the base's chat template writes them"
    if all(is_plain_text(row) for row in context.test):
        return "plain text has no questions and answers"
    return None


def answer(context: BaselineContext) -> tuple[Prediction, ...]:
    """One answer a test row; without likelihoods, which an endpoint does not tell."""
    assert context.rival is not None, "applies() admits no context without one"
    closed = context.task == "classify"
    limit = max([LABEL_TOKENS, *(len(label.encode()) for label in context.labels)])
    asked = replace(context, likelihood=False, max_new_tokens=limit if closed else context.max_new_tokens)
    questions, known = [row.input_text for row in context.test], [e.input_text for e in context.train]
    near = nearest(questions, known, context.shots).tolist() if known else [[]] * len(questions)
    answers = written(asked, context.rival, [[context.train[n] for n in reversed(own)] for own in near])
    if not closed:
        return answers
    labels = {_plain(label): label for label in context.labels}
    return tuple(p.model_copy(update={"answer": labels.get(_plain(p.answer), p.answer)}) for p in answers)


def _plain(text: str) -> str:
    """
    >>> _plain(' "Card Arrival".')
    'cardarrival'
    """
    return "".join(letter for letter in text.casefold() if letter.isalnum())


PART = Baseline(
    "rival",
    "The model of evaluate.rival, over HTTP, shown the k most similar training rows.",
    applies,
    answer,
    wanted=lambda context: context.rival is not None,
)
