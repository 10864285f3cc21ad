"""Chat messages: OpenAI's fine-tuning JSONL, unchanged (https://platform.openai.com/docs/guides/supervised-fine-tuning).

Notable: tool calls keep their ``arguments`` as an object, because chat templates write them with ``tojson`` and would
quote a string twice. The older ``function_call`` and ``functions`` become tool calls and tools; ``developer`` is
``system``.
"""

from __future__ import annotations

import math
from typing import Any

from tunesmith.core.example import Example, Message
from tunesmith.data.formats._row import Format, Row, json_list, label_text, nearest, parsed, without_nulls
from tunesmith.data.rows import RowError, listed, shown

ROLES = ("system", "user", "assistant", "tool")
_SAME = {"developer": "system", "function": "tool"}
_KEYS = ("role", "content", "weight", "tool_calls", "function_call", "name", "tool_call_id")


def _column(row: Row) -> str:
    return "messages" if row.column("messages") in row.value or row.get("conversations") is None else "conversations"


def recognises(row: Row) -> str | None:
    turns = row.get(_column(row))
    if isinstance(turns, list) and any(isinstance(t, dict) and "role" in t for t in turns):
        return f"a list `{row.column(_column(row))}` of role/content"
    return None


def convert(row: Row, task: str) -> Example:
    column = _column(row)
    messages = turns(row.get(column), row.column(column))
    if row.get("tools") is None and row.value.get("functions"):
        functions = json_list(row.value["functions"], "functions")
        tools = [{"type": "function", "function": f} for f in functions]
        row = Row({**row.value, row.column("tools"): tools}, row.place, row.columns, row.group_by)
    label = row.get("label")
    if task == "classify" and label is not None and messages[-1].role == "user":
        text = label_text(label, row.column("label"))
        return Example(place=row.place, messages=tuple(messages), label=text, group=row.group())
    return row.conversation(messages, task)


def turns(value: Any, column: str) -> list[Message]:
    """The messages of one conversation. Raises RowError naming the turn and its field."""
    if isinstance(value, str):
        value = parsed(value, column)
    if not isinstance(value, list) or not value:
        raise RowError(column, shown(value), "a list of messages with role and content")
    return [_turn(turn, f"{column}[{i}]") for i, turn in enumerate(value)]


def _turn(turn: Any, field: str) -> Message:
    if not isinstance(turn, dict):
        raise RowError(field, shown(turn), "an object with role and content")
    turn = {k: v for k, v in turn.items() if v is not None or k == "content"}
    _refuse_misspelt(turn, field)
    role = _role(turn.get("role"), f"{field}.role", listed(turn))
    calls = _tool_calls(turn, field)
    if calls and role != "assistant":
        raise RowError(f"{field}.tool_calls", f"tool calls by {role}", "tool calls by assistant alone")
    return Message(
        role=role,
        content=_content(turn, f"{field}.content", optional=bool(calls)),
        weight=_weight(turn.get("weight", 1), f"{field}.weight"),
        tool_calls=tuple(calls),
        name=_name(turn, "name", field),
        tool_call_id=_name(turn, "tool_call_id", field),
    )


def _refuse_misspelt(turn: dict[str, Any], field: str) -> None:
    for key in turn:
        hint = "" if key in _KEYS else nearest(key, _KEYS)
        if hint and not any(f'"{known}"' in hint for known in turn):
            raise RowError(f"{field}.{key}", "an unknown key", f"one of {listed(_KEYS)}", hint)


def _role(role: Any, field: str, keys: str) -> str:
    if role is None:
        raise RowError(field, f"no role (the message has {keys})", listed(ROLES))
    role = _SAME.get(role, role) if isinstance(role, str) else role
    if role in ROLES:
        return str(role)
    hint = nearest(role.lower(), ROLES) if isinstance(role, str) else ""
    raise RowError(field, shown(role), "system, user, assistant or tool", hint)


def _content(turn: dict[str, Any], field: str, *, optional: bool) -> str:
    content = turn.get("content")
    if isinstance(content, str):
        return content
    if content is None and optional:
        return ""
    if isinstance(content, list):
        return "".join(_part(part, f"{field}[{i}]") for i, part in enumerate(content))
    found = shown(content) if "content" in turn else f"no content (the message has {listed(turn)})"
    raise RowError(field, found, "text" if optional else "text (null is for turns with tool_calls)")


def _part(part: Any, field: str) -> str:
    if isinstance(part, dict) and isinstance(part.get("text"), str) and part.get("type", "text") == "text":
        return str(part["text"])
    kind = f"a part of type {shown(part.get('type'))}" if isinstance(part, dict) else shown(part)
    raise RowError(field, kind, 'a text part such as {"type": "text", "text": "..."}')


def _weight(weight: Any, field: str) -> float:
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if number and math.isfinite(weight) and weight >= 0:
        return float(weight)
    raise RowError(field, shown(weight), "a number from 0 (not trained) upwards")


def _name(turn: dict[str, Any], key: str, field: str) -> str | None:
    value = turn.get(key)
    if value is None or isinstance(value, str):
        return value
    raise RowError(f"{field}.{key}", shown(value), "text")


def _tool_calls(turn: dict[str, Any], field: str) -> list[dict[str, Any]]:
    if "function_call" in turn:
        return [{"type": "function", "function": _function(turn["function_call"], f"{field}.function_call")}]
    calls = json_list(turn.get("tool_calls"), f"{field}.tool_calls")
    made = []
    for i, call in enumerate(calls):
        place = f"{field}.tool_calls[{i}]"
        function = _function(call.get("function", call), f"{place}.function")
        rest = {k: v for k, v in call.items() if k in ("id", "type")}
        made.append({"type": "function", **rest, "function": function})
    return made


def _function(value: Any, field: str) -> dict[str, Any]:
    """``{"name", "arguments"}`` with the arguments as an object."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise RowError(field, shown(value), "an object with name and arguments")
    arguments = value.get("arguments", {})
    if isinstance(arguments, str):
        arguments = parsed(arguments, f"{field}.arguments") if arguments.strip() else {}
    if not isinstance(arguments, dict):
        raise RowError(f"{field}.arguments", shown(arguments), "an object, or JSON text of one")
    return {"name": value["name"], "arguments": without_nulls(arguments)}


PART = Format(
    name="chat",
    title="chat messages",
    columns=("messages", "tools", "label"),
    example='{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}',
    precedence=10,
    recognises=recognises,
    convert=convert,
)
