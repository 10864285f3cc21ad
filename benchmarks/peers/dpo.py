"""The part ``dpo``: pairs a second and memory beside TRL's DPOTrainer, on the same pairs, weights and adapter.

Notable: whoever computes the reference before the first step pays for it: its seconds are spread over the steps. Ours
reads a prompt once for both of its answers, and runs once more as lean as a recipe makes it (``train.memory:
checkpoint``), so that the leanest of both sides stand beside one another as the fastest do. TRL holds one pair in
memory at a time: with both of a step at once it ran at half the pairs a second, in twice the memory (float32 without
checkpointing, two cores of an AMD EPYC, 2026-11-27). The losses of the first steps must agree: they begin at log 2 on
both sides and part only as the weights do.
"""

from collections.abc import Sequence
from typing import Any

from peers import figures
from peers.bench import Bench, tried
from peers.configurations import DPO_PEERS, RANK
from peers.processes import Failed, Result, has_fast_bfloat16
from peers.sft import MAX_LENGTH, check_same_rows

LEARNING_RATE = 1e-4
FIRST, SAME = 3, 2e-3  # steps whose losses must agree, and how closely


def measure(bench: Bench) -> dict[str, Any]:
    sizes = bench.sizes
    rows, steps = sizes.dpo_pairs, sizes.dpo_steps
    count = rows * steps
    paths, facts = bench.material(
        sizes.name, sizes.shape, f"pairs-{count}-by-{rows}", count=count, group=rows, pairs=MAX_LENGTH
    )
    spec = paths | {
        "task": "dpo",
        "method": "lora",
        "rank": RANK,
        "learning_rate": LEARNING_RATE,
        "rows_per_step": rows,
        "steps": steps,
        "micro_rows": 1,
        "max_length": MAX_LENGTH,
    }
    runs = [_whole(bench.go("ours", "ours_dpo", spec))]
    runs.append(_whole(bench.go("ours", "ours_dpo_checkpoint", spec | {"memory": "checkpoint"})))
    stopped = tried(
        lambda peer, enough: _whole(bench.go("trl_dpo", peer.name, spec | peer.spec(), enough)),
        DPO_PEERS,
        runs,
        rows,
        "pairs",
    )
    best_name = figures.fastest(figures.summary(runs, "rows"), "peer", "rows")
    how = next(peer for peer in DPO_PEERS if peer.name == best_name).spec()
    for _ in range(bench.repeats - 1):
        runs.append(_whole(bench.go("ours", "ours_dpo", spec)))
        runs.append(_whole(bench.go("trl_dpo", best_name, spec | how)))
    check_same_pairs(runs)
    table = figures.summary(runs, "rows")
    return {
        "data": {"pairs_per_step": rows, "steps": steps, "warmup_steps": figures.WARM} | facts,
        "settings": {
            "model": sizes.name,
            "rank": RANK,
            "learning_rate": LEARNING_RATE,
            "beta": 0.1,
            "max_length": MAX_LENGTH,
            f"losses_of_the_first_{FIRST}_steps_differ_by_at_most": check_same_losses(runs),
        },
        "summary": table,
        "compared": figures.compared(table, "rows", stopped=stopped),
        "stopped": stopped,
        "runs": runs,
    }


def _whole(run: Result) -> Result:
    """Each step with its share of what the reference took before the first; what was stopped as it is."""
    if "stopped_after" in run:
        return run
    share = run["reference_seconds"] / len(run["step_seconds"])
    return run | {"step_seconds": [s + share for s in run["step_seconds"]]}


def check_same_pairs(runs: Sequence[Result]) -> None:
    """Raise Failed unless all sides trained the same pairs in the same order."""
    check_same_rows([run | {"tokens": run["rows"]} for run in runs])


def check_same_losses(runs: Sequence[Result]) -> float:
    """The largest difference to ours in the first steps, of runs of our precision. Raises Failed where it is too large:
    bf16 has other losses."""
    ours = next(run for run in runs if run["side"] == "ours")["losses"][:FIRST]
    most = 0.0
    for run in (r for r in runs if r["side"] == "ours" or ("bf16" in r["name"]) == has_fast_bfloat16()):
        for mine, theirs in zip(ours, run["losses"], strict=False):
            if not abs(mine - theirs) <= SAME:
                raise Failed(f"{run['name']}: a loss of the first {FIRST} steps is {theirs}, ours {mine}.")
            most = max(most, abs(mine - theirs))
    return round(most, 6)
