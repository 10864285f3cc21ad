"""How fast a machine really is: products by type and size, bytes moved, and what each operation costs beside them.

Notable: rates are measured by a probe of the machine at hand (``models/probe.py`` measures, this reads without torch),
or taken from a device's data sheet times what trainings usually reach of it. A product's rate depends on its smallest
dimension: a line between two points of a short table. A GPU works while the next operations are being launched, a
processor does not.
"""

import hashlib
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from tunesmith.core import files
from tunesmith.plan.devices import Device
from tunesmith.plan.work import Precision

Points = tuple[tuple[int, float], ...]
VERSION = 2  # of the probe: what an older one measured is not comparable
REACHED: dict[str, Points] = {  # of the peak, by the smallest dimension of a product; narrow ones wait for memory
    "cuda": (
        (16, 0.08),
        (64, 0.3),
        (256, 0.5),
        (1024, 0.65),
        (4096, 0.75),
    ),  # consumer cards reach more, the largest less: clocks fall under load
    "cpu": ((16, 0.3), (64, 0.5), (256, 0.65), (1024, 0.75)),  # clocks fall with wide instructions and all cores
}
MOVED = {"cuda": 0.8, "cpu": 0.7}  # of the stated bandwidth, by a large copy
PCIE = 2e10  # bytes a second between devices that have no link of their own
OVERHEAD = {"cuda": 3.5e-6, "cpu": 4e-6}  # seconds an operation: Python, autograd and the launch


@dataclass(frozen=True, slots=True)
class Rates:
    """``products``: operations a second by type, as points (smallest dimension, rate); ``bandwidth``: bytes a second
    of tensors larger than any cache, ``passing`` of activations; ``overhead``: seconds an operation. ``source`` says
    where they come from, ``process_bytes`` what a process holds that has only imported the libraries, ``link`` bytes a
    second to other devices."""

    name: str
    kind: Literal["cpu", "cuda"]
    products: Mapping[Precision, Points]
    bandwidth: float
    passing: float
    overhead: float
    source: Literal["table", "probe"]
    process_bytes: int | None = None
    link: float = PCIE

    def rate(self, precision: Precision, width: float) -> float:
        """Operations a second of products whose smallest dimension is ``width``, on a line between the points (both
        scales logarithmic) and with the root of the width below them, where bytes decide anyway; those of float32 where
        the type has no rate of its own.

        >>> points = {"float32": ((16, 1e9), (64, 4e9))}
        >>> rates = Rates("toy", "cpu", points, 1e9, 1e9, 1e-6, "table")
        >>> [f"{rates.rate('bfloat16', w):.1e}" for w in (8, 16, 32, 64, 9999)]
        ['7.1e+08', '1.0e+09', '2.0e+09', '4.0e+09', '4.0e+09']
        """
        points = self.products.get(precision) or self.products["float32"]
        first, last = points[0], points[-1]
        if width <= first[0]:
            return first[1] * math.sqrt(max(width, 1) / first[0])
        for (w, low), (wide, high) in pairwise(points):
            if width <= wide:
                return low * math.exp(math.log(high / low) * math.log(width / w) / math.log(wide / w))
        return last[1]


def of_device(device: Device) -> Rates:
    """What trainings usually reach of a device's data sheet; good for a factor of two."""
    products: dict[Precision, Points] = {}
    kinds: tuple[Precision, ...] = ("float32", "bfloat16")
    for kind in kinds:
        if kind in device.tflops:
            peak = device.tflops[kind] * 1e12
            products[kind] = tuple((width, share * peak) for width, share in REACHED[device.kind])
    link = PCIE if device.link_gb is None else MOVED[device.kind] * device.link_gb * 1e9
    moved = MOVED[device.kind] * device.bandwidth_gb * 1e9
    return Rates(device.name, device.kind, products, moved, moved, OVERHEAD[device.kind], "table", link=link)


# -- what a probe has left ---------------------------------------------------------------------------------------------


def machine_now() -> dict[str, str]:
    """What a probe's numbers depend on, found without torch. ``machine`` names the file; where the rest has changed,
    what it holds is not valid any more."""
    gpus = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    held = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return {
        "machine": " + ".join([_processor(), *(_line(path, "Model") for path in gpus)]),
        "cores": str(len(held)),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", "all"),
        "torch": importlib.metadata.version("torch"),
        "probe": str(VERSION),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    return (_line(info, "model name") if info.is_file() else "") or platform.processor() or platform.machine()


def _line(path: Path, key: str) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def cache_folder() -> Path:
    """Where probes are kept."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if Path(root).is_absolute() else Path.home() / ".cache") / "tunesmith"


def _place(now: Mapping[str, str]) -> Path:
    return cache_folder() / f"probe-{hashlib.sha256(now['machine'].encode()).hexdigest()[:12]}.json"


def save(rates: Rates) -> Path:
    """Keep what was measured on the machine at hand. Raises DiskError."""
    now = machine_now()
    files.write_text(_place(now), json.dumps({"of": now, "rates": asdict(rates)}, indent=1) + "\n")
    return _place(now)


def kept() -> Rates | None:
    """What was measured on the machine at hand; None where nothing was, or under other circumstances, or where the
    file is damaged: the probe is then run again."""
    now = machine_now()
    try:
        found = json.loads(_place(now).read_text(encoding="utf-8"))
        return _read(found["rates"]) if found["of"] == now else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _read(found: dict[str, Any]) -> Rates:
    products = {kind: tuple((int(w), float(r)) for w, r in points) for kind, points in found["products"].items()}
    rates = Rates(**(found | {"products": products}))
    numbers = [rates.bandwidth, rates.passing, rates.overhead, *(r for points in products.values() for _, r in points)]
    if not all(0 < x < math.inf for x in numbers) or not products["float32"]:
        raise ValueError("rates are positive")
    return rates
