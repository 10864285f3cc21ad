"""What kind of answer a task expects: one of a closed set, a JSON object, or open text. Read off the references, never
asked.

Notable: metrics, prompts, baselines and confusions all follow from this one reading, so they cannot disagree about the
task.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tunesmith.core.example import Example
from tunesmith.core.recipe import Task
from tunesmith.data.preferences import JUDGED, PAIR
from tunesmith.evaluate.extract import canonical, first_object, squash, whole_object

Form = Literal["json", "closed", "open"]

JSON_SHARE = 0.95
CLOSED_ANSWERS = 200
CLOSED_LENGTH = 100
CLOSED_FIELD_VALUES = 40
COMMON_KEY_SHARE = 0.5


def is_plain_text(example: Example) -> bool:
    """True for a row of plain text (every token trained): its answer is empty and only its likelihood can be scored."""
    return example.text is not None and not example.messages


def answer_form(references: Sequence[str], task: Task = "generate") -> Form:
    """``json`` when at least 95% of the references are JSON objects; ``closed`` for labels and when each of few short
    answers comes twice on average; else ``open``.

    >>> answer_form(["yes", "no", "yes", "no"]), answer_form(['{"a": 1}'])
    ('closed', 'json')
    >>> answer_form(["Call the bank.", "Wait a day."])
    'open'
    """
    if task != "generate":
        return "closed"
    if references and sum(whole_object(r) is not None for r in references) >= JSON_SHARE * len(references):
        return "json"
    distinct = {squash(r) for r in references}
    few = 0 < 2 * len(distinct) <= len(references) and len(distinct) <= CLOSED_ANSWERS
    return "closed" if few and "" not in distinct and max(map(len, distinct)) <= CLOSED_LENGTH else "open"


def known_answers(train: Sequence[Example], task: Task, labels: Sequence[str] = ()) -> tuple[str, ...]:
    """The closed set of answers, sorted: the labels, or the training answers where few; empty for JSON and text.

    Read off the training rows, so that a small test set cannot make a closed task look open.
    """
    if task == "prefer":
        return (*PAIR, *JUDGED)
    answers = labels or [example.answer for example in train]
    if not labels and answer_form(answers, task) != "closed":
        return ()
    return tuple(sorted({squash(answer) for answer in answers}))


def common_keys(references: Sequence[str]) -> tuple[str, ...]:
    """Top-level keys of more than half of the JSON references, in order of first appearance."""
    objects = _objects(references)
    counts = Counter(key for item in objects for key in item)
    return tuple(key for key, count in counts.items() if count > COMMON_KEY_SHARE * len(objects))


def closed_fields(references: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """For each common key with at most 40 scalar values, each seen twice on average: its values (``shown``), commonest
    first.

    >>> closed_fields(['{"urgent": true, "id": "a1"}', '{"urgent": true, "id": "b2"}'])
    {'urgent': ('true',)}
    """
    objects = _objects(references)
    fields = {}
    for key in common_keys(references):
        values = [item[key] for item in objects if key in item]
        if any(isinstance(value, dict | list) for value in values):
            continue
        counts = Counter(shown(value) for value in values)
        if len(counts) <= CLOSED_FIELD_VALUES and 2 * len(counts) <= len(values):
            fields[key] = tuple(sorted(counts, key=lambda value: (-counts[value], value)))
    return fields


def shown(value: Any) -> str:
    """A field's value as a reader writes it: strings bare, everything else as JSON."""
    return squash(value) if isinstance(value, str) else canonical(value)


def most_frequent(texts: Sequence[str]) -> str:
    """The commonest text; of equals, the first in the alphabet, so that row order does not matter.

    >>> most_frequent(["b", "a", "b", "a"])
    'a'
    """
    counts = Counter(texts)
    return min(counts, key=lambda text: (-counts[text], text))


def read_answer(answer: str, form: Form) -> Mapping[str, Any] | str | None:
    """An answer read in its form: an object, a squashed text, or None where no JSON object can be found."""
    return first_object(answer) if form == "json" else squash(answer)


def unreadable(answers: Sequence[str], form: Form, known: Sequence[str]) -> int:
    """Answers that fit no form: no JSON object, or none of the ``known`` answers. Open text is always readable."""
    if form == "open":
        return 0
    allowed = {squash(answer) for answer in known}
    read = [read_answer(answer, form) for answer in answers]
    return sum(item is None or (form == "closed" and item not in allowed) for item in read)


def _objects(references: Sequence[str]) -> list[dict[str, Any]]:
    return [item for item in map(whole_object, references) if item is not None]
