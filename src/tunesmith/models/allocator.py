"""Whether freed memory is kept for what comes next, or goes back to the system at once: two settings of glibc.

Notable: by default glibc returns every large block at once, and the next step pays for fresh pages: a quarter of the
time of a small step on a CPU. While a model is loaded it is the other way round: blocks that are freed between others
that stay are holes, and a model of four bits had as many holes as the whole model has bytes. Elsewhere (macOS, musl,
CUDA's own cache) there is nothing to do.
"""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h
LARGEST = 2**31 - 1
LARGE, BLOCKS = 1 << 17, 1 << 16  # glibc's own first values; what is set no longer grows by itself


def keep_freed_memory() -> bool:
    """Ask glibc to serve large blocks from a heap that it does not trim; False where there is no glibc."""
    return _ask({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: LARGEST})


def return_freed_memory() -> bool:
    """Ask glibc to give each large block pages of its own and to return them as soon as it is freed; False where there
    is no glibc."""
    return _ask({M_MMAP_MAX: BLOCKS, M_MMAP_THRESHOLD: LARGE, M_TRIM_THRESHOLD: LARGE})


def _ask(options: dict[int, int]) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    malloc_option = ctypes.CDLL(None).mallopt
    return all(malloc_option(option, value) for option, value in options.items())


def release_freed_memory() -> None:
    """Give what is freed back to the system once, so that memory counted from now on is memory in use."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
