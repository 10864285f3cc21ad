"""The part ``memory``: what QLoRA needs beside our own LoRA, in loading and in training.

Notable: both sides are ours, as lean as a recipe can make them (``train.memory: least``: activations recomputed, steps
within the backward pass, moments of eight bits) and on one short row a step, so that weights dominate. Counted is what
the process owns, with and without what it owned when everything was imported (``owned.py``).
"""

from typing import Any

from peers.bench import Bench, tell
from peers.configurations import RANK, SHAPES
from peers.processes import Result, run
from peers.sft import specified

STEPS = 2  # in the second the moments are there
TRAINED = 0.5
SIDES = (("qlora", "bfloat16"), ("lora", "bfloat16"), ("qlora", "float32"), ("lora", "float32"))


def measure(bench: Bench) -> dict[str, Any]:
    length = bench.sizes.memory_length
    runs = [one for name in bench.sizes.memory_shapes for one in point(bench, name, length)]
    points = [row(one) for one in runs]
    return {
        "settings": {"rank": RANK, "rows_per_step": 1, "tokens_per_row": length, "steps": STEPS, "memory": "least"},
        "points": points,
        "compared": {
            f"{shape}_{precision}": compared(points, shape, precision)
            for shape in bench.sizes.memory_shapes
            for precision in ("bfloat16", "float32")
        },
        "runs": runs,
    }


def point(bench: Bench, name: str, length: int) -> list[Result]:
    """Both methods in both types on one shape."""
    shape = SHAPES.get(name, bench.sizes.shape)
    paths, _ = bench.material(
        name, shape, f"blocks-{shape['vocab_size']}-{length}", length=length, count=STEPS, trained=TRAINED
    )
    found = []
    for method, precision in SIDES:
        spec = specified(method, paths, 1, STEPS, 1) | {"task": "memory", "precision": precision, "memory": "least"}
        told = run("ours", spec, bench.work, f"memory_{name}_{method}_{precision}")
        told |= {"shape": name, "method": method, "precision": precision}
        parts = ", ".join(f"{key} {value >> 20} MiB" for key, value in row(told).items() if isinstance(value, int))
        tell(f"  {name} {method} {precision}: {parts}, {told['process_seconds']:.0f} s in all")
        found.append(told)
    return found


def row(run: Result) -> dict[str, Any]:
    """Bytes: what the imports own, then beyond them the most while loading and while training; the weights; and the
    resident peaks of both, pages of files included."""
    owned, start = run["detail"]["owned"], run["detail"]["owned"]["imports"]["now"]
    return {key: run[key] for key in ("shape", "method", "precision")} | {
        "imports": start,
        "weights": run["detail"]["weights"],
        "loading": owned["loading"]["most"] - start,
        "training": owned["training"]["most"] - start,
        "resident_loading": owned["loading"]["resident"],
        "resident_training": owned["training"]["resident"],
    }


def compared(points: list[dict[str, Any]], shape: str, precision: str) -> dict[str, float]:
    """QLoRA in float32 or bf16 / LoRA in bf16, by what is counted."""
    by = {p["method"] + p["precision"]: p for p in points if p["shape"] == shape}
    ours, lora = by["qlora" + precision], by["lorabfloat16"]
    whole = [p["imports"] + p["training"] for p in (ours, lora)]
    return {
        "weights": round(ours["weights"] / lora["weights"], 3),
        "training": round(ours["training"] / lora["training"], 3),
        "training_with_imports": round(whole[0] / whole[1], 3),
        "loading_beyond_weights_mib": round((ours["loading"] - ours["weights"]) / 2**20, 1),
    }
