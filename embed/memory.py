"""Memory that runs out; and keeping freed memory while a network runs on the CPU.

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


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the machine has no more memory, in whichever words it says so."""
    told = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "out of memory" in told
        or "can't allocate memory" in told
    )
