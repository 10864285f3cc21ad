"""Rows for the reader's eye: which answers are confused with which, and which rows were won and lost.

Notable: ties are broken by row order, so the same predictions always show the same rows.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.example import Example
from tunesmith.core.recipe import Task
from tunesmith.core.report import Confusion, Prediction, RowOutcome
from tunesmith.data.checks.private_data import without_private_data
from tunesmith.evaluate.extract import first_object, squash, whole_object
from tunesmith.evaluate.forms import answer_form, closed_fields, shown
from tunesmith.evaluate.score import find_metric, row_scores

SHOWN_LABELS = 15
SHOWN_ROWS = 8
SHOWN_CHARACTERS = 500
PART_OF_INPUT = 160  # of the question and of each answer, where two are compared
OTHER = "(other)"
INVALID = "(invalid)"


@dataclass(frozen=True, slots=True)
class Outcomes:
    """At most eight rows each: lowest and highest score of the tuned system, and where it did better or worse than the
    best baseline."""

    worst: tuple[RowOutcome, ...]
    best: tuple[RowOutcome, ...]
    wins: tuple[RowOutcome, ...]
    losses: tuple[RowOutcome, ...]


def confusions(
    answers: Sequence[str], references: Sequence[str], task: Task, known: Sequence[str] = ()
) -> tuple[Confusion, ...]:
    """One table for labels and closed answers, one for each closed field of JSON answers, none for open text.

    The 15 commonest reference values are shown; the rest count as "(other)", answers outside every known value as
    "(invalid)". ``known`` is the closed set of answers (``forms.known_answers``).

    >>> confusions(["yes", "no", "perhaps"], ["yes", "yes", "no"], "classify")[0].counts
    ((1, 1, 0), (0, 0, 1), (0, 0, 0))
    """
    form = "closed" if known else answer_form(references, task)
    if form == "open" or (task == "prefer" and len(set(references)) < 2):  # two answers: there is one right word
        return ()
    if form == "closed":
        found: list[str | None] = [squash(a) for a in answers]
        return (_table("label" if task == "classify" else "answer", [squash(r) for r in references], found, known),)
    pairs = [(whole_object(r), first_object(a)) for r, a in zip(references, answers, strict=True)]
    return tuple(_field_table(key, values, pairs) for key, values in closed_fields(references).items())


def _field_table(
    key: str, values: Sequence[str], pairs: Sequence[tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]]
) -> Confusion:
    rows = [(e, f or {}) for e, f in pairs if e is not None and key in e]
    expected = [shown(e[key]) for e, _ in rows]
    return _table(key, expected, [shown(f[key]) if key in f else None for _, f in rows], values)


def _table(field: str, expected: Sequence[str], found: Sequence[str | None], known: Sequence[str]) -> Confusion:
    counts = Counter(expected)
    top = sorted(counts, key=lambda value: (-counts[value], value))[:SHOWN_LABELS]
    allowed = {*map(squash, known), *counts}
    pairs = Counter(
        (e if e in top else OTHER, f if f in top else OTHER if f in allowed else INVALID)
        for e, f in zip(expected, found, strict=True)
    )
    extra = [label for label in (OTHER, INVALID) if any(label in pair for pair in pairs)]
    axis = (*top, *extra)
    return Confusion(
        field=field, labels=axis, counts=tuple(tuple(pairs[row, column] for column in axis) for row in axis)
    )


def outcomes(
    metric: str,
    tuned: Sequence[Prediction],
    baseline: Sequence[Prediction],
    examples: Sequence[Example],
    references: Sequence[str],
) -> Outcomes:
    """Rows picked by ``metric`` of each row alone; where it needs a likelihood that the baseline lacks, pick by
    token_f1 instead."""
    part = find_metric(metric)
    if part.needs == "likelihood" and any(p.nll is None for p in (*tuned, *baseline)):
        return outcomes("token_f1", tuned, baseline, examples, references)
    sign = 1 if part.higher_is_better else -1
    own, bar = row_scores(metric, tuned, references), row_scores(metric, baseline, references)
    rows = [
        RowOutcome(
            id=example.id,
            input=_cut(example.input_text if references[n] == example.answer else _judged(example)),
            expected=_cut(references[n]),
            tuned=_cut(tuned[n].answer),
            baseline=_cut(baseline[n].answer),
            tuned_score=float(own[n]),
            baseline_score=float(bar[n]),
        )
        for n, example in enumerate(examples)
    ]
    gain = sign * (own - bar)
    by_score = sorted(range(len(rows)), key=lambda n: sign * own[n])
    by_best = sorted(range(len(rows)), key=lambda n: -sign * own[n])
    by_gain = sorted(range(len(rows)), key=lambda n: -gain[n])
    by_loss = sorted(range(len(rows)), key=lambda n: gain[n])
    return Outcomes(
        worst=tuple(rows[n] for n in by_score[:SHOWN_ROWS]),
        best=tuple(rows[n] for n in by_best[:SHOWN_ROWS]),
        wins=tuple(rows[n] for n in by_gain[:SHOWN_ROWS] if gain[n] > 0),
        losses=tuple(rows[n] for n in by_loss[:SHOWN_ROWS] if gain[n] < 0),
    )


def _judged(example: Example) -> str:
    """What was asked and what was answered, for the reader to judge or to prefer: the beginning of each."""
    texts = {"": example.input_text, "answer: ": example.answer}
    if example.rejected is not None:
        texts = {"": example.input_text, "chosen: ": example.answer, "rejected: ": example.rejected.content}
    return "\n\n".join(f"{name}{text[:PART_OF_INPUT]}" for name, text in texts.items())


def _cut(text: str) -> str:
    """What a report shows of a text: its beginning, private data masked."""
    text = without_private_data(text[: 2 * SHOWN_CHARACTERS])
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"
