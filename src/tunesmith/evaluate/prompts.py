"""The system prompt of the prompted baselines, written from the training data.

Notable: a baseline is only a fair bar when its prompt says what a careful person would say after reading the training
rows: the keys, the allowed values, the usual length. It never shows a row; that is what few_shot adds.
"""

from collections.abc import Sequence
from statistics import median

from tunesmith.core.example import Example, Message
from tunesmith.core.recipe import Task
from tunesmith.evaluate.forms import answer_form, closed_fields, common_keys, known_answers

MAX_LISTED = 100


def instruction(train: Sequence[Example], task: Task, labels: Sequence[str], *, lists: bool = True) -> str:
    """A system prompt that states the form of the answer. ``lists=False`` leaves the allowed values out, for a short
    context.

    >>> from tunesmith.core.example import Place
    >>> row = lambda n: Example(place=Place(file="t", line=n), label="yes" if n % 2 else "no")
    >>> print(instruction([row(n) for n in range(8)], "generate", ()))
    Answer with exactly one of: no, yes. Write nothing else.
    """
    answers = [example.answer for example in train]
    form = answer_form(answers, task)
    if form == "json":
        return _json_instruction(answers, lists)
    if form == "closed":
        allowed = known_answers(train, task, labels)
        if lists and 0 < len(allowed) <= MAX_LISTED:
            return f"Answer with exactly one of: {', '.join(allowed)}. Write nothing else."
        samples = f", such as {', '.join(allowed[:3])}" if allowed else ""
        return f"Answer with exactly one label{samples}. Write nothing else."
    words = median([len(a.split()) for a in answers]) if answers else 0
    length = f" Use about {round(words)} words." if words else ""
    return f"Answer the last message directly, correctly and completely, without any preamble.{length}"


def _json_instruction(answers: Sequence[str], lists: bool) -> str:
    keys = common_keys(answers)
    if not keys:
        return "Answer with one JSON object. Write nothing else."
    values = closed_fields(answers) if lists else {}
    allowed = "".join(f" {key} is one of: {', '.join(sorted(values[key]))}." for key in keys if key in values)
    return f"Answer with one JSON object with the keys {', '.join(keys)}.{allowed} Write nothing else."


def with_system(messages: Sequence[Message], text: str) -> tuple[Message, ...]:
    """``messages`` with ``text`` added to their own system message, or in a new one before them.

    >>> row = [Message(role="system", content="Be kind."), Message(role="user", content="Hi")]
    >>> [m.content for m in with_system(row, "Use JSON.")]
    ['Be kind.\\n\\nUse JSON.', 'Hi']
    """
    if messages and messages[0].role == "system":
        own = messages[0]
        merged = own.model_copy(update={"content": f"{own.content}\n\n{text}".strip()})
        return (merged, *messages[1:])
    return (Message(role="system", content=text), *messages)
