"""Judged answers: a prompt, an answer, and whether it is wanted (KTO's rows).

Notable: they need no pairs, so thumbs up and down from a running service will do. For ``task: generate`` a row that is
not wanted is a bad row: nobody should learn to write it.
"""

from __future__ import annotations

from tunesmith.core.example import Example
from tunesmith.data.formats import prompt_completion
from tunesmith.data.formats._row import Format, Row, truth
from tunesmith.data.rows import RowError, shown


def recognises(row: Row) -> str | None:
    found = prompt_completion.recognises(row)
    return f"{found} and `{row.column('label')}` of true or false" if found and _judgement(row) is not None else None


def _judgement(row: Row) -> bool | None:
    """As true or false, as 1 or 0, or as a table writes them."""
    return truth(row.get("label"))


def convert(row: Row, task: str) -> Example:
    wanted = _judgement(row)
    if wanted is None:
        raise RowError(row.column("label"), shown(row.get("label")), "true (wanted) or false (not wanted)")
    if task == "generate" and not wanted:
        raise RowError(row.column("label"), "false, an answer that is not wanted", "answers to learn, or task: prefer")
    example = prompt_completion.convert(row, task)
    return example if task == "classify" else example.model_copy(update={"wanted": wanted})


PART = Format(
    name="judged",
    title="judged answers",
    columns=("prompt", "completion", "label", "system", "tools"),
    example='{"prompt": "...", "completion": "...", "label": true}',
    precedence=35,
    recognises=recognises,
    convert=convert,
    task="prefer",
    objective="kto",
)
