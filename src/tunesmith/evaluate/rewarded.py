"""Of a policy that learned from rewards: how often it wins, and signs that it learned to please the reward alone.

Notable: a policy finds what its reward overlooks (Gao et al., 2023, arXiv 2210.10760). Looked at are the distance from
the reference, the length of answers, repetition, and whether a judge that trained nothing agrees, all of the weights
that were kept: later rollouts are those of others. With a sign a reward that is a model's opinion ships nothing; of
rules, which check the answer itself, a judge alone raises a doubt.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean, stdev

from tunesmith.core.report import Estimate, Prediction, Rewarded, RolloutPoint
from tunesmith.evaluate.score import Z95, wilson

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
) -> Rewarded:
    """``predictions`` of all systems on the locked test, ``tuned`` among them; ``compared`` is the one that training
    began as, ``best_step`` that of the kept weights. ``by_model``: the reward is, or holds, what a model says."""
    own, before = predictions["tuned"], predictions[compared]
    others = {name: found for name, found in predictions.items() if name != "tuned"}

    def wins(of: Callable[[Prediction], float | None]) -> dict[str, Estimate]:
        found = {name: win_rate(list(map(of, own)), list(map(of, theirs))) for name, theirs in others.items()}
        return {name: rate for name, rate in found.items() if rate is not None}

    judged = tuple(_of_judge(own, before))
    until = [p for p in points if p.step <= best_step]
    signs = (*_of_rollouts(until), *_of_length(own, before, compared))
    far, asked = any(p.kl is not None for p in points), any(p.judged is not None for p in own)
    return Rewarded(
        points=tuple(points),
        wins=wins(lambda p: p.reward),
        judged_wins=wins(lambda p: p.judged),
        signs=(*signs, *judged),
        doubts=(*signs, *judged) if by_model else judged,
        looked=("length", "repetition", *(["distance"] if far else []), *(["an independent judge"] if asked else [])),
        sentence=_sentence(points, until, best_step),
    )


def win_rate(own: Values, theirs: Values) -> Estimate | None:
    """Share of the rows on which ``own`` is worth more, a tie half; None where no row has both values. The interval is
    Wilson's, which is a little wide where there are ties.

    >>> win_rate([1.0, 2.0, 0.0, 1.0], [0.0, 2.0, 1.0, None]).value
    0.5
    """
    pairs = [(a, b) for a, b in zip(own, theirs, strict=True) if a is not None and b is not None]
    if not pairs:
        return None
    value = fmean(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs)
    low, high = wilson(value, len(pairs))
    return Estimate(value=value, low=low, high=high, n=len(pairs))


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


def _of_judge(own: Sequence[Prediction], before: Sequence[Prediction]) -> Iterator[str]:
    """Where the judge has fallen by more than chance (the whole 95% interval of the paired mean lies below 0)."""
    pairs = list(zip(own, before, strict=True))
    reward = [a.reward - b.reward for a, b in pairs if a.reward is not None and b.reward is not None]
    judged = [a.judged - b.judged for a, b in pairs if a.judged is not None and b.judged is not None]
    if len(judged) < 2 or not reward or fmean(reward) <= 0:
        return
    fell = -fmean(judged)
    if fell > Z95 * stdev(judged) / len(judged) ** 0.5:
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
    told = f"In {len(until):,} rollouts{whose} the mean reward went from {mean(known[:size])} to {mean(known[-size:])}"
    told += "" if far is None else f", {far[1]:.2g} nats an answer away from the reference"
    lost, empty = sum(p.unrewarded for p in points), sum(p.empty for p in points)
    more = [f"{lost:,} answers had no reward" if lost else "", f"{empty:,} were empty" if empty else ""]
    return "; ".join([told, *filter(None, more)]) + "."
