"""Another model, behind the endpoint of ``evaluate.rival``, with an instruction and the k most similar training rows as
earlier turns: what prompting reaches that does not depend on the base.

Notable: it is asked only where the recipe names it, for rows then leave this machine. It is asked as ``few_shot`` is,
with room to think before it answers. A label is written, not compared; one written in other letters or marks counts as
the label where no other label reads the same.
"""

from collections.abc import Sequence
from dataclasses import replace

from tunesmith.core.report import Prediction
from tunesmith.evaluate.baselines._context import Baseline, BaselineContext
from tunesmith.evaluate.baselines._prompting import similar, written
from tunesmith.evaluate.forms import is_plain_text

ROOM = 1024  # tokens at least, for models that think first


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
    asked = replace(context, likelihood=False, max_new_tokens=max(ROOM, context.max_new_tokens))
    answers = written(asked, context.rival, similar(context))
    if context.task != "classify":
        return answers
    return tuple(p.model_copy(update={"answer": _label(p.answer, context.labels)}) for p in answers)


def _label(text: str, labels: Sequence[str]) -> str:
    """The label that ``text`` is, or ``text``.

    >>> _label(' "Card Arrival". ', ["card_arrival", "fee"]), _label("c", ["c", "c++"]), _label("C", ["c", "c++"])
    ('card_arrival', 'c', 'C')
    """
    if (written := text.strip()) in labels:
        return written
    alike = [label for label in labels if _plain(label) == _plain(text)] if _plain(text) else []
    return alike[0] if len(alike) == 1 else text


def _plain(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


PART = Baseline(
    "rival",
    "The model of evaluate.rival, over HTTP, shown the k most similar training rows.",
    applies,
    answer,
    wanted=lambda context: context.rival is not None,
    looks_up=True,
    elsewhere=True,
)
