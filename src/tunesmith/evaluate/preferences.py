"""Of a system that tells better answers from worse ones: is its confidence to be trusted, and is it only length that it
sees?

Notable: a pair's confidence is the probability of the answer that the system chose, at least one half, so bins run from
one half to one (Guo et al., 2017). Reward models are known to favour length (Singhal et al., 2023): accuracy is told
apart for pairs whose better answer is longer and for those whose better answer is shorter.
"""

import math
from collections.abc import Sequence

from tunesmith.core.example import Example
from tunesmith.core.report import Bin, Estimate, Prediction, Preferences
from tunesmith.data.preferences import PAIR, longer_by
from tunesmith.evaluate.score import wilson

BINS = 5


def preferences(predictions: Sequence[Prediction], examples: Sequence[Example]) -> Preferences | None:
    """None where no row has two answers."""
    pairs = [(p, e) for p, e in zip(predictions, examples, strict=True) if e.rejected is not None]
    if not pairs:
        return None
    right = [p.answer == PAIR[0] for p, _ in pairs]
    lead = [longer_by(e) for _, e in pairs]
    when_longer = _share([r for r, more in zip(right, lead, strict=True) if more > 0])
    when_shorter = _share([r for r, more in zip(right, lead, strict=True) if more < 0])
    longer = _share([more > 0 for more in lead])
    assert longer is not None  # there are pairs
    bins = _bins([(p.log_odds, r) for (p, _), r in zip(pairs, right, strict=True) if p.log_odds is not None])
    counted = sum(b.accuracy.n for b in bins)
    error = sum(b.accuracy.n * abs(b.confidence - b.accuracy.value) for b in bins) / counted if bins else None
    return Preferences(
        bins=bins,
        error=error,
        longer=longer,
        when_longer=when_longer,
        when_shorter=when_shorter,
        sentence=_sentence(longer, when_longer, when_shorter),
    )


def _share(hits: Sequence[bool]) -> Estimate | None:
    if not hits:
        return None
    value = sum(hits) / len(hits)
    low, high = wilson(value, len(hits))
    return Estimate(value=value, low=low, high=high, n=len(hits))


def _bins(told: Sequence[tuple[float, bool]]) -> tuple[Bin, ...]:
    """Bins of equally many pairs, the least sure first."""
    sure = sorted((1 / (1 + math.exp(-min(abs(odds), 700.0))), right) for odds, right in told)
    size = max(1, math.ceil(len(sure) / BINS))
    found = []
    for start in range(0, len(sure), size):
        part = sure[start : start + size]
        accuracy = _share([right for _, right in part])
        assert accuracy is not None  # no part is empty
        found.append(Bin(confidence=sum(c for c, _ in part) / len(part), accuracy=accuracy))
    return tuple(found)


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
