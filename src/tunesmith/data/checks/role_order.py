"""Conversations whose turns come in an order that no chat has.

Notable: most chat templates render such rows without a word, and what is then trained is not what will be asked. A
row for ``generate`` that does not end with the assistant has no answer, and that stops the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from tunesmith.core.example import Example
from tunesmith.core.report import Finding
from tunesmith.data.checks._check import Check, Context, counted, finding


def run(examples: Sequence[Example], context: Context) -> tuple[Finding, ...]:
    unanswered = [
        e for e in examples if context.task == "generate" and e.messages and e.messages[-1].role != "assistant"
    ]
    found: dict[str, list[Example]] = {}
    for example in examples:
        for fault in _faults(example):
            found.setdefault(fault, []).append(example)
    no_answer = f"{counted(len(unanswered))} whose last turn is not the assistant's: there is no answer to learn."
    warnings = [
        f
        for fault, rows in found.items()
        for f in finding("role_order", "warning", rows, f"{counted(len(rows))} {fault}.")
    ]
    return (*finding("role_order", "blocking", unanswered, no_answer), *warnings)


def _faults(example: Example) -> list[str]:
    roles = [m.role for m in example.messages]
    if not roles:
        return []
    faults = []
    if roles.count("system") > 1:
        faults.append("with more than one system turn")
    if "system" in roles[1:] and roles.count("system") == 1:
        faults.append("with a system turn that is not the first")
    spoken = [r for r in roles if r != "system"]
    if spoken[:1] == ["assistant"]:
        faults.append("in which the assistant speaks first")
    if any(a == b and a != "tool" for a, b in pairwise(spoken)):
        faults.append("with two turns in a row by the same role")
    before = zip(["system", *spoken], spoken, strict=False)
    if any(now == "tool" and then not in ("assistant", "tool") for then, now in before):
        faults.append("with a tool turn that follows no assistant turn")
    return faults


PART = Check("role_order", "Turns in an order that no chat has", run)
