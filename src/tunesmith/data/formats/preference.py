"""Preferences: two answers to one prompt, the better one and the worse one.

Notable: OpenAI's rows (``input``, ``preferred_output``, ``non_preferred_output``), ``prompt`` with ``chosen`` and
``rejected`` as texts or as messages (UltraFeedback, TRL), ``instruction`` in the prompt's place (Alpaca), and two whole
transcripts, as messages or as Anthropic's text of "Human:" and "Assistant:" turns, are one thing here: turns that both
share, and one turn each. For ``task: generate`` the better answer alone is learned.
"""

from __future__ import annotations

import contextlib
import math
import re
from typing import Any

from tunesmith.core.example import Example, Message
from tunesmith.data.formats._row import Format, Row, parsed, truth
from tunesmith.data.formats.chat import turns
from tunesmith.data.rows import RowError, listed, shown

ANSWERS = (("preferred_output", "non_preferred_output"), ("chosen", "rejected"))
PROMPTS = ("input", "prompt", "instruction", "question")
SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


def _answers(row: Row) -> tuple[str, str]:
    """The file's columns of the better and the worse answer."""
    if "chosen" in row.columns or "rejected" in row.columns:
        return row.column("chosen"), row.column("rejected")
    return next((pair for pair in ANSWERS if set(pair) <= set(row.value)), ANSWERS[1])


def _prompt(row: Row) -> str | None:
    """The file's column of the prompt; None where the answers are whole transcripts."""
    if "prompt" in row.columns:
        return row.columns["prompt"]
    found = [name for name in PROMPTS if row.value.get(name) not in (None, "")]
    return "instruction" if "instruction" in found else found[0] if found else None


def recognises(row: Row) -> str | None:
    better, worse = _answers(row)
    return f"`{better}` and `{worse}`" if {better, worse} <= set(row.value) else None


def convert(row: Row, task: str) -> Example:
    better, worse = _answers(row)
    asked = _asked(row)
    chosen, rejected = (_turns(row.value.get(name), name) for name in (better, worse))
    if len(chosen) == len(rejected) > 1 or not asked:
        if chosen[:-1] != rejected[:-1]:
            raise RowError(worse, "turns that differ before the last one", f"the turns of {better} up to the answer")
        said = [m.content.strip() for m in asked if m.role != "system"]
        if said and said[-1] not in [m.content.strip() for m in chosen[-2:-1]]:
            raise RowError(
                _prompt(row) or "prompt", "other words than the last question in the answers' turns", "the same"
            )
        asked = [m for m in asked if m.role == "system"] + chosen[:-1]
        chosen, rejected = chosen[-1:], rejected[-1:]
    for name, answer in ((better, chosen), (worse, rejected)):
        if len(answer) != 1 or answer[0].role != "assistant" or answer[0].tool_calls:
            roles = listed([m.role for m in answer])
            raise RowError(name, f"turns by {roles or 'nobody'}", "one answer by assistant, as text")
    if not asked:
        raise RowError(
            "prompt", f"no prompt (there are: {listed(row.value, 8)})", "a prompt, or turns before the answer"
        )
    held = row.value.get("input")
    if isinstance(held, dict) and row.get("tools") is None:  # OpenAI's rows keep tools beside the messages
        row = Row({**row.value, row.column("tools"): held.get("tools")}, row.place, row.columns, row.group_by)
    example = row.conversation([*asked, chosen[0]], task)
    if task == "classify":
        return example
    tie = _tie(row)
    if task == "prefer" and not tie and chosen[0].content.strip() == rejected[0].content.strip():
        raise RowError(worse, f"the text of {better} once more", "another answer (or tie: true)")
    more = {"rejected": rejected[0], "margin": _margin(row), "tie": tie, "scores": _scores(row)}
    return example.model_copy(update=more)


def _asked(row: Row) -> list[Message]:
    """The turns before the answers, as far as they have a column of their own."""
    name = _prompt(row)
    system = [Message(role="system", content=text)] if (text := row.optional("system")) else []
    if name is None:
        return system
    value = row.value[name]
    if isinstance(value, dict):
        value = value.get("messages")
    if isinstance(value, list):
        return system + turns(value, name)
    if not isinstance(value, str):
        raise RowError(name, shown(value), "text, or messages")
    if SPEAKER.match(value):
        return system + _transcript(value, name)
    extra = row.value.get("input") if name == "instruction" else None
    text = f"{value}\n\n{extra}" if isinstance(extra, str) and extra.strip() else value
    return [*system, Message(role="user", content=text)]


def _turns(value: Any, name: str) -> list[Message]:
    if isinstance(value, str) and value[:2] == "[{":
        value = parsed(value, name)
    if isinstance(value, list):
        return turns(value, name)
    if not isinstance(value, str):
        raise RowError(name, shown(value), "text, or messages")
    if SPEAKER.match(value) and "Assistant:" in value:
        return _transcript(value, name)
    return [Message(role="assistant", content=value)]


def _transcript(text: str, name: str) -> list[Message]:
    """Anthropic's transcripts: turns that begin with "Human:" or "Assistant:" after a blank line."""
    before, *rest = SPEAKER.split(text)
    if before.strip():
        raise RowError(name, shown(before), 'a transcript that begins with "Human:" or "Assistant:"')
    roles = ("user" if who == "Human" else "assistant" for who in rest[0::2])
    found = [Message(role=role, content=said.strip()) for role, said in zip(roles, rest[1::2], strict=True)]
    return found[:-1] if found[-1].role == "assistant" and not found[-1].content and name in PROMPTS else found


def _margin(row: Row) -> float:
    """By how much the better answer is better: ``margin``, 0 where it is not given."""
    value = row.get("margin")
    if value is None or value == "":
        return 0.0
    number = _number(value)
    if number is not None and number >= 0:
        return number
    raise RowError(row.column("margin"), shown(value), "a number from 0 upwards")


def _scores(row: Row) -> tuple[float, float] | None:
    """UltraFeedback's scores of both answers, which are checked and not learned from; None unless both are numbers."""
    better, worse = (_number(row.get(name)) for name in ("score_chosen", "score_rejected"))
    return None if better is None or worse is None else (better, worse)


def _number(value: Any) -> float | None:
    """A finite number, also as the text that a table has."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def _tie(row: Row) -> bool:
    value = row.get("tie")
    if value is None or value == "":
        return False
    found = truth(value)
    if found is not None:
        return found
    raise RowError(row.column("tie"), shown(value), "true or false")


PART = Format(
    name="preference",
    title="preferences",
    columns=("prompt", "chosen", "rejected", "system", "margin", "tie", "score_chosen", "score_rejected"),
    example='{"prompt": "...", "chosen": "...", "rejected": "..."}',
    precedence=5,
    recognises=recognises,
    convert=convert,
    task="prefer",
)
