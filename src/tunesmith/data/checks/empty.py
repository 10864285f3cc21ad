"""Rows with nothing to learn: an empty answer, no trained turn, or an empty input.

Notable: an empty answer is blocking, because training on it teaches the model to say nothing, with a normal-looking
loss.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.example import Example
from tunesmith.core.report import Finding
from tunesmith.data.checks._check import Check, Context, answered, counted, finding


def run(examples: Sequence[Example], context: Context) -> tuple[Finding, ...]:
    answers = [e for e in examples if not (answered(e) if e.text is None else e.text).strip()]
    inputs = [e for e in examples if e.text is None and not e.input_text.strip()]
    untrained = [e for e in examples if context.task == "generate" and _all_weights_zero(e)]
    return (
        *finding(
            "empty",
            "blocking",
            answers,
            f"{counted(len(answers))} with an empty answer: nothing to learn from. Fill them in or remove them.",
        ),
        *finding(
            "empty",
            "blocking",
            untrained,
            f"{counted(len(untrained))} in which every assistant turn has weight 0; no token of them is trained.",
        ),
        *finding("empty", "warning", inputs, f"{counted(len(inputs))} with an empty input."),
    )


def _all_weights_zero(example: Example) -> bool:
    weights = [m.weight for m in example.messages if m.role == "assistant"]
    return bool(weights) and not any(weights)


PART = Check("empty", "Rows with nothing to learn", run)
