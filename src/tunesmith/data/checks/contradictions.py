"""The same input with different answers.

Notable: no model can be right on both, so their share bounds every score. Above 10% of the rows it stops the run;
several good answers to one question are legitimate when writing freely, and then ``data.allow`` says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.example import Example
from tunesmith.core.report import Finding, Severity
from tunesmith.data.checks._check import Check, Context, answered, asked, counted, cut, finding
from tunesmith.data.near import normalise

BLOCKING_SHARE = 0.1


def run(examples: Sequence[Example], context: Context) -> tuple[Finding, ...]:
    by_input: dict[str, list[Example]] = {}
    for example in examples:
        if (
            example.text is None and example.rejected is None and example.wanted is None
        ):  # which have a check of their own
            by_input.setdefault(asked(example), []).append(example)
    torn = [rows for rows in by_input.values() if len(rows) > 1 and len({_answer(e) for e in rows}) > 1]
    rows = [e for group in torn for e in group]
    share = len(rows) / max(1, len(examples))
    severity: Severity = "blocking" if share > BLOCKING_SHARE else "warning"
    message = (
        f"{counted(len(rows))} ({share:.1%}) give different answers to the same input, {counted(len(torn), 'input')} "
        "in all. Decide on one answer each, or remove them."
    )
    return finding("contradictions", severity, rows, message, [_sample(group) for group in torn])


def _answer(example: Example) -> str:
    return example.label if example.label is not None else normalise(answered(example))


def _sample(rows: list[Example]) -> str:
    answers = list(dict.fromkeys(cut(answered(e), 25) for e in rows))
    return f"{cut(rows[0].input_text, 60)} -> {' | '.join(answers[:3])}"


PART = Check("contradictions", "The same input with different answers", run)
