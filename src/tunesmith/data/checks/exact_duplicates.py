"""Rows that ask and answer the same, up to case, spaces and punctuation.

Notable: copies weigh a row more than meant and, spread over train and test, are answers learned by heart; the split
keeps them together. If every row is the same row, the run stops.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.example import Example
from tunesmith.core.report import Finding
from tunesmith.data.checks._check import Check, Context, Judgement, counted, finding, judgement


def run(examples: Sequence[Example], context: Context) -> tuple[Finding, ...]:
    seen: set[Judgement] = set()
    copies = []
    for example in examples:
        key = judgement(example)
        if key in seen:
            copies.append(example)
        seen.add(key)
    if copies and len(seen) == 1:
        return finding("exact_duplicates", "blocking", copies, f"All {len(examples):,} rows are the same row.")
    share = f"{len(copies) / max(1, len(examples)):.1%}"
    message = f"{counted(len(copies))} ({share}) repeat an earlier row, answer and all; remove them or mean it."
    return finding("exact_duplicates", "warning", copies, message)


PART = Check("exact_duplicates", "Rows that stand more than once", run)
