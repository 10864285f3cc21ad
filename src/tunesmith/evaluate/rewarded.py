"""Of a policy that learned from rewards: how often it wins, and signs that it learned to please the reward alone.

Notable: a policy finds what its reward overlooks (Gao et al., 2023, arXiv 2210.10760). Four things are looked at: the
distance from the reference, the length of answers, repetition, and whether a judge that trained nothing agrees.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from tunesmith.core.report import Estimate, Prediction, Rewarded, RolloutPoint
from tunesmith.evaluate.score import wilson

FAR = 10.0  # nats an answer from the reference
LONGER = 1.5  # times as long, or as short
REPEATS = 0.1  # more of an answer repeats itself
CUT = 0.1  # of the answers are cut off
TENTH = 10


def rewarded(
    tuned: str, predictions: Mapping[str, Sequence[Prediction]], points: Sequence[RolloutPoint], compared: str
) -> Rewarded:
    """``predictions`` of all systems on the locked test; ``compared`` is the one that training began as."""
    own = predictions[tuned]
    others = {name: found for name, found in predictions.items() if name != tuned}
    return Rewarded(
        points=tuple(points),
        wins=_wins([p.reward for p in own], {n: [p.reward for p in f] for n, f in others.items()}),
        judged_wins=_wins([p.judged for p in own], {n: [p.judged for p in f] for n, f in others.items()}),
        signs=tuple(_signs(own, predictions[compared], points, compared)),
        sentence=_sentence(points),
    )


def _wins(own: Sequence[float | None], others: Mapping[str, Sequence[float | None]]) -> dict[str, Estimate]:
    """Share of rows that ``own`` wins against each of ``others``, where both have a value."""
    found = {}
    for name, theirs in others.items():
        pairs = [(a, b) for a, b in zip(own, theirs, strict=True) if a is not None and b is not None]
        if pairs:
            value = fmean(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs)
            low, high = wilson(value, len(pairs))
            found[name] = Estimate(value=value, low=low, high=high, n=len(pairs))
    return found


def _signs(
    own: Sequence[Prediction], before: Sequence[Prediction], points: Sequence[RolloutPoint], compared: str
) -> list[str]:
    signs: list[str] = []
    first, last = (points[: len(points) // TENTH + 1], points[-(len(points) // TENTH + 1) :]) if points else ([], [])
    far = [p.kl for p in last if p.kl is not None]
    if far and fmean(far) > FAR:
        signs.append(
            f"the policy is {fmean(far):.1f} nats an answer away from its reference; more than {FAR:g} is far."
        )
    now, then = fmean(p.new_tokens for p in own), fmean(p.new_tokens for p in before)
    if not 1 / LONGER <= now / max(then, 1e-9) <= LONGER:
        signs.append(f"answers have {now:.0f} tokens, those of {compared} have {then:.0f}.")
    if last and fmean(p.repeated for p in last) > fmean(p.repeated for p in first) + REPEATS:
        told = f"{fmean(p.repeated for p in last):.0%} of an answer repeats itself, at first {fmean(p.repeated for p in first):.0%}"
        signs.append(f"{told}.")
    if last and fmean(p.cut / p.answers for p in last) > max(CUT, 2 * fmean(p.cut / p.answers for p in first)):
        signs.append(
            f"{fmean(p.cut / p.answers for p in last):.0%} of the answers were cut off at the longest one allowed."
        )
    gain, judged = (
        _gain([p.reward for p in own], [p.reward for p in before]),
        _gain([p.judged for p in own], [p.judged for p in before]),
    )
    if gain is not None and judged is not None and gain > 0 > judged:
        signs.append(f"the reward rose by {gain:.3g} while an independent judge fell by {-judged:.3g}.")
    return signs


def _gain(own: Sequence[float | None], before: Sequence[float | None]) -> float | None:
    pairs = [(a, b) for a, b in zip(own, before, strict=True) if a is not None and b is not None]
    return fmean(a - b for a, b in pairs) if pairs else None


def _sentence(points: Sequence[RolloutPoint]) -> str:
    known = [p for p in points if p.reward is not None]
    if not known:
        return "No rollout had a reward."
    first, last = known[: len(known) // TENTH + 1], known[-(len(known) // TENTH + 1) :]
    then, now = fmean(p.reward or 0.0 for p in first), fmean(p.reward or 0.0 for p in last)
    told = f"In {len(points):,} rollouts of {points[0].answers:,} answers the mean reward went from {then:.3g} to {now:.3g}"
    far = [p.kl for p in last if p.kl is not None]
    told += f", {fmean(far):.2g} nats an answer away from the reference" if far else ""
    lost = sum(p.unrewarded for p in points)
    empty = sum(p.empty for p in points)
    more = [f"{lost:,} answers had no reward" if lost else "", f"{empty:,} were empty" if empty else ""]
    return "; ".join([told, *filter(None, more)]) + "."
