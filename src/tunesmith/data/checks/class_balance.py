"""How the rows spread over the labels, or over the answers when these are a small closed set.

Notable: with one label there is nothing to learn, and that stops a ``classify`` run; a large imbalance makes accuracy
easy and macro-F1 the number to watch.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.example import Example
from tunesmith.core.report import Finding, Severity
from tunesmith.data.checks._check import Check, Context, answered, closed_set, counted, cut, finding

FEW = 5
MAJORITY = 0.8


def run(examples: Sequence[Example], context: Context) -> tuple[Finding, ...]:
    counts = closed_set(examples)
    if not counts:
        return ()
    if len(counts) == 1:
        only = next(iter(counts))
        severity: Severity = "blocking" if context.task == "classify" else "warning"
        message = (
            f'Every row has the answer "{cut(only, 40)}"; there is nothing to tell apart. Add rows of other classes.'
        )
        return finding("class_balance", severity, list(examples), message)
    top, most = next(iter(counts.items()))
    rare = {label for label, n in counts.items() if n < FEW}
    majority = [e for e in examples if answered(e).strip() == top] if most > MAJORITY * len(examples) else []
    few = [e for e in examples if answered(e).strip() in rare]
    share = f"{most / len(examples):.0%}"
    easy = f'{share} of the rows have the answer "{cut(top, 40)}"; always saying it scores {share}. Watch macro_f1.'
    names = [f"{cut(label, 60)}: {counted(counts[label])}" for label in counts if label in rare][::-1]
    thin = f"{counted(len(rare), 'class')} of {len(counts):,} with fewer than {FEW} rows; expect little of them."
    return (
        *finding("class_balance", "warning", majority, easy),
        *finding("class_balance", "warning", few, thin, names),
    )


PART = Check("class_balance", "How rows spread over the labels", run)
