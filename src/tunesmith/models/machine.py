"""The device that models are loaded on, and what it can do."""

import sys
from pathlib import Path

import torch

from tunesmith.core.plan import Machine
from tunesmith.models.allocator import release_freed_memory
from tunesmith.plan.here import has_bitsandbytes, memory


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def machine() -> Machine:
    """The device that ``load`` would take, for the plan."""
    if torch.cuda.is_available():
        return Machine(
            "cuda", torch.cuda.get_device_properties(0).total_memory, has_fast_bfloat16(), has_bitsandbytes()
        )
    return Machine("cpu", memory(), has_fast_bfloat16(), has_bitsandbytes())


class PeakMemory:
    """The most memory in use from here on; ``what`` names it. A GPU's own count and Linux's count of resident memory
    are set back to what is held now (proc(5): clear_refs); where neither can be, the count is that of the whole process
    since it began, and says so."""

    def __init__(self, process: Path = Path("/proc/self")) -> None:
        self.status = process / "status"
        release_freed_memory()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.what = "GPU memory while training"
            return
        try:
            (process / "clear_refs").write_text("5", encoding="ascii")
            self.what = "resident memory of the process while training"
        except OSError:
            self.what = "resident memory of the whole process, from its start on"

    def bytes(self) -> int | None:
        """The peak until now; None where the system does not count it."""
        if torch.cuda.is_available():
            return int(torch.cuda.max_memory_allocated())
        if self.status.is_file():
            peaks = [line.split()[1] for line in self.status.read_text().splitlines() if line.startswith("VmHWM:")]
            return 1024 * int(peaks[0]) if peaks else None
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # Linux and the BSDs count in kilobytes
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def has_fast_bfloat16() -> bool:
    """Whether bf16 products are faster than float32 here: a GPU or a processor with instructions for them (Ampere;
    AMX or AVX-512 BF16)."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
