"""The machine at hand, found without torch: its device by name, and the memory that a process may use."""

import os
from pathlib import Path

from tunesmith.core.errors import RecipeError
from tunesmith.core.plan import Machine
from tunesmith.plan.devices import Device, find
from tunesmith.plan.rates import Rates, kept, machine_now

FLAGS = {"amx_bf16", "avx512_bf16"}  # by which a processor is fast in bf16


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


def here() -> tuple[Machine, Device | None, Rates | None]:
    """What a run would be planned for: with a GPU that is known by name, or else the processor; its row in the table of
    devices, where there is one; and what a probe has measured."""
    rates, name = kept(), machine_now()["machine"]
    gpu = next((found for part in name.split(" + ")[1:] if (found := _known(part))), None)
    if gpu is not None:
        return machine_of(gpu), gpu, rates
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text(encoding="utf-8", errors="replace").split()) if info.is_file() else set()
    return Machine("cpu", memory(), bool(flags & FLAGS)), _known(name), rates


def machine_of(device: Device) -> Machine:
    """As a plan sees a device of the table."""
    narrow = device.tflops.get("bfloat16", 0) > device.tflops.get("float32", 0)
    return Machine(device.kind, device.memory, narrow, eight_bit=True)


def _known(name: str) -> Device | None:
    try:
        return find(name)
    except RecipeError:
        return None
