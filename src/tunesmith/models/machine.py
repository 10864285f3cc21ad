"""The device that models are loaded on, and what it can do."""

import importlib.util
import os

import torch

from tunesmith.core.plan import Machine


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def machine() -> Machine:
    """The device that ``load`` would take, for the plan."""
    if torch.cuda.is_available():
        return Machine("cuda", torch.cuda.get_device_properties(0).total_memory, has_fast_bfloat16(), has_eight_bit())
    known = "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else None
    return Machine("cpu", memory, has_fast_bfloat16(), has_eight_bit())


def has_eight_bit() -> bool:
    """Whether bitsandbytes is installed."""
    return importlib.util.find_spec("bitsandbytes") is not None


def has_fast_bfloat16() -> bool:
    """Whether bf16 products are faster than float32 here: any CUDA device, or a CPU with AMX or AVX-512 BF16."""
    return torch.cuda.is_available() or torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
