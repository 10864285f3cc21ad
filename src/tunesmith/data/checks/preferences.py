"""Preferences that contradict each other or their own scores, or are only a matter of length.

Notable: a pair that stands both ways round cannot be learned (one of equal answers is a bad row), nor an answer that is
judged wanted and not wanted; ties, which have no better answer, contradict nothing. Length bias is told and not
stopped: longer answers may be better, but a model that learns length alone passes on such a test, which is
why ``longer`` and ``shorter`` are among the baselines.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.example import Example
from tunesmith.core.report import Finding, Severity
from tunesmith.data.checks._check import Check, Context, contrary, counted, cut, finding, judgement

BIASED, ENOUGH = 0.6, 50  # share of pairs whose better answer is longer (or shorter), and pairs to tell it by
BLOCKING_SHARE = 0.1


def run(examples: Sequence[Example], context: Context) -> tuple[Finding, ...]:
    pairs = [(e, e.rejected.content) for e in examples if e.rejected is not None]
    decided = [(e, worse) for e, worse in pairs if not e.tie]
    judged = [e for e in examples if e.wanted is not None]
    empty = [e for e, worse in pairs if not worse.strip()]
    return (
        *finding("preferences", "warning", empty, f"{counted(len(empty), 'pair')} with an empty worse answer."),
        *_torn([e for e, _ in decided], len(examples), "prefer what another row rejects", ", or mark ties"),
        *_torn(judged, len(examples), "have an answer that another row judges the other way, as wanted or not"),
        *(_alike(judged) if context.task == "prefer" else ()),
        *_scores([e for e, _ in decided]),
        *_length(decided),
    )


def _torn(rows: Sequence[Example], of: int, what: str, more: str = "") -> tuple[Finding, ...]:
    told = [judgement(e) for e in rows]
    said = set(told)
    torn = [e for e, mine in zip(rows, told, strict=True) if contrary(mine) in said]
    message = f"{_counted(torn, of)} {what}. Decide, or remove them{more}."
    return finding("preferences", _severity(torn, of), torn, message, [_sample(e) for e in torn])


def _alike(judged: Sequence[Example]) -> tuple[Finding, ...]:
    if len({e.wanted for e in judged}) != 1:
        return ()
    word, other = ("wanted", "not wanted") if judged[0].wanted else ("not wanted", "wanted")
    message = (
        f"All {len(judged):,} answers are judged {word}: nothing tells one kind from the other. Add answers that are "
        f"{other}."
    )
    return finding("preferences", "warning", judged, message)


def _scores(pairs: Sequence[Example]) -> tuple[Finding, ...]:
    """Pairs whose scores (UltraFeedback's) say something else than the order of their answers."""
    scored = [(e, *e.scores) for e in pairs if e.scores is not None]
    against = [e for e, better, worse in scored if better < worse]
    equal = [e for e, better, worse in scored if better == worse]
    wrong = (
        f"{_counted(against, len(pairs))} score the worse answer higher than the better one (score_chosen below "
        "score_rejected). Put the answers the other way round, correct the scores, or remove the rows."
    )
    even = (
        f"{_counted(equal, len(pairs))} score both answers alike, and one is learned as the better one. Mark them with "
        "tie: true, or remove them."
    )
    told = _severity(against, len(pairs))
    return (
        *finding("preferences", told, against, wrong, [_sample(e) for e in against]),
        *finding("preferences", "warning", equal, even, [_sample(e) for e in equal]),
    )


def _counted(rows: Sequence[Example], of: int) -> str:
    return f"{counted(len(rows))} ({len(rows) / max(1, of):.1%})"


def _severity(rows: Sequence[Example], of: int) -> Severity:
    return "blocking" if len(rows) > BLOCKING_SHARE * of else "warning"


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
    told = f"{cut(example.input_text, 60)} -> {cut(example.answer, 25)}"
    if example.rejected is None:
        return f"{told}: {'wanted' if example.wanted else 'not wanted'}"
    return f"{told} > {cut(example.rejected.content, 25)}"


PART = Check("preferences", "Empty, contradictory or length-biased preferences", run)
