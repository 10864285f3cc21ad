"""The answer that needs no model: the most frequent one.

Notable: for JSON the most frequent value of each common key, which no constant answer beats field by field; for open
text the empty answer, because no frequent one exists, so it shows what a metric gives for nothing.
"""

import json
from collections.abc import Sequence

from tunesmith.core.example import Example
from tunesmith.core.recipe import Task
from tunesmith.core.report import Prediction
from tunesmith.data.preferences import expected
from tunesmith.evaluate.baselines._context import Baseline, BaselineContext, needs_train
from tunesmith.evaluate.extract import canonical, whole_object
from tunesmith.evaluate.forms import answer_form, common_keys, most_frequent


def constant(answers: Sequence[str], task: Task) -> str:
    """The one answer given to every row.

    >>> constant(["refund", "refund", "card"], "classify"), constant(["Call us now.", "Wait."], "generate")
    ('refund', '')
    >>> constant(['{"a": 1, "b": "x"}', '{"a": 1, "b": "y"}', '{"a": 2, "b": "x"}'], "generate")
    '{"a": 1, "b": "x"}'
    """
    form = answer_form(answers, task)
    if form == "open":
        return ""
    if form == "closed":
        return most_frequent(answers)
    objects = [item for item in map(whole_object, answers) if item is not None]
    values = {key: most_frequent([canonical(o[key]) for o in objects if key in o]) for key in common_keys(answers)}
    return json.dumps({key: json.loads(value) for key, value in values.items()}, ensure_ascii=False)


def answer(context: BaselineContext) -> tuple[Prediction, ...]:
    """The same answer for each test row, free of cost."""
    text = constant(_said(context.train, context.task), context.task)
    return tuple(Prediction(id=row.id, answer=text) for row in context.test)


def _said(train: Sequence[Example], task: Task) -> list[str]:
    return [expected(e) if task == "prefer" else e.answer for e in train]


def applies(context: BaselineContext) -> str | None:
    """Needs training rows, and a difference: the better one of two answers is always the chosen one."""
    if context.task == "prefer" and not any(row.rejected for row in context.test):
        return None if context.train else "there are no training rows"
    return needs_train(context)


PART = Baseline(
    "majority",
    "The most frequent answer for every row (open text: the empty answer).",
    applies,
    answer,
    ("generate", "classify", "prefer"),
)
