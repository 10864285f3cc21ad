"""The part ``online``: GRPO's rollouts and the steps on them beside TRL's GRPOTrainer, in answers a second.

Notable: weights are random, so an answer would never end; of every so many tokens of the vocabulary one ends it, on
both sides, and lengths are mixed as they are in practice. Chance is not shared between the sides: each draws answers of
its own from the same policy, so their mean lengths are held against each other within their error. What both make of
the same answers is checked apart: those of TRL's first rollout go through our rollouts, and rewards, advantages and the
norm of the first gradient must agree (the first loss is 0 on both sides whatever was written, and shows nothing).
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from peers import figures
from peers.bench import Bench, tried
from peers.configurations import RANK, online_peers
from peers.processes import Failed, Result, has_fast_bfloat16, run

LEARNING_RATE, BETA = 1e-5, 0.04
SAME = 0.01  # share by which an advantage or the norm of the gradient may differ; TRL adds 1e-4 to a group's spread
ERRORS = 4.0  # standard errors by which mean lengths may differ
WARM = 1  # optimiser steps before the clock counts
KEPT_APART = ("first", "lengths")  # of a result, which the document does not hold


def measure(bench: Bench) -> dict[str, Any]:
    sizes = bench.sizes
    prompts, steps = sizes.online_prompts, sizes.online_steps
    count, step = prompts * steps, prompts * sizes.online_answers
    rows = f"prompts-{count}-by-{prompts}"
    paths, facts = bench.material(
        sizes.name, sizes.shape, rows, count=count, group=prompts, longest_new=sizes.online_new
    )
    spec = paths | {
        "task": "online",
        "method": "lora",
        "rank": RANK,
        "learning_rate": LEARNING_RATE,
        "beta": BETA,
        "prompts_per_step": prompts,
        "answers": sizes.online_answers,
        "steps": steps,
        "longest_new": sizes.online_new,
        "ends": sizes.online_ends,
    }
    peers = online_peers(fast_bfloat16=has_fast_bfloat16())
    runs = [bench.go("ours_online", "ours_online", spec)]
    stopped = tried(
        lambda peer, enough: bench.go("trl_online", peer.name, spec | peer.spec(), enough),
        peers,
        runs,
        step,
        "answers",
    )
    theirs = next(r for r in runs if r["side"] == "peer")  # the first is float32
    same = check_same_learning(_ours_of(bench, spec, theirs["name"]), theirs["first"])
    best = fastest(summary(runs))
    how = next(peer for peer in peers if peer.name == best).spec()
    runs = bench.again(
        lambda: bench.go("ours_online", "ours_online", spec),
        lambda: bench.go("trl_online", best, spec | how),
        runs,
    )
    check_same_work(runs, step, steps)
    table = summary(runs)
    return {
        "data": {
            "prompts_per_step": prompts,
            "answers_to_each": sizes.online_answers,
            "steps": steps,
            "warmup_steps": WARM,
            "prompt_tokens": facts["prompt_tokens"],
            "longest_answer": sizes.online_new,
            "one_token_ends_an_answer_of_each": sizes.online_ends,
        },
        "settings": {
            "model": sizes.name,
            "rank": RANK,
            "learning_rate": LEARNING_RATE,
            "beta": BETA,
            "temperature": 1,
        }
        | same,
        "summary": table,
        "compared": compared(table, stopped),
        "stopped": stopped,
        "runs": [{k: v for k, v in one.items() if k not in KEPT_APART} for one in runs],
    }


def _ours_of(bench: Bench, spec: Mapping[str, Any], name: str) -> Result:
    """What our rollouts make of the answers in the first rollout of the peer's run ``name``."""
    asked = dict(spec) | {"task": "check", "theirs": str(bench.work / f"{name}.json")}
    return run("ours_online", asked, bench.work, "check_online")


def summary(runs: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """By configuration: medians over its runs; memory is the largest seen."""
    return {name: _told([r for r in runs if r["name"] == name]) for name in dict.fromkeys(r["name"] for r in runs)}


def _told(runs: Sequence[Result]) -> dict[str, Any]:
    rates = [figures.rate(r, "rows", WARM) for r in runs]
    return {
        "side": runs[0]["side"],
        "runs": len(runs),
        "answers_per_s": figures.digits(statistics.median(rates)),
        "all": [figures.digits(r) for r in rates],
        "new_tokens_per_s": figures.digits(statistics.median(figures.rate(r, "tokens", WARM) for r in runs)),
        "tokens_an_answer": round(statistics.fmean(n for r in runs for n in r["lengths"]), 1),
        "peak_bytes": max(r["peak_bytes"] for r in runs),
    }


def fastest(table: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of the peer's fastest configuration."""
    return figures.fastest(table, "peer", "answers")


def compared(table: Mapping[str, Mapping[str, Any]], stopped: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Ours against the fastest of the peer, and against its leanest."""
    ours, best = table["ours_online"], fastest(table)
    lean, least = figures.leanest(table, "peer", stopped)
    return {
        "speed": round(ours["answers_per_s"] / table[best]["answers_per_s"], 2),
        "speed_in_new_tokens": round(ours["new_tokens_per_s"] / table[best]["new_tokens_per_s"], 2),
        "best_peer": best,
        "peak_memory": round(ours["peak_bytes"] / least, 3),
        "leanest_peer": lean,
    }


def check_same_work(runs: Sequence[Result], answers: int, steps: int) -> None:
    """Raise Failed unless all sides were asked the same prompts in the same order, trained every token that they wrote
    in as many answers and steps, and wrote answers of a length, within the error of their means."""
    if len({one["digest"] for one in runs}) != 1:
        raise Failed("The sides were not asked the same prompts in the same order.")
    ours = next(one for one in runs if one["side"] == "ours")
    for one in runs:
        name = one["name"]
        if one["rows"] != [answers] * steps or len(one["step_seconds"]) != steps:
            raise Failed(f"{name} trained {one['rows']} answers; expected {steps} steps of {answers}.")
        if one["trained_tokens"] != one["tokens"] or sum(one["tokens"]) != sum(one["lengths"]):
            raise Failed(f"{name} wrote {one['tokens']} tokens and trained {one['trained_tokens']}.")
        means = [statistics.fmean(found["lengths"]) for found in (ours, one)]
        error = math.hypot(*(statistics.stdev(r["lengths"]) / math.sqrt(len(r["lengths"])) for r in (ours, one)))
        if not abs(means[0] - means[1]) <= ERRORS * error:
            raise Failed(f"{name} writes {means[1]:.1f} tokens an answer, ours {means[0]:.1f}: not the same policy.")


def check_same_learning(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """How far what both sides make of the same answers differs at most. Raises Failed where that is too far."""

    def apart(name: str) -> float:
        scale = max(map(abs, theirs[name]))
        return max(abs(a - b) for a, b in zip(ours[name], theirs[name], strict=True)) / scale

    found = {name: apart(name) for name in ("rewards", "advantages")}
    found["gradient_norm"] = abs(ours["norm"] / theirs["norm"] - 1)
    for name, share in found.items():
        if not share <= SAME:
            raise Failed(f"Of the same answers, {name.replace('_', ' ')} of the sides differ by {share:.2%}.")
    return {f"{name}_of_the_same_answers_differ_by": f"{share:.1e}" for name, share in found.items()}
