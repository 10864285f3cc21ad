"""ShareGPT conversations: turns of ``from`` and ``value``, with ``function_call`` and ``observation`` turns for tools.

Notable: the turns are rewritten as chat messages and read by ``chat``, so both formats have one set of rules and of
errors.
"""

from __future__ import annotations

from typing import Any

from tunesmith.core.example import Example, Message
from tunesmith.data.formats._row import Format, Row, nearest, parsed
from tunesmith.data.formats.chat import turns
from tunesmith.data.rows import RowError, listed, shown

SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": "assistant",
}


def recognises(row: Row) -> str | None:
    value = row.get("conversations")
    if isinstance(value, list) and any(isinstance(t, dict) and "from" in t for t in value):
        return f"a list `{row.column('conversations')}` of from/value"
    return None


def convert(row: Row, task: str) -> Example:
    column, value = row.column("conversations"), row.get("conversations")
    if isinstance(value, str):
        value = parsed(value, column)
    if not isinstance(value, list) or not value:
        raise RowError(column, shown(value), "a list of turns with from and value")
    messages: list[Message] = []
    if system := row.optional("system"):
        messages.append(Message(role="system", content=system))
    for i, turn in enumerate(value):
        messages += _turn(turn, f"{column}[{i}]")
    return row.conversation(messages, task)


def _turn(turn: Any, field: str) -> list[Message]:
    if not isinstance(turn, dict):
        raise RowError(field, shown(turn), "an object with from and value")
    speaker = turn.get("from")
    if not isinstance(speaker, str) or speaker not in SPEAKERS:
        found = shown(speaker) if "from" in turn else f"no speaker (the turn has {listed(turn)})"
        hint = nearest(speaker.lower(), tuple(SPEAKERS)) if isinstance(speaker, str) else ""
        raise RowError(f"{field}.from", found, f"one of {listed(SPEAKERS)}", hint)
    text = turn.get("value")
    if not isinstance(text, str):
        found = shown(text) if "value" in turn else f"no value (the turn has {listed(turn)})"
        raise RowError(f"{field}.value", found, "text")
    message: dict[str, Any] = {"role": SPEAKERS[speaker], "content": text, "weight": turn.get("weight")}
    if speaker == "function_call":
        call = parsed(text, f"{field}.value")
        message |= {"content": None, "tool_calls": call if isinstance(call, list) else [call]}
    return turns([message], field)


PART = Format(
    name="sharegpt",
    title="ShareGPT conversations",
    columns=("conversations", "system", "tools"),
    example='{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}',
    precedence=20,
    recognises=recognises,
    convert=convert,
)
