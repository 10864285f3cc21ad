"""Preferences that contradict each other, or are only a matter of length.

Notable: a pair that stands both ways round cannot be learned (one of equal answers is a bad row). Length bias is
told and not stopped: longer answers may be better, but a model that learns length alone passes on such a test, which is
why ``longer`` and ``shorter`` are among the baselines.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.example import Example
from tunesmith.core.report import Finding, Severity
from tunesmith.data.checks._check import Check, Context, asked, counted, cut, finding
from tunesmith.data.near import normalise

BIASED, ENOUGH = 0.6, 50  # share of pairs whose better answer is longer (or shorter), and pairs to tell it by
BLOCKING_SHARE = 0.1


def run(examples: Sequence[Example], context: Context) -> tuple[Finding, ...]:
    pairs = [(e, e.rejected.content) for e in examples if e.rejected is not None]
    empty = [e for e, worse in pairs if not worse.strip()]
    return (
        *finding("preferences", "warning", empty, f"{counted(len(empty), 'pair')} with an empty worse answer."),
        *_reversed(pairs, len(examples)),
        *_length(pairs),
    )


def _reversed(pairs: Sequence[tuple[Example, str]], rows: int) -> tuple[Finding, ...]:
    seen: dict[tuple[str, str, str], Example] = {}
    torn: list[Example] = []
    for example, worse in pairs:
        question, better, other = asked(example), normalise(example.answer), normalise(worse)
        first = seen.get((question, other, better))
        if first is not None and better != other:
            torn += [first, example]
        seen.setdefault((question, better, other), example)
    share = len(torn) / max(1, rows)
    severity: Severity = "blocking" if share > BLOCKING_SHARE else "warning"
    message = f"{counted(len(torn))} ({share:.1%}) prefer what another row rejects. Decide, remove them, or mark ties."
    return finding("preferences", severity, torn, message, [_sample(e) for e in torn])


def _length(pairs: Sequence[tuple[Example, str]]) -> tuple[Finding, ...]:
    uneven = [(e, len(e.answer) > len(worse)) for e, worse in pairs if len(e.answer) != len(worse)]
    if len(uneven) < ENOUGH:
        return ()
    longer = [e for e, more in uneven if more]
    share = len(longer) / len(uneven)
    if 1 - BIASED <= share <= BIASED:
        return ()
    word, rows = ("longer", longer) if share > BIASED else ("shorter", [e for e, more in uneven if not more])
    message = (
        f"In {len(rows) / len(uneven):.0%} of {len(uneven):,} pairs the better answer is the {word} one. A model can "
        f"learn length instead of quality; compare it with the baseline {word}."
    )
    return finding("preferences", "warning", rows, message)


def _sample(example: Example) -> str:
    worse = example.rejected.content if example.rejected is not None else ""
    return f"{cut(example.input_text, 60)} -> {cut(example.answer, 25)} > {cut(worse, 25)}"


PART = Check("preferences", "Empty, reversed or length-biased preferences", run)
