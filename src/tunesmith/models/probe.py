"""A few seconds of work that say how fast this machine is: products of several sizes, bytes moved, and overhead.

Notable: the median of many short timings counts: trainings run beside the same neighbours. Products have the shapes of
a micro-batch against a layer, and other operands each time, as sums of activations have: those of a forward pass are
kept for its way back (in a cache products would seem half as fast again, sums three times); small operations run with
autograd.
``python -m tunesmith.models.probe`` measures in a process of its own, so that what a process holds before any model is
loaded is counted too. ``plan.rates`` reads what this keeps, without torch.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal

import torch

from tunesmith.models.machine import default_device, has_fast_bfloat16
from tunesmith.plan import rates
from tunesmith.plan.rates import Points, Rates
from tunesmith.plan.work import Precision

TOKENS = {"cpu": 512, "cuda": 8192}  # of a micro-batch
INNER = {"cpu": 1024, "cuda": 4096}
WIDTHS = {"cpu": (16, 64, 256, 1024), "cuda": (16, 64, 256, 1024, 4096)}
LARGE, PASSING = {"cpu": 1 << 26, "cuda": 1 << 30}, {"cpu": 1 << 22, "cuda": 1 << 27}  # bytes of a tensor
KEPT = 32  # sums
OTHERS = 16  # operands of products: together more than caches hold
SMALL_OPERATIONS = 200
SECONDS_EACH = 0.6  # for each number: about ten in all


def probe(seconds_each: float | None = None) -> Rates:
    """Measure the device that ``load`` would take."""
    held, seconds_each = _resident(), SECONDS_EACH if seconds_each is None else seconds_each
    device = default_device()
    kind: Literal["cpu", "cuda"] = "cuda" if device == "cuda" else "cpu"
    products: dict[Precision, Points] = {"float32": _products(torch.float32, device, seconds_each)}
    if has_fast_bfloat16():
        products["bfloat16"] = _products(torch.bfloat16, device, seconds_each)
    name = torch.cuda.get_device_name() if kind == "cuda" else rates.machine_now()["machine"]
    return Rates(
        name,
        kind,
        products,
        _bandwidth(LARGE[kind], 1, device, seconds_each),
        _bandwidth(PASSING[kind], KEPT, device, seconds_each),
        _overhead(device, seconds_each),
        "probe",
        held,
    )


def _products(dtype: torch.dtype, device: str, seconds_each: float) -> Points:
    """Operations a second by the smallest dimension."""
    found = []
    for width in WIDTHS[device]:
        made = [_operands(width, dtype, device) for _ in range(OTHERS)]
        took = _seconds(partial(_multiply, made), device, seconds_each)
        found.append((width, 2.0 * TOKENS[device] * INNER[device] * width * OTHERS / took))
    return tuple(found)


def _operands(width: int, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Input, weight (turned) and the place of their product."""
    x = torch.randn(TOKENS[device], INNER[device], device=device).to(dtype)
    weight = torch.randn(width, INNER[device], device=device).to(dtype)
    return x, weight.T, torch.empty(TOKENS[device], width, dtype=dtype, device=device)


def _multiply(made: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> None:
    for x, weight, out in made:
        torch.mm(x, weight, out=out)


def _bandwidth(size: int, count: int, device: str, seconds_each: float) -> float:
    """Bytes a second of sums into ``count`` tensors, one after the other: two are read and one is written. Their memory
    is there already: whether a process gets its pages anew is chance, and six times slower."""
    a, b = (torch.ones(size // 4, device=device) for _ in range(2))
    sums = [torch.empty_like(a) for _ in range(count)]
    took = _seconds(lambda: [torch.add(a, b, out=one) for one in sums], device, seconds_each)
    return 3.0 * size * count / took


def _overhead(device: str, seconds_each: float) -> float:
    """Seconds of an operation on almost nothing, on its way forward and back."""
    x = torch.ones(4, device=device, requires_grad=True)

    def chain() -> None:
        y = x
        for _ in range(SMALL_OPERATIONS // 2):
            y = (y * 1.0).view(4)
        y.sum().backward()  # type: ignore[no-untyped-call]
        x.grad = None

    return _seconds(chain, device, seconds_each) / (2 * SMALL_OPERATIONS)


def _seconds(work: Callable[[], object], device: str, limit: float) -> float:
    """Seconds of one call: the median of as many as ``limit`` seconds allow, at least three."""
    _timed(work, device)  # makes memory, chooses kernels
    ends, found = time.perf_counter() + limit, list[float]()
    while len(found) < 3 or time.perf_counter() < ends:
        found.append(_timed(work, device))
    return median(found)


def _timed(work: Callable[[], object], device: str) -> float:
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _resident() -> int | None:
    """Bytes that this process holds, None where the system does not say."""
    path = Path("/proc/self/statm")
    return int(path.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") if path.is_file() else None


def main() -> None:
    """Measure, keep, and print where."""
    import transformers.models.llama.modeling_llama  # noqa: F401  # what every training has loaded

    found = probe()
    print(json.dumps({"kept": str(rates.save(found)), **asdict(found)}))


if __name__ == "__main__":
    main()
