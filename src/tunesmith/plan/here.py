"""The machine at hand, found without torch: its GPU or its processor, and the memory that a process may use.

Notable: a GPU is known by the name that its driver gives it, which is an alias in the table of devices where it tells
which device it is. Of any other the driver is asked: a plan for the processor would be wrong by a factor.
"""

import importlib.util
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tunesmith.core.errors import RecipeError
from tunesmith.core.plan import Machine
from tunesmith.plan.devices import Device, find
from tunesmith.plan.rates import Rates, kept, machine_now

FLAGS = {"amx_bf16", "avx512_bf16"}  # by which a processor is fast in bf16
AMPERE = 8.0  # the compute capability from which on a GPU has instructions for bf16
DRIVER = ("nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits")


def memory(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes that this process may use: the machine's, or less where a container is held to less; None where the system
    does not say."""
    known = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ())
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else None
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of control groups, the new ones and the old
        path = group / name
        text = path.read_text(encoding="ascii").strip() if path.is_file() else ""
        if text.isdecimal():  # else "max": no limit
            return int(text) if machine is None else min(int(text), machine)
    return machine


def has_bitsandbytes() -> bool:
    """Whether bitsandbytes is installed."""
    return importlib.util.find_spec("bitsandbytes") is not None


def here(extra: Path | None = None) -> tuple[Machine, Device | None, Rates | None, list[str]]:
    """What a run would be planned for: the GPU that it would take, or else the processor; the GPU's row in the table of
    devices, or in the file ``extra``; what a probe has measured; and sentences on what a reader would not expect. A
    processor's name does not say how many of its cores are there, so it has no row. Raises RecipeError, DataError."""
    rates, now = kept(), machine_now()
    gpus = [name for name in now["machine"].split(" + ")[1:] if name] or list(_driver())
    name = _taken(gpus, now, rates)
    if name is None:
        told = [
            f"{gpu} is here, but a run would take the processor: torch cannot use the GPU, or CUDA_VISIBLE_DEVICES "
            "hides it."
            for gpu in gpus[:1]
        ]
        return Machine("cpu", memory(), _fast_processor(), has_bitsandbytes()), None, rates, told
    device = _known(name, extra)
    if device is not None:
        return replace(machine_of(device), eight_bit=has_bitsandbytes()), device, rates, []
    found = _driver().get(name)
    if found is None:
        raise RecipeError(
            f'device: the GPU at hand, "{name}", is not in the table of devices, and nvidia-smi does not tell its '
            "memory. Name a device like it with --device, or describe it under this name in a file of your own "
            "(--devices-file; JSON, the form of plan/devices.json)."
        )
    told = [f"{name} is not in the table of devices: its memory is what its driver says."]
    return Machine("cuda", *found, has_bitsandbytes()), None, rates, told


def machine_of(device: Device) -> Machine:
    """As a plan sees a device of the table. That bitsandbytes is installed there is taken for granted."""
    narrow = device.tflops.get("bfloat16", 0) > device.tflops.get("float32", 0)
    return Machine(device.kind, device.memory, narrow, eight_bit=True)


def _taken(gpus: Sequence[str], now: Mapping[str, str], rates: Rates | None) -> str | None:
    """The GPU that a run would take: the one that was probed, or the first that may be seen; None for the processor."""
    if rates is not None:
        return rates.name if rates.kind == "cuda" else None
    visible = now["gpus"].split(",")[0].strip()
    if now["torch"].endswith("+cpu") or visible in ("", "-1"):
        return None
    place = int(visible) if visible.isdecimal() else 0
    return gpus[place] if place < len(gpus) else None


def _driver() -> dict[str, tuple[int, bool]]:
    """(bytes of memory, whether it is fast in bf16) of each GPU by name, as NVIDIA's driver tells them; nothing where
    it does not answer."""
    try:
        told = subprocess.run(DRIVER, capture_output=True, text=True, check=True, timeout=30).stdout
        rows = [line.rsplit(",", 2) for line in told.splitlines()]
        return {name.strip(): (int(size) << 20, float(capability) >= AMPERE) for name, size, capability in rows}
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}


def _fast_processor() -> bool:
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8", errors="replace").split() if info.is_file() else ()
    return not FLAGS.isdisjoint(flags)


def _known(name: str, extra: Path | None) -> Device | None:
    try:
        return find(name, extra)
    except RecipeError:
        return None
