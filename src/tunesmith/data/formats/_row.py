"""What every format is: how it knows a row as its own, and how it turns one into an Example.

Notable: a format asks for columns by our names; ``Row`` finds them under the file's names (``data.columns``) and
every error names the file's column, since that is what the user has to mend.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tunesmith.core.errors import did_you_mean
from tunesmith.core.example import Example, Message, Place
from tunesmith.core.recipe import Task
from tunesmith.data.rows import RowError, listed, shown


@dataclass(frozen=True, slots=True)
class Row:
    """One row with its place, the mapping of our names to the file's columns, and the column that groups rows."""

    value: dict[str, Any]
    place: Place
    columns: dict[str, str] = field(default_factory=dict)
    group_by: str | None = None

    def column(self, name: str) -> str:
        return self.columns.get(name, name)

    def get(self, name: str) -> Any:
        return self.value.get(self.column(name))

    def text(self, name: str) -> str:
        """The column as text. Raises RowError when it is missing, null, or anything else than text."""
        column, value = self.column(name), self.get(name)
        if isinstance(value, str):
            return value
        if column not in self.value:
            raise RowError(column, f"no such column (there are: {listed(self.value, 8)})", "text")
        hint = " Write it in quotes." if isinstance(value, (int, float)) else ""
        raise RowError(column, f"{shown(value)} ({kind_of(value)})" if hint else shown(value), "text", hint)

    def optional(self, name: str) -> str:
        """The column as text, empty when it is missing or null."""
        return "" if self.get(name) is None else self.text(name)

    def group(self) -> str | None:
        if self.group_by is None:
            return None
        value = self.value.get(self.group_by)
        if isinstance(value, (str, int, float)) and value != "":
            return str(value)
        raise RowError(self.group_by, shown(value), "the value to group by (data.split.group_by)")

    def conversation(self, messages: list[Message], task: str) -> Example:
        """An example of these turns, which end with the answer; for ``classify`` the answer becomes the label."""
        tools = json_list(self.get("tools"), self.column("tools"))
        if not messages or messages[-1].role != "assistant":
            last = f"a last turn by {messages[-1].role}" if messages else "no turns"
            wanted = "the label" if task == "classify" else "the answer"
            raise RowError("", last, f"{wanted} as the last turn, by assistant (task: {task})")
        label = messages[-1].content.strip() if task == "classify" else None
        turns = messages if label is None else messages[:-1]
        return Example(place=self.place, messages=tuple(turns), label=label, group=self.group(), tools=tuple(tools))


@dataclass(frozen=True, slots=True)
class Format:
    """A file format of rows.

    ``columns`` are our names that it reads. ``recognises`` says why a row is its own, or None; where two formats know a
    row, the one of lower ``precedence`` has it. ``convert`` makes the Example, or raises RowError. ``task`` and
    ``objective`` are what such rows are for, where a file is looked at without a recipe.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    example: str
    precedence: int
    recognises: Callable[[Row], str | None]
    convert: Callable[[Row, str], Example]
    task: Task = "generate"
    objective: str = "auto"


def kind_of(value: Any) -> str:
    return {bool: "true or false", int: "a number", float: "a number"}.get(type(value), type(value).__name__)


def label_text(value: Any, column: str) -> str:
    """A class name as text: whole numbers and booleans are written out, outer spaces go.

    >>> label_text(1, "label"), label_text(2.0, "label"), label_text(" refund ", "label")
    ('1', '2', 'refund')
    """
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    raise RowError(column, shown(value), "a class name (text or a whole number)")


def truth(value: Any) -> bool | None:
    """True or false, also as 1 or 0 and as the text that a table has; None for anything else.

    >>> truth(True), truth(0), truth("False"), truth("good"), truth(2)
    (True, False, False, None, None)
    """
    if isinstance(value, str):
        return {"true": True, "false": False, "1": True, "0": False}.get(value.strip().lower())
    return bool(value) if isinstance(value, (bool, int)) and value in (0, 1) else None


def json_list(value: Any, column: str) -> list[dict[str, Any]]:
    """A list of objects, given as such or as JSON text; empty when missing."""
    if isinstance(value, str) and value.strip():
        value = parsed(value, column)
    if value is None or value == "" or value == []:
        return []
    if isinstance(value, list) and all(isinstance(v, dict) for v in value):
        return [without_nulls(v) for v in value]
    raise RowError(column, shown(value), "a list of objects")


def parsed(text: str, column: str) -> Any:
    """JSON text as a value. Raises RowError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RowError(column, f"{shown(text)}, which is not JSON", "JSON text or an object") from None


def without_nulls(value: Any) -> Any:
    """Parquet fills absent fields with null: leave them out again."""
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


@cache
def nearest(name: str, known: tuple[str, ...]) -> str:
    """``did_you_mean`` with a memory: the same wrong key often stands in every row."""
    return did_you_mean(name, known)
