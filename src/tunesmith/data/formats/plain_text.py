"""Plain text: every token is trained, as in pre-training. One row a ``text``, or a paragraph of a .txt file.

Notable: a row with a ``text`` and other telling columns is not taken for plain text, or an answer would be left out
in silence; only columns that describe a text (its title, source, ...) may stand beside it, unless ``columns:`` or
``format:`` says so.
"""

from __future__ import annotations

from tunesmith.core.example import Example
from tunesmith.data.formats._row import Format, Row
from tunesmith.data.rows import RowError

DESCRIBING = {
    *("id", "path", "file", "filename", "title", "author", "year", "date", "timestamp", "source", "url", "lang"),
    *("language", "licence", "license", "meta", "metadata", "chapter", "page", "row", "index", "n_tokens"),
}


def recognises(row: Row) -> str | None:
    column = row.column("text")
    beside = {name.lower() for name in row.value if name not in (column, row.group_by)}
    if isinstance(row.value.get(column), str) and ("text" in row.columns or beside <= DESCRIBING):
        return f"`{column}` and nothing to answer with"
    return None


def convert(row: Row, task: str) -> Example:
    if task == "classify":
        hint = " Name the label's column: columns: {text: ..., label: ...}, or set task: generate."
        raise RowError("", "plain text", "a text with a label (task: classify)", hint)
    return Example(place=row.place, text=row.text("text"), group=row.group())


PART = Format(
    name="plain_text",
    title="plain text",
    columns=("text",),
    example='{"text": "..."}',
    precedence=60,
    recognises=recognises,
    convert=convert,
)
