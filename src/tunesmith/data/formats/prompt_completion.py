"""Prompt and completion, under these names, under the usual others (question/answer, ...), or through ``columns:``.

Notable: both may also be lists of chat messages, as TRL's conversational form has them.
"""

from __future__ import annotations

from tunesmith.core.example import Example, Message
from tunesmith.data.formats._row import Format, Row
from tunesmith.data.formats.chat import turns

PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("query", "answer"),
    ("input", "output"),
    ("instruction", "response"),
)


def _names(row: Row) -> tuple[str, str]:
    """The file's columns for prompt and completion: those of ``columns:``, else the first usual pair in the row."""
    if "prompt" in row.columns and "completion" in row.columns:
        return row.columns["prompt"], row.columns["completion"]
    usual = (pair for pair in PAIRS if pair[0] in row.value and pair[1] in row.value)
    first, second = next(usual, ("prompt", "completion"))
    return row.columns.get("prompt", first), row.columns.get("completion", second)


def recognises(row: Row) -> str | None:
    prompt, completion = _names(row)
    if prompt in row.value and completion in row.value:
        return f"`{prompt}` and `{completion}`"
    return None


def convert(row: Row, task: str) -> Example:
    prompt, completion = _names(row)
    row = Row(row.value, row.place, {**row.columns, "prompt": prompt, "completion": completion}, row.group_by)
    messages = [Message(role="system", content=system)] if (system := row.optional("system")) else []
    asked, answered = row.get("prompt"), row.get("completion")
    if isinstance(asked, list):
        messages += turns(asked, prompt)
    else:
        messages.append(Message(role="user", content=row.text("prompt")))
    if isinstance(answered, list):
        messages += turns(answered, completion)
    else:
        messages.append(Message(role="assistant", content=row.text("completion")))
    return row.conversation(messages, task)


PART = Format(
    name="prompt_completion",
    title="prompts and completions",
    columns=("prompt", "completion", "system", "tools"),
    example='{"prompt": "...", "completion": "..."}',
    precedence=40,
    recognises=recognises,
    convert=convert,
)
