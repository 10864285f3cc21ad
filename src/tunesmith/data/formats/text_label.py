"""A text and its class. For ``task: generate`` the text is asked and the label is the answer.

Notable: labels are names, so 0 and 1 become "0" and "1"; a number with a fraction is a score and is refused.
"""

from __future__ import annotations

from tunesmith.core.example import Example, Message
from tunesmith.data.formats._row import Format, Row, label_text
from tunesmith.data.rows import RowError, listed


def recognises(row: Row) -> str | None:
    text, label = row.column("text"), row.column("label")
    if text in row.value and label in row.value:
        return f"`{text}` and `{label}`"
    return None


def convert(row: Row, task: str) -> Example:
    asked = Message(role="user", content=row.text("text"))
    column = row.column("label")
    if column not in row.value:
        raise RowError(column, f"no such column (there are: {listed(row.value, 8)})", "a class name")
    label = label_text(row.value[column], column)
    if task == "classify":
        return Example(place=row.place, messages=(asked,), label=label, group=row.group())
    return row.conversation([asked, Message(role="assistant", content=label)], task)


PART = Format(
    name="text_label",
    title="texts with labels",
    columns=("text", "label"),
    example='{"text": "...", "label": "..."}',
    precedence=50,
    recognises=recognises,
    convert=convert,
)
