"""Fewer rows than anything can be learned from, or proven with.

Notable: one row cannot be split, so it stops the run; below twenty the test holds two or three rows and no verdict
can follow.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.example import Example
from tunesmith.core.report import Finding
from tunesmith.data.checks._check import Check, Context, counted, finding

FEW = 20


def run(examples: Sequence[Example], context: Context) -> tuple[Finding, ...]:
    rows = list(examples)
    if len(rows) == 1:
        return finding(
            "too_few", "blocking", rows, "There is one row; train, dev and test need rows of their own. Add rows."
        )
    if len(rows) < FEW:
        message = f"There are {counted(len(rows))}; expect no proof from so few. A few hundred are a beginning."
        return finding("too_few", "warning", rows, message)
    return ()


PART = Check("too_few", "Too few rows to learn from or to prove with", run)
