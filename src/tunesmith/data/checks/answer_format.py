"""Answers that break the form nearly all others have: JSON with the same keys, or one of a few fixed answers.

Notable: a handful of rows in another form teaches the model that the form is optional. Labels that differ in case or
spaces alone are found here too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from tunesmith.core.errors import did_you_mean
from tunesmith.core.example import Example
from tunesmith.core.report import Finding
from tunesmith.data.checks._check import Check, Context, answered, counted, cut, finding
from tunesmith.data.near import normalise

NEARLY_ALL = 0.8


def run(examples: Sequence[Example], context: Context) -> tuple[Finding, ...]:
    rows = [e for e in examples if e.text is None and answered(e).strip()]
    if len(rows) < 5:
        return ()
    return _json(rows) or _closed(rows)


def _json(rows: list[Example]) -> tuple[Finding, ...]:
    keys = [_keys(e.answer) for e in rows]
    objects = [k for k in keys if k is not None]
    if len(objects) < NEARLY_ALL * len(rows):
        return ()
    usual, count = Counter(objects).most_common(1)[0]
    broken = [e for e, k in zip(rows, keys, strict=True) if k is None]
    share = f"{len(objects) / len(rows):.0%} of the answers are JSON objects"
    found = finding("answer_format", "warning", broken, f"{share}; {counted(len(broken))} not.", _answers(broken))
    if count >= NEARLY_ALL * len(objects):
        other = [e for e, k in zip(rows, keys, strict=True) if k is not None and k != usual]
        message = f"{counted(len(other))} with other JSON keys than the usual {', '.join(sorted(usual)) or 'none'}."
        found += finding("answer_format", "warning", other, message, _answers(other))
    return found


def _keys(answer: str) -> frozenset[str] | None:
    if not answer.lstrip().startswith("{"):
        return None
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return frozenset(value) if isinstance(value, dict) else None


def _closed(rows: list[Example]) -> tuple[Finding, ...]:
    counts = Counter(answered(e).strip() for e in rows)
    forms: dict[str, list[str]] = {}
    for answer, _ in counts.most_common():
        forms.setdefault(normalise(answer), []).append(answer)
    enough = max(3, 0.02 * max(counts.values()))
    usual = {form for form, answers in forms.items() if sum(counts[a] for a in answers) >= enough}
    inside = sum(counts[a] for form in usual for a in forms[form])
    if len(usual) > 100 or inside < 0.95 * len(rows):
        return ()
    names = [forms[form][0] for form in usual]
    outside = {a for form, answers in forms.items() if form not in usual for a in answers}
    variants = {a for form in usual for a in forms[form][1:]}
    odd = [e for e in rows if answered(e).strip() in outside]
    varied = [e for e in rows if answered(e).strip() in variants]
    message = (
        f"{counted(len(odd))} with an answer outside the {len(usual):,} usual ones. Misspelt, or too rare to learn?"
    )
    samples = [f"{cut(answered(e), 40)}{did_you_mean(answered(e).strip(), names)}" for e in odd[:5]]
    alike = f"{counted(len(varied))} with an answer that differs from a usual one in case, spaces or punctuation alone."
    return (
        *finding("answer_format", "warning", odd, message, samples),
        *finding("answer_format", "warning", varied, alike, _answers(varied)),
    )


def _answers(rows: list[Example]) -> list[str]:
    return [answered(e) for e in rows[:5]]


PART = Check("answer_format", "Answers in another form than nearly all others", run)
