"""The part ``qlora``: speed beside TRL, PEFT and bitsandbytes, on the same weights in four bits.

Notable: both sides quantise the same folder (NF4, double quantisation), so their losses must agree from the first step
on. TRL's adapters become bf16 with four bits, which a processor without bf16 instructions pays for; beside its fastest
stands the same with float32 adapters, a cast that its users would have to make by hand.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from peers import figures
from peers.bench import Bench
from peers.configurations import QLORA_CAST, QLORA_PEERS, RANK
from peers.processes import Failed, Result
from peers.sft import check_same_rows, first_round, specified

FIRST, SAME = 2, 1e-3  # steps whose losses must agree, and how closely


def measure(bench: Bench) -> dict[str, Any]:
    sizes = replace(bench.sizes, steps=bench.sizes.qlora_steps)
    count = sizes.rows * sizes.steps
    paths, facts = bench.material(
        sizes.name, sizes.shape, f"chats-{count}-by-{sizes.rows}", count=count, group=sizes.rows
    )
    spec = specified("qlora", paths, sizes.rows, sizes.steps, sizes.micro_rows)
    runs, stopped = first_round(bench, spec, QLORA_PEERS)
    best = figures.compared(uncast(figures.summary(runs)))["best_peer"]
    peers = {peer.name: peer.spec() for peer in QLORA_PEERS if peer.name in (best, QLORA_CAST.name)}
    for _ in range(bench.repeats - 1):
        runs.append(bench.go("ours", "ours_qlora", spec))
        runs += [bench.go("trl_sft", name, spec | how) for name, how in peers.items()]
    check_same_rows(runs)
    table = figures.summary(runs)
    return {
        "data": {
            "rows_per_step": sizes.rows,
            "steps": sizes.steps,
            "warmup_steps": figures.WARM,
            "tokens_per_row": round(facts["tokens"] / count, 1),
            "trained_share": facts["trained_share"],
        },
        "settings": {
            "model": sizes.name,
            "rank": RANK,
            "learning_rate": spec["learning_rate"],
            "micro_rows_of_trl": sizes.micro_rows,
            f"losses_of_the_first_{FIRST}_steps_differ_by_at_most": check_same_losses(runs),
        },
        "summary": table,
        "compared": figures.compared(uncast(table), stopped=stopped),
        "compared_cast": figures.compared(table, stopped=stopped),
        "stopped": stopped,
        "runs": runs,
    }


def uncast(table: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What TRL's own settings reach."""
    return {name: told for name, told in table.items() if name != QLORA_CAST.name}


def check_same_losses(runs: Sequence[Result]) -> float:
    """The largest difference to ours in the first steps. Raises Failed where the sides do not train the same weights;
    TRL's with bf16 products are no such thing."""
    ours = next(run for run in runs if run["side"] == "ours")["losses"][:FIRST]
    most = 0.0
    for run in runs:
        if "bf16" in run["name"]:
            continue
        for mine, theirs in zip(ours, run["losses"], strict=False):
            apart = abs(mine - theirs)
            if not apart <= SAME:  # nor where one is no number
                raise Failed(
                    f"{run['name']}: a loss of the first {FIRST} steps is {theirs}, ours {mine}; expected them "
                    f"within {SAME}."
                )
            most = max(most, apart)
    return round(most, 6)
