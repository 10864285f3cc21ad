"""What every check is: a name and a pure function from examples and context to findings.

Notable: a check counts all rows and names the first ones; texts in ``samples`` are cut short, since findings are
printed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunesmith.core.example import Example
from tunesmith.core.report import Finding, Severity
from tunesmith.data.near import normalise

MAX_ROWS = 100
MAX_SAMPLES = 5
CLOSED_SET = 100
Judgement = tuple[str, str, str | None, bool | None]


@dataclass(frozen=True, slots=True)
class Context:
    """What a check may know beyond the rows. Lengths are in tokens, one a row, empty before rendering."""

    task: str = "generate"
    token_lengths: tuple[int, ...] = ()
    answer_lengths: tuple[int, ...] = ()
    max_length: int | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """``doc`` says in one line what a finding means; ``run`` gives no finding when all is well."""

    name: str
    doc: str
    run: Callable[[Sequence[Example], Context], tuple[Finding, ...]]


def finding(
    check: str, severity: Severity, rows: Sequence[Example], message: str, samples: Sequence[str] = ()
) -> tuple[Finding, ...]:
    """One finding over ``rows``, or none when there are none. Samples default to the inputs of the first rows."""
    if not rows:
        return ()
    texts = samples or [e.input_text for e in rows[:MAX_SAMPLES]]
    ids = tuple(e.id for e in rows[:MAX_ROWS])
    shown = tuple(cut(t) for t in texts[:MAX_SAMPLES])
    return (Finding(check=check, severity=severity, count=len(rows), message=message, rows=ids, samples=shown),)


def cut(text: str, most: int = 120) -> str:
    """One line of at most ``most`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."


def counted(n: int, noun: str = "row") -> str:
    """
    >>> counted(1), counted(1200, "e-mail address")
    ('1 row', '1,200 e-mail addresses')
    """
    plural = "" if n == 1 else "es" if noun.endswith("s") else "s"
    return f"{n:,} {noun}{plural}"


def answered(example: Example) -> str:
    """The answer as it is trained: the label, the last turn's text, or its tool calls."""
    last = example.messages[-1] if example.messages and example.label is None else None
    calls = json.dumps(last.tool_calls, sort_keys=True) if last and last.tool_calls else ""
    return example.answer + calls


def asked(example: Example) -> str:
    """What decides whether two rows ask the same: system prompt and input in normal form."""
    system = "\n".join(m.content for m in example.messages if m.role == "system")
    return f"{normalise(system)}\0{normalise(example.input_text)}" if system else normalise(example.input_text)


def judgement(example: Example) -> Judgement:
    """What a row says: what is asked, its answer, the worse one beside it and whether the answer is wanted, in normal
    form."""
    worse = None if example.rejected is None else normalise(example.rejected.content)
    return asked(example), normalise(answered(example)), worse, example.wanted


def contrary(told: Judgement) -> Judgement | None:
    """The judgement that cannot stand beside ``told``; None where no answer is preferred or judged.

    >>> contrary(("who", "i", "you", None)), contrary(("who", "i", None, True)), contrary(("who", "i", None, None))
    (('who', 'you', 'i', None), ('who', 'i', None, False), None)
    """
    question, answer, worse, wanted = told
    if worse is not None:
        return None if worse == answer else (question, worse, answer, wanted)
    return None if wanted is None else (question, answer, None, not wanted)


def closed_set(examples: Sequence[Example]) -> dict[str, int]:
    """Answers by how often they stand, when they are labels or a small closed set; empty otherwise."""
    counts: dict[str, int] = {}
    for example in examples:
        answer = answered(example).strip()
        if answer:
            counts[answer] = counts.get(answer, 0) + 1
    labelled = bool(examples) and all(e.label is not None for e in examples)
    small = 1 <= len(counts) <= CLOSED_SET and sum(counts.values()) >= 5 * len(counts)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))) if labelled or small else {}


def everything(example: Example) -> str:
    """All text of a row, for searches."""
    return example.text if example.text is not None else "\n".join(m.content for m in example.messages)
