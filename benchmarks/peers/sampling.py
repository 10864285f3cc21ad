"""The part ``sampler``: new tokens a second beside transformers' ``generate`` and its continuous batching.

Notable: 64 prompts of mixed length, each with a number of tokens to write of its own; all sides write greedily from the
same random weights, so the first tokens of their answers must agree (later ones part where two logits are equal within
rounding).
"""

from typing import Any

from peers import figures
from peers.bench import Bench
from peers.processes import Failed, Result, has_fast_bfloat16

PEERS = {
    "generate_16": {"batch": 16, "weights": "float32"},
    "generate_64": {"batch": 64, "weights": "float32"},
    "continuous_batching": {"batch": 0, "weights": "float32"},
}
BF16 = {"generate_64_bf16": {"batch": 64, "weights": "bfloat16"}}  # where the processor has instructions for it
LEAST_SAME = 0.9  # of the answers must begin alike


def measure(bench: Bench) -> dict[str, Any]:
    sizes = bench.sizes
    paths, facts = bench.material(
        sizes.name, sizes.shape, f"prompts-{sizes.prompts}", count=sizes.prompts, group=1, longest_new=sizes.longest_new
    )
    spec = paths | {"task": "sample", "method": "lora"}
    peers = PEERS | (BF16 if has_fast_bfloat16() else {})
    runs: list[Result] = []
    for _ in range(bench.repeats):
        runs.append(bench.go("ours", "ours_sampler", spec))
        runs += [bench.go("generating", name, spec | how) for name, how in peers.items()]
    table = {name: _told([r for r in runs if r["name"] == name]) for name in ("ours_sampler", *peers)}
    ours = table["ours_sampler"]["tokens_per_s"]
    best = max((name for name in peers if name.startswith("generate")), key=lambda name: table[name]["tokens_per_s"])
    return {
        "data": {"prompts": sizes.prompts} | facts,
        "settings": {"model": sizes.name, "greedy": True, "answers_that_begin_alike": _same(runs)},
        "summary": table,
        "compared": {
            "generate": round(ours / table[best]["tokens_per_s"], 2),
            "best_generate": best,
            "continuous_batching": round(ours / table["continuous_batching"]["tokens_per_s"], 2),
        },
        "stopped": [],
        "runs": [{k: v for k, v in run.items() if k != "first"} for run in runs],
    }


def _told(runs: list[Result]) -> dict[str, Any]:
    rates = [sum(run["tokens"]) / sum(run["step_seconds"]) for run in runs]
    middle = sorted(rates)[len(rates) // 2] if len(rates) % 2 else sum(sorted(rates)[len(rates) // 2 - 1 :][:2]) / 2
    return {
        "side": runs[0]["side"],
        "tokens_per_s": figures.digits(middle),
        "all": [figures.digits(r) for r in rates],
        "peak_bytes": max(run["peak_bytes"] for run in runs),
    }


def _same(runs: list[Result]) -> float:
    """The least share of a peer's answers that begin as ours do, of those with weights of our precision: others round
    their logits otherwise. Raises Failed where it is too small."""
    ours = next(run for run in runs if run["side"] == "ours")["first"]
    fast = has_fast_bfloat16()
    exact = [run["first"] for run in runs if run["side"] == "ours" or (run["name"] in BF16) == fast]
    shares = [sum(a == b for a, b in zip(ours, first, strict=True)) / len(ours) for first in exact]
    if min(shares) < LEAST_SAME:
        raise Failed(f"Only {min(shares):.0%} of the answers of some side begin as ours do.")
    return round(min(shares), 4)
