"""What a policy that learned from rewards shows: its curves, how often it wins, signs of a reward that was fooled, and
answers to read."""

from collections.abc import Callable
from typing import Any

from tunesmith.core.report import Estimate, Rewarded, RolloutPoint
from tunesmith.present import charts
from tunesmith.present.words import count, one_line, plain

MOST_SAMPLES = 6
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


def samples(found: Rewarded) -> list[dict[str, Any]]:
    """The best and the worst answer of some rollouts, from the first to the last."""
    points = [p for p in found.points if p.samples]
    every = max(1, -(-len(points) // (MOST_SAMPLES // 2)))
    chosen = list(dict.fromkeys([*points[::every], *points[-1:]]))
    return [
        {
            "step": p.step,
            "prompt": s.prompt,
            "answer": s.answer,
            "reward": "none" if s.reward is None else plain(s.reward),
        }
        for p in chosen
        for s in p.samples
    ]
