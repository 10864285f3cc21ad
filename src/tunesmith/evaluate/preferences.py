"""Of a system that tells better answers from worse ones: is its confidence to be trusted, and is it only length that it
sees?

Notable: a pair's confidence is the probability of the answer that the system chose, at least one half, so bins run from
one half to one (Guo et al., 2017). Reward models are known to favour length (Singhal et al., 2023): accuracy is told
apart for pairs whose better answer is longer and for those whose better answer is shorter.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from tunesmith.core.example import Example
from tunesmith.core.report import Bin, Estimate, Prediction, Preferences
from tunesmith.data.preferences import NEITHER, PAIR, longer_by
from tunesmith.evaluate.score import share

BINS = 5


class _Row(NamedTuple):
    said: str
    lead: int
    unit: int
    log_odds: float | None


def preferences(
    predictions: Sequence[Prediction], examples: Sequence[Example], units: Sequence[int] | None = None
) -> Preferences | None:
    """None where no row has two answers. ``units`` names the rows that belong together."""
    pairs = [
        _Row(p.answer, longer_by(e), unit, p.log_odds)
        for p, e, unit in zip(predictions, examples, units or range(len(examples)), strict=True)
        if e.rejected is not None
    ]
    if not pairs:
        return None
    when_longer, when_shorter = (_right([r for r in pairs if sign * r.lead > 0]) for sign in (1, -1))
    longer = share([r.lead > 0 for r in pairs], [r.unit for r in pairs])
    bins = _bins([r for r in pairs if r.log_odds is not None])
    counted = sum(b.accuracy.n for b in bins)
    error = sum(b.accuracy.n * abs(b.confidence - b.accuracy.value) for b in bins) / counted if bins else None
    return Preferences(
        bins=bins,
        error=error,
        longer=longer,
        when_longer=when_longer,
        when_shorter=when_shorter,
        sentence=_sentence(longer, when_longer, when_shorter) + _undecided([r.said for r in pairs].count(NEITHER)),
    )


def _right(rows: Sequence[_Row]) -> Estimate | None:
    return share([r.said == PAIR[0] for r in rows], [r.unit for r in rows]) if rows else None


def _bins(told: Sequence[_Row]) -> tuple[Bin, ...]:
    """Bins of equally many pairs, the least sure first."""
    sure = sorted(((1 / (1 + math.exp(-min(abs(r.log_odds or 0.0), 700.0))), r) for r in told), key=lambda s: s[:1])
    size = max(1, math.ceil(len(sure) / BINS))
    found = []
    for start in range(0, len(sure), size):
        part = sure[start : start + size]
        accuracy = _right([row for _, row in part])
        assert accuracy is not None  # no part is empty
        found.append(Bin(confidence=sum(c for c, _ in part) / len(part), accuracy=accuracy))
    return tuple(found)


def _undecided(count: int) -> str:
    return f" On {count:,} of them all it prefers neither answer, which counts as wrong." if count else ""


def _sentence(longer: Estimate, when_longer: Estimate | None, when_shorter: Estimate | None) -> str:
    told = f"In {longer.value:.0%} of {longer.n:,} pairs the better answer is the longer one."
    if when_longer is None or when_shorter is None:
        return told
    both = f"right on {when_longer.value:.0%} of those and on {when_shorter.value:.0%} of the others"
    if when_shorter.high < when_longer.low:
        return f"{told} The tuned model is {both}: it favours length."
    if when_longer.high < when_shorter.low:
        return f"{told} The tuned model is {both}: it favours shortness."
    return f"{told} The tuned model is {both}: these rows do not show that length decides."
