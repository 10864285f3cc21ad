"""Rows longer than the model takes, in tokens.

Notable: cutting a row eats its end, and the end is the answer. Rows whose answer alone does not fit stop the run; the
others are cut in the prompt. Without ``answer_lengths`` an answer's tokens are taken as its share of the row's
characters.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.example import Example
from tunesmith.core.report import Finding
from tunesmith.data.checks._check import Check, Context, answered, counted, everything, finding


def run(examples: Sequence[Example], context: Context) -> tuple[Finding, ...]:
    most = context.max_length
    if most is None or len(context.token_lengths) != len(examples):
        return ()
    long = [(i, e) for i, e in enumerate(examples) if context.token_lengths[i] > most]
    hopeless = [e for i, e in long if e.text is None and _answer_tokens(i, e, context) >= most]
    lost = {e.id for e in hopeless}
    cut = [e for _, e in long if e.id not in lost]
    longest = max(context.token_lengths, default=0)
    whole = (
        f"{counted(len(hopeless))} whose answer alone is longer than the {most:,} tokens that fit. "
        "Shorten the answers, raise train.max_length, or use a model with a longer context."
    )
    some = (
        f"{counted(len(cut))} ({len(cut) / max(1, len(examples)):.1%}) above {most:,} tokens (longest: {longest:,}) "
        "are cut. Raise train.max_length if the model's context allows."
    )
    return (*finding("lengths", "blocking", hopeless, whole), *finding("lengths", "warning", cut, some))


def _answer_tokens(index: int, example: Example, context: Context) -> float:
    if example.label is not None:
        return 0
    if len(context.answer_lengths) == len(context.token_lengths):
        return context.answer_lengths[index]
    answer, rest = len(answered(example)), len(everything(example))
    return context.token_lengths[index] * answer / max(1, answer, rest)


PART = Check("lengths", "Rows longer than the model takes", run)
