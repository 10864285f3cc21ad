"""Freed memory is kept for the next step instead of going back to the system.

Notable: glibc returns every large block at once, and the next step pays for fresh pages: a quarter of the time of a
small step on a CPU. Elsewhere (macOS, musl, CUDA's own cache) there is nothing to do.
"""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Ask glibc to serve large blocks from a heap that it does not trim; False where there is no glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    malloc_option = ctypes.CDLL(None).mallopt
    return bool(malloc_option(M_MMAP_MAX, 0)) and bool(malloc_option(M_TRIM_THRESHOLD, LARGEST))


def release_freed_memory() -> None:
    """Give what is freed back to the system once, so that memory counted from now on is memory in use."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
