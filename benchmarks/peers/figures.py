"""From raw runs to the figures that are stated: rates, losses, ratios. Pure functions, standard library alone.

Notable: FLOPs a token are counted, not profiled. With P the weights of the linear layers inside the network, L those of
LoRA, H = vocabulary x width those of the head, and s the share of trained tokens:

    LoRA: 4 P + 6 L + 4 H s    (frozen: forward, and the gradient of the input; trained: the gradient of the weight too)
    full: 6 P + 6 H s

Attention scores, norms and activations count nothing, nor does what is computed twice; so a share of the ceiling is a
share of useful products.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Run = Mapping[str, Any]
WARM = 2  # optimiser steps before the clock counts
LAST = 5  # steps whose loss is compared


def linear(shape: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """(outputs, inputs, how often) of a Llama's linear layers, query-key-value and gate-up joined."""
    width, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    heads, groups, head = shape["num_attention_heads"], shape["num_key_value_heads"], shape["head_dim"]
    return [
        ((heads + 2 * groups) * head, width, layers),
        (width, heads * head, layers),
        (2 * inner, width, layers),
        (width, inner, layers),
    ]


def lora_weights(shape: Mapping[str, Any], rank: int) -> int:
    """Weights of A and B on each of the seven layers (joined layers have an A for each part)."""
    parts = (3, 1, 2, 1)
    return sum(
        rank * often * (outputs + part * inputs)
        for (outputs, inputs, often), part in zip(linear(shape), parts, strict=True)
    )


def flops_a_token(shape: Mapping[str, Any], method: str, rank: int, trained: float) -> float:
    """Useful FLOPs of one trained step, a token; see the module's docstring.

    >>> tiny = {"hidden_size": 2, "intermediate_size": 4, "num_hidden_layers": 1, "vocab_size": 10, "head_dim": 1}
    >>> tiny |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    >>> sum(o * i * n for o, i, n in linear(tiny)), lora_weights(tiny, 1)
    (36, 32)
    >>> flops_a_token(tiny, "lora", 1, 0.5), flops_a_token(tiny, "full", 1, 0.5)
    (376.0, 276.0)
    """
    inside = sum(outputs * inputs * often for outputs, inputs, often in linear(shape))
    head = shape["vocab_size"] * shape["hidden_size"] * trained
    if method == "full":
        return 6.0 * inside + 6.0 * head
    return 4.0 * inside + 6.0 * lora_weights(shape, rank) + 4.0 * head


def rate(run: Run, unit: str = "tokens", warm: int = WARM) -> float:
    """Units a second over the optimiser steps after ``warm``; over all where there is no more than one.

    >>> rate({"tokens": [10, 10, 10, 30], "step_seconds": [9.0, 9.0, 1.0, 3.0]})
    10.0
    """
    warm = warm if len(run["step_seconds"]) > 1 else 0
    return float(sum(run[unit][warm:]) / sum(run["step_seconds"][warm:]))


def warmup_cost(run: Run, unit: str = "tokens") -> float:
    """Seconds that the warm-up steps took beyond what their units take afterwards: compilation, first touches."""
    return float(sum(run["step_seconds"][:WARM]) - sum(run[unit][:WARM]) / rate(run, unit))


def last_loss(run: Run) -> float:
    """Mean loss of a trained token over the last steps.

    >>> last_loss({"losses": [9.0, 1.0, 1.0, 1.0, 1.0, 2.0], "trained": [5, 1, 1, 1, 1, 4]})
    1.5
    """
    return mean_loss(run, LAST)


def mean_loss(run: Run, last: int = 0) -> float:
    """Mean loss of a trained token (of a row, where classes are learnt) over the whole run, or its ``last`` steps."""
    weight = run["trained" if "trained" in run else "rows"][-last:]
    return float(sum(x * w for x, w in zip(run["losses"][-last:], weight, strict=True)) / sum(weight))


def summary(runs: Iterable[Run], unit: str = "tokens") -> dict[str, dict[str, Any]]:
    """By configuration: medians over its runs; memory is the largest seen."""
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run["name"], []).append(run)
    return {name: _medians(same, unit) for name, same in by_name.items()}


def _medians(runs: Sequence[Run], unit: str) -> dict[str, Any]:
    rates = [rate(run, unit) for run in runs]
    told = {
        "side": runs[0]["side"],
        "runs": len(runs),
        f"{unit}_per_s": digits(statistics.median(rates)),
        "all": [digits(r) for r in rates],
        "peak_bytes": max(run["peak_bytes"] for run in runs),
        "ready_seconds": statistics.median(run["ready_seconds"] for run in runs),
        "first_step_seconds": round(statistics.median(run["step_seconds"][0] for run in runs), 2),
        "warmup_extra_seconds": round(statistics.median(warmup_cost(run, unit) for run in runs), 2),
        "first_loss": round(runs[0]["losses"][0], 4),
        "last_loss": round(statistics.median(last_loss(run) for run in runs), 4),
        "mean_loss": round(statistics.median(mean_loss(run) for run in runs), 4),
        "same_order": runs[0].get("digest") is not None,
    }
    accuracies = [run["accuracy"] for run in runs if run.get("accuracy") is not None]
    return told | ({"accuracy": round(statistics.median(accuracies), 4)} if accuracies else {})


def digits(value: float) -> float:
    """One decimal, or three digits of what is small.

    >>> digits(166.918), digits(0.12345)
    (166.9, 0.123)
    """
    return round(value, 1) if value >= 10 else float(f"{value:.3g}")


def leanest(table: Mapping[str, Mapping[str, Any]], side: str, stopped: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
    """The configuration of a side that needs the least memory, and how much; of the peer one that was ``stopped``
    counts with the memory it had taken by then, which can only favour the peer."""
    memory = {name: told["peak_bytes"] for name, told in table.items() if told["side"] == side}
    if side == "peer":
        memory |= {told["name"]: told["peak_bytes_at_least"] for told in stopped if "peak_bytes_at_least" in told}
    return min(memory.items(), key=lambda item: item[1])


def fastest(table: Mapping[str, Mapping[str, Any]], side: str, unit: str = "tokens") -> str:
    """The name of the fastest configuration of a side."""
    return max((n for n, s in table.items() if s["side"] == side), key=lambda n: table[n][f"{unit}_per_s"])


def compared(
    table: Mapping[str, Mapping[str, Any]], unit: str = "tokens", stopped: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Our fastest against the fastest of the peer, in speed and in memory, and our leanest against its leanest; the
    losses at equal units beside them.

    ``loss_ratio`` is of the last steps; where the peer took the rows in another order (packing sorts them by length),
    its last steps hold other rows, and the ratio is that of the whole run, in which both train each row once.
    """
    best_ours, best = fastest(table, "ours", unit), fastest(table, "peer", unit)
    (lean_ours, least_ours), (lean, least) = (leanest(table, side, stopped) for side in ("ours", "peer"))
    ours, loss = table[best_ours], "last_loss" if table[best]["same_order"] else "mean_loss"
    return {
        "speed": round(ours[f"{unit}_per_s"] / table[best][f"{unit}_per_s"], 2),
        "best_peer": best,
        "best_ours": best_ours,
        "peak_memory": round(least_ours / least, 3),
        "leanest_peer": lean,
        "leanest_ours": lean_ours,
        "peak_memory_of_fastest": round(ours["peak_bytes"] / table[best]["peak_bytes"], 3),
        "loss_ratio": round(ours[loss] / table[best][loss], 4),
    }
