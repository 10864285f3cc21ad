"""The matrix-product ceiling of this machine, in a process of its own: what its products alone would allow.

Notable: the shapes are those of the model with joined products (query-key-value, gate-up), at the tokens of one step,
forward and backward; a type's rate is the work of all shapes over the sum of each shape's best time.
"""

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

REPEATS = 5
LONGEST = 4.0  # seconds a product may take in all; emulated bf16 would take minutes


def best(product: Callable[[], torch.Tensor]) -> float:
    """The shortest of some runs, the first of which warms up and counts only where no time is left for more."""
    times: list[float] = []
    while len(times) <= REPEATS and sum(times) < LONGEST:
        started = time.perf_counter()
        product()
        times.append(time.perf_counter() - started)
    return min(times[1:] or times)


def rate(dtype: torch.dtype, shapes: list[list[int]]) -> dict[str, Any]:
    """GFLOP/s over all shapes [tokens, outputs, inputs, how often], and of each."""
    work = spent = 0.0
    each = {}
    for tokens, outputs, inputs, often in shapes:
        x_NI, weight_OI = torch.randn(tokens, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
        grad_NO = torch.randn(tokens, outputs).to(dtype)
        seconds = best(partial(torch.matmul, x_NI, weight_OI.T)) + best(partial(torch.matmul, grad_NO, weight_OI))
        flops = 4.0 * tokens * outputs * inputs
        each[f"{tokens} x {inputs} x {outputs}"] = round(flops / seconds / 1e9, 1)
        work, spent = work + often * flops, spent + often * seconds
    return {"gflops": round(work / spent / 1e9, 1), "each": each}


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    found = {str(t).removeprefix("torch."): rate(t, told["shapes"]) for t in (torch.float32, torch.bfloat16)}
    Path(told["out"]).write_text(json.dumps(found), encoding="utf-8")
