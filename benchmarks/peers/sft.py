"""The parts ``lora`` and ``full``: the same chats on both sides, and the ceiling that matrix products set.

Notable: the rows of each step are the same on both sides; a hash of ids and masks, made by each side from what it
really trained, proves it. Packing orders rows anew, so there the number of tokens alone is compared.
"""

from collections.abc import Sequence
from typing import Any

from peers import figures
from peers.bench import Bench, slower, tell
from peers.configurations import FULL_PEERS, LORA_PEERS, RANK, Peer, Shape
from peers.processes import Failed, Result, run

LEARNING_RATE = {"lora": 1e-3, "qlora": 1e-3, "full": 1e-4}
MAX_LENGTH = 1024  # TRL's default; no chat is longer
SLACK = 0.05  # of the tokens, where packing orders rows anew
PATIENCE = 120.0  # seconds of training before a configuration may be stopped as far too slow
ROOM = 1.02  # so that as many packs as there are steps hold all rows


def specified(
    method: str, paths: dict[str, str], rows: int, steps: int, micro_rows: int, compile: str = "auto"
) -> dict[str, Any]:
    """What every process of a part is told; ``micro_rows`` is for the peer, which adds settings of its own,
    ``compile`` for ours."""
    return paths | {
        "task": "sft",
        "method": method,
        "rank": RANK,
        "learning_rate": LEARNING_RATE[method],
        "rows_per_step": rows,
        "steps": steps,
        "micro_rows": micro_rows,
        "compile": compile,
        "max_length": MAX_LENGTH,
    }


def measure(bench: Bench, method: str) -> dict[str, Any]:
    """Ours and each of TRL's configurations; for LoRA the ceiling, measured before and after them."""
    sizes = bench.sizes
    count = sizes.rows * sizes.steps
    paths, facts = bench.material(
        sizes.name, sizes.shape, f"chats-{count}-by-{sizes.rows}", count=count, group=sizes.rows
    )
    mean, trained = facts["tokens"] / sizes.steps, facts["trained_share"]
    spec = specified(method, paths, sizes.rows, sizes.steps, sizes.micro_rows, sizes.compile)
    spec["pack_tokens"] = max(round(ROOM * mean), facts["longest"])
    ceilings = [ceiling(bench, mean, trained)] if method == "lora" else []
    first, stopped = first_round(bench, spec, LORA_PEERS if method == "lora" else FULL_PEERS)
    best = figures.fastest(figures.summary(first), "peer")
    how = next(peer for peer in (*LORA_PEERS, *FULL_PEERS) if peer.name == best).spec()
    runs = bench.again(
        lambda: bench.go("ours", f"ours_{method}", spec), lambda: bench.go("trl_sft", best, spec | how), first
    )
    check_same_rows(runs)
    table = figures.summary(runs)
    part = {
        "data": {
            "rows_per_step": sizes.rows,
            "steps": sizes.steps,
            "warmup_steps": figures.WARM,
            "tokens_per_row": round(facts["tokens"] / count, 1),
            "trained_share": trained,
        },
        "settings": {
            "model": sizes.name,
            "rank": RANK,
            "learning_rate": spec["learning_rate"],
            "micro_rows_of_trl": sizes.micro_rows,
        },
        "summary": table,
        "compared": figures.compared(table, stopped=stopped),
        "stopped": stopped,
    }
    if method == "lora":
        ceilings.append(ceiling(bench, mean, trained))
        part["ceiling"] = share(sizes.shape, trained, table["ours_lora"]["tokens_per_s"], ceilings)
    return part | {"runs": runs}


def first_round(bench: Bench, spec: dict[str, Any], peers: Sequence[Peer]) -> tuple[list[Result], list[dict[str, Any]]]:
    """Results of ours and of every peer, and what is known of those that were stopped as far too slow.

    Where one with gradient checkpointing was stopped, the same without is not tried: it saves a third of the work at
    most.
    """
    runs = [bench.go("ours", f"ours_{spec['method']}", spec)]
    stopped: list[dict[str, Any]] = []
    step = sum(runs[0]["tokens"]) / spec["steps"]
    for peer in peers:
        if any(told["name"] == peer.leaner for told in stopped):
            stopped.append({"name": peer.name, "because": f"{peer.leaner} was stopped"})
            continue
        rates = [figures.rate(run) for run in runs if run["side"] == "peer"]
        enough = slower(max(rates, default=0.0), step, PATIENCE)
        found = bench.go("trl_sft", peer.name, spec | peer.spec(), enough)
        if "stopped_after" in found:
            below = (found["steps_done"] + 1) * step / found["stopped_after"]
            stopped.append(
                {"name": peer.name, "tokens_per_s_below": round(below, 1), "peak_bytes_at_least": found["peak_bytes"]}
            )
        else:
            runs.append(found)
    return runs, stopped


def ceiling(bench: Bench, tokens: float, trained: float) -> dict[str, Any]:
    """GFLOP/s of either type over the products of one step."""
    shape = bench.sizes.shape
    shapes = [[round(tokens), *layer] for layer in figures.linear(shape)]
    shapes.append([round(tokens * trained), shape["vocab_size"], shape["hidden_size"], 1])
    found = run("products", {"shapes": shapes}, bench.work, "products")
    kept = {name: found[name] for name in ("float32", "bfloat16")}
    tell("  matrix products: " + ", ".join(f"{name} {told['gflops']:,.0f} GFLOP/s" for name, told in kept.items()))
    return kept


def share(shape: Shape, trained: float, speed: float, ceilings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Our useful FLOPs a second as a share of the fastest products seen."""
    best = max(told["gflops"] for found in ceilings for told in found.values())
    flops = figures.flops_a_token(shape, "lora", RANK, trained)
    return {
        "gflops": best,
        "flops_a_token": round(flops),
        "share": round(speed * flops / (best * 1e9), 4),
        "measured": list(ceilings),
    }


def check_same_rows(runs: Sequence[Result]) -> None:
    """Raise Failed unless all sides trained the same tokens in the same order; where packed, as many of them."""
    seen = {run["digest"] for run in runs if run["digest"]}
    if len(seen) != 1:
        raise Failed(f"The sides did not train the same rows: there are {len(seen)} hashes of ids and masks.")
    first = sum(runs[0]["tokens"])
    odd = [run for run in runs if abs(sum(run["tokens"]) / first - 1) > SLACK]
    if odd:
        raise Failed(f"{odd[0]['name']} trained {sum(odd[0]['tokens'])} tokens, ours {first}; expected as many.")
