"""Of a policy that learned from rewards: how often it wins, and signs that it learned to please the reward alone.

Notable: a policy finds what its reward overlooks (Gao et al., 2023, arXiv 2210.10760). Looked at are the distance from
the reference, the length of answers, repetition, and whether a judge that trained nothing agrees, all of the weights
that were kept: later rollouts are those of others. With a sign a reward that is a model's opinion ships nothing; of
rules, which check the answer itself, a judge alone raises a doubt.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean

import numpy as np

from tunesmith.core.report import Estimate, Prediction, Rewarded, RolloutPoint
from tunesmith.evaluate.bootstrap import by_unit
from tunesmith.evaluate.score import Z95, share

FAR = 10.0  # nats an answer from the reference
LONGER = 1.5  # times as long, or as short
REPEATS = 0.1  # more of an answer repeats itself
CUT = 0.1  # of the answers are cut off
TENTH = 10  # of the rollouts are the first, and the last

Values = Sequence[float | None]


def rewarded(
    predictions: Mapping[str, Sequence[Prediction]],
    points: Sequence[RolloutPoint],
    compared: str,
    best_step: int,
    *,
    by_model: bool,
    units: Sequence[int] | None = None,
) -> Rewarded:
    """``predictions`` of all systems on the locked test, ``tuned`` among them; ``compared`` is the one that training
    began as, ``best_step`` that of the kept weights. ``by_model``: the reward is, or holds, what a model says.
    ``units`` names the rows that belong together."""
    own, before = predictions["tuned"], predictions[compared]
    start, base = predictions.get("start"), predictions.get("zero_shot")

    def beats(mine: Sequence[Prediction], theirs: Sequence[Prediction], by: str) -> Estimate | None:
        return win_rate(_values(mine, by), _values(theirs, by), units)

    def wins(by: str) -> dict[str, Estimate]:
        others = ((name, theirs) for name, theirs in predictions.items() if name != "tuned")
        return {name: rate for name, theirs in others if (rate := beats(own, theirs, by))}

    judged = tuple(_of_judge(own, before, units))
    until = [p for p in points if p.step <= best_step]
    signs = (*_of_rollouts(until), *_of_length(own, before, compared))
    far, asked = any(p.kl is not None for p in points), any(p.judged is not None for p in own)
    return Rewarded(
        points=tuple(points),
        wins=wins("reward"),
        judged_wins=wins("judged"),
        start_wins={by: rate for by in ("reward", "judged") if start and base and (rate := beats(start, base, by))},
        signs=(*signs, *judged),
        doubts=(*signs, *judged) if by_model else judged,
        looked=("length", "repetition", *(["distance"] if far else []), *(["an independent judge"] if asked else [])),
        sentence=_sentence(points, until, best_step),
    )


def win_rate(own: Values, theirs: Values, units: Sequence[int] | None = None) -> Estimate | None:
    """Share of the rows on which ``own`` is worth more, a tie half; None where no row has both values. The interval is
    that of ``score.share``, a little wide where there are ties.

    >>> win_rate([1.0, 2.0, 0.0, 1.0], [0.0, 2.0, 1.0, None]).value
    0.5
    """
    rows = zip(own, theirs, units or range(len(own)), strict=True)
    known = [(a, b, unit) for a, b, unit in rows if a is not None and b is not None]
    if not known:
        return None
    return share([1.0 if a > b else 0.5 if a == b else 0.0 for a, b, _ in known], [unit for *_, unit in known])


def _values(predictions: Sequence[Prediction], by: str) -> Values:
    """What answers are worth by the reward or by the judge; None for one without."""
    return [None if by == "reward" and p.unrewarded else getattr(p, by) for p in predictions]


def _ends(points: Sequence[RolloutPoint], of: Callable[[RolloutPoint], float | None]) -> tuple[float, float] | None:
    """The mean of the first tenth of the rollouts and of the last, where they have the value."""
    known = [value for value in map(of, points) if value is not None]
    size = len(known) // TENTH + 1
    return (fmean(known[:size]), fmean(known[-size:])) if known else None


def _of_rollouts(points: Sequence[RolloutPoint]) -> Iterator[str]:
    far, repeats = _ends(points, lambda p: p.kl), _ends(points, lambda p: p.repeated)
    cut = _ends(points, lambda p: p.cut / p.answers)
    if far and far[1] > FAR:
        yield f"The policy is {far[1]:.1f} nats an answer away from its reference; more than {FAR:g} is far."
    if repeats and repeats[1] > repeats[0] + REPEATS:
        yield f"{repeats[1]:.0%} of an answer repeats itself, at first {repeats[0]:.0%}."
    if cut and cut[1] > max(CUT, 2 * cut[0]):
        yield f"{cut[1]:.0%} of the answers are cut off at the longest one allowed, at first {cut[0]:.0%}."


def _of_length(own: Sequence[Prediction], before: Sequence[Prediction], compared: str) -> Iterator[str]:
    now, then = (fmean(p.new_tokens for p in found) for found in (own, before))
    if not 1 / LONGER <= now / max(then, 1e-9) <= LONGER:
        yield f"Answers have {now:.0f} tokens; those of {compared} have {then:.0f}."


def _of_judge(
    own: Sequence[Prediction], before: Sequence[Prediction], units: Sequence[int] | None = None
) -> Iterator[str]:
    """Where the judge has fallen by more than chance (the whole 95% interval of the paired mean lies below 0; errors
    are over ``units``)."""

    def moved(by: str) -> tuple[list[float], list[int]]:
        rows = zip(_values(own, by), _values(before, by), units or range(len(own)), strict=True)
        known = [(a - b, unit) for a, b, unit in rows if a is not None and b is not None]
        return [value for value, _ in known], [unit for _, unit in known]

    (reward, _), (judged, of) = moved("reward"), moved("judged")
    if len(set(of)) < 2 or not reward or fmean(reward) <= 0:
        return
    fell, count = -fmean(judged), len(set(of))
    off_U = by_unit(np.array(judged) + fell, of)
    if fell > Z95 * float((off_U**2).sum() * count / (count - 1)) ** 0.5 / len(judged):
        yield f"The reward rose by {fmean(reward):.3g} while the independent judge fell by {fell:.3g}."


def _sentence(points: Sequence[RolloutPoint], until: Sequence[RolloutPoint], best_step: int) -> str:
    """Means of the first and the last tenth of the rollouts ``until`` the kept weights, each with its standard error
    over prompts; what was lost in all of them."""
    known = [p for p in until if p.reward is not None]
    if not known:
        return "No rollout had a reward."
    size = len(known) // TENTH + 1

    def mean(held: Sequence[RolloutPoint]) -> str:
        answers = sum(p.answers - p.unrewarded for p in held)
        errors = [p.error for p in held if p.error is not None]
        error = f"standard error {(fmean(e**2 for e in errors) / len(errors)) ** 0.5:.2g}, " if errors else ""
        return f"{fmean(p.reward or 0.0 for p in held):.3g} ({error}n = {answers:,})"

    far = _ends(until, lambda p: p.kl)
    kept = f" of {len(points):,}, until step {best_step:,}, whose weights are kept,"
    whose = "" if len(until) == len(points) else kept
    many = f"{len(until):,} rollout{'' if len(until) == 1 else 's'}"
    told = f"In {many}{whose} the mean reward went from {mean(known[:size])} to {mean(known[-size:])}"
    told += "" if far is None else f", {far[1]:.2g} nats an answer away from the reference"
    lost, empty = sum(p.unrewarded for p in points), sum(p.empty for p in points)
    more = [f"{lost:,} answers had no reward" if lost else "", f"{empty:,} were empty" if empty else ""]
    return "; ".join([told, *filter(None, more)]) + "."
