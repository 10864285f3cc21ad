"""Alpaca rows: ``instruction``, an optional ``input``, ``output``; also ``system`` and ``history`` as LLaMA-Factory has
them.

Notable: instruction and input become one user turn, a blank line between, and not the prose template of Stanford's
Alpaca: the model's own chat template says who speaks.
"""

from __future__ import annotations

from typing import Any

from tunesmith.core.example import Example, Message
from tunesmith.data.formats._row import Format, Row
from tunesmith.data.rows import RowError, shown


def recognises(row: Row) -> str | None:
    if row.get("instruction") is not None and row.column("output") in row.value:
        return f"`{row.column('instruction')}` and `{row.column('output')}`"
    return None


def convert(row: Row, task: str) -> Example:
    instruction, extra = row.text("instruction"), row.optional("input")
    messages = [Message(role="system", content=system)] if (system := row.optional("system")) else []
    messages += _history(row.get("history") or [], row.column("history"))
    messages.append(Message(role="user", content=f"{instruction}\n\n{extra}" if extra.strip() else instruction))
    messages.append(Message(role="assistant", content=row.text("output")))
    return row.conversation(messages, task)


def _history(value: Any, column: str) -> list[Message]:
    pairs = value if isinstance(value, list) else None
    if pairs is None or not all(
        isinstance(p, list) and len(p) == 2 and all(isinstance(t, str) for t in p) for p in pairs
    ):
        raise RowError(column, shown(value), "a list of pairs [question, answer]")
    roles = ("user", "assistant")
    return [Message(role=role, content=text) for pair in pairs for role, text in zip(roles, pair, strict=True)]


PART = Format(
    name="alpaca",
    title="Alpaca instructions",
    columns=("instruction", "input", "output", "system", "history", "tools"),
    example='{"instruction": "...", "input": "", "output": "..."}',
    precedence=30,
    recognises=recognises,
    convert=convert,
)
