"""Keeping freed memory in the process while a network runs on the CPU.

glibc gives large buffers back to the kernel when a layer frees them, and the next layer pays for
fresh zeroed pages: with batches of 32 that took two thirds of a MobileNet's time (see LOG.md).
"""

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_BUFFER = 1 << 30
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C library's allocator to reuse large buffers; False where it is not glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_BUFFER)) and bool(
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
    )
