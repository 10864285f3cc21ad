"""What a policy that learned from rewards shows: its curves, how often it wins, signs of a reward that was fooled, and
answers to read."""

from collections.abc import Callable, Sequence
from typing import Any

from tunesmith.core.report import CurvePoint, Estimate, Rewarded, RolloutPoint, SampledAnswer
from tunesmith.present import charts
from tunesmith.present.words import count, one_line, plain

MOST = 4  # rollouts, or looks, whose answers are shown
Row = tuple[int, tuple[SampledAnswer, ...]]  # an optimiser step, and answers
OF = {"reward": "reward", "judged": "an independent judge"}


def curves(found: Rewarded) -> dict[str, str]:
    """Mean reward, and KL to the reference, over optimiser steps; empty where nothing was recorded."""

    def line(title: str, y_name: str, style: str, of: Callable[[RolloutPoint], float | None]) -> str:
        points = tuple((float(p.step), value) for p in found.points if (value := of(p)) is not None)
        return charts.lines(title, "optimiser step", y_name, [charts.Series(y_name, points, style)])

    return {
        "reward": line("Mean reward of each rollout", "mean reward", "series-a", lambda p: p.reward),
        "kl": line("Distance from the reference", "KL, nats an answer", "series-b", lambda p: p.kl),
        "length": line("Length of answers", "tokens an answer", "series-c", lambda p: p.length),
    }


def wins(found: Rewarded) -> list[tuple[str, str]]:
    """A row for each system that was beaten, or not, by the reward and by the judge."""
    told = (("reward", found.wins), ("judged", found.judged_wins))
    return [
        (f"Wins against {one_line(name, 40)}, by {OF[by]}", share(e)) for by, all_ in told for name, e in all_.items()
    ]


def share(found: Estimate) -> str:
    return (
        f"{found.value:.1%} (95% interval {found.low:.1%} to {found.high:.1%}, n = {count(found.n)}; a tie counts half)"
    )


def answers(found: Rewarded, curve: Sequence[CurvePoint]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Answers to read, from the first to the last step, each list with what it is of."""
    rolled = _spread([(p.step, p.samples) for p in found.points if p.samples])
    looked = _spread([(p.step, p.answers) for p in curve if p.answers])
    told = [("the best and the worst of a rollout", rolled)]
    prompts = max((len(own) for _, own in looked), default=0)
    by_prompt = [(step, own[n : n + 1]) for n in range(prompts) for step, own in looked]
    told += [("the same prompts at looks at dev", by_prompt)] if looked else []
    return [(of, [_shown(step, one) for step, own in rows for one in own]) for of, rows in told]


def _spread(rows: list[Row]) -> list[Row]:
    """A few of them, the first and the last among these."""
    every = max(1, -(-len(rows) // (MOST - 1)))
    return [*rows[:-1:every], *rows[-1:]]


def _shown(step: int, one: SampledAnswer) -> dict[str, Any]:
    reward = "none" if one.reward is None else plain(one.reward)
    return {"step": step, "prompt": one.prompt, "answer": one.answer, "reward": reward}
