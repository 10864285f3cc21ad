"""A raw row, the error that one row can have, and what makes a value unfit for a tokenizer or a template.

Notable: what is wrong with a file is a DataError; what is wrong with one row travels with that row as a ``RowError``,
for the policy (``data.on_bad_row``) is not decided where rows are read.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from tunesmith.core.errors import DataError

MAX_DEPTH = 64


class RowError(DataError):
    """What is wrong with one row; ``at`` adds the place to the sentence.

    >>> str(RowError("label", "null", "a class name"))
    'field label: found null; expected a class name.'
    """

    def __init__(self, field: str, found: str, expected: str, hint: str = "") -> None:
        self.field = field
        super().__init__(f"{f'field {field}: ' if field else ''}found {found}; expected {expected}.{hint}")

    def at(self, place: object) -> str:
        return f"{place}{', ' if self.field else ': '}{self}"


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as the file has it: ``value`` (an object of columns), or the ``error`` that keeps it from being one."""

    line: int
    value: dict[str, Any]
    error: RowError | None = None
    raw: str = ""

    def text(self) -> str:
        """The raw text, at most 2,000 characters, fit to be written as UTF-8."""
        return printable((self.raw or json.dumps(self.value, ensure_ascii=False, default=str))[:2000])


def printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def shown(value: Any) -> str:
    """A value as an error shows it: text in quotes and cut, containers by what they hold.

    >>> shown("asistant"), shown(None), shown([1, 2]), shown({"a": 1})
    ('"asistant"', 'null', 'a list of 2', 'an object with a')
    """
    if isinstance(value, str):
        return printable(json.dumps(value if len(value) <= 60 else value[:60] + "...", ensure_ascii=False))
    if isinstance(value, dict):
        return f"an object with {listed(value)}" if value else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)[:60]


def listed(names: Any, most: int = 20) -> str:
    """Names joined by commas, the rest counted."""
    names = [printable(str(n))[:60] for n in names]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class Repeated(dict[str, Any]):
    """An object in which a key stands twice: JSON allows it, and one of the two values would be lost in silence."""

    key = ""


def unsound(value: Any, field: str = "", depth: int = 0) -> RowError | None:
    """The first thing in ``value`` that must not reach a tokenizer or a template, or None."""
    if depth > MAX_DEPTH:
        return RowError(field[:80], f"more than {MAX_DEPTH} levels of nesting", "a row of flat columns or messages")
    if isinstance(value, str):
        return _unsound_text(value, field)
    if isinstance(value, float) and not math.isfinite(value):
        return RowError(field, str(value), "a finite number (NaN and Infinity are not JSON)")
    if isinstance(value, Repeated):
        return RowError(f"{field}.{value.key}".lstrip("."), "the key twice", "each key once")
    items: Any = ()
    if isinstance(value, dict):
        items = ((f"{field}.{k}" if field else str(k), v) for k, v in value.items())
        if any(_unsound_text(str(k), field) for k in value):
            return RowError(field, "a column name with a NUL or a broken character", "readable column names")
    elif isinstance(value, list):
        items = ((f"{field}[{i}]", v) for i, v in enumerate(value))
    return next((e for name, v in items if (e := unsound(v, name, depth + 1)) is not None), None)


def _unsound_text(text: str, field: str) -> RowError | None:
    if "\0" in text:
        return RowError(field, f"a NUL character at position {text.index(chr(0)) + 1}", "text without NUL")
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        if 0xDC80 <= code <= 0xDCFF:  # how surrogateescape carries a byte that is no UTF-8
            return not_utf8(code - 0xDC00, error.start, field)
        return RowError(field, f"half a character (surrogate U+{code:04X})", "whole Unicode characters")
    return None


def not_utf8(byte: int, position: int, field: str = "") -> RowError:
    hint = " If the file is Latin-1, convert it: iconv -f latin1 -t utf-8."
    return RowError(field, f"byte 0x{byte:02x} at position {position + 1}, which is not UTF-8", "UTF-8 text", hint)
