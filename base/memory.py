"""Memory that runs out; and keeping freed memory while networks run on the CPU.

glibc gives large buffers back to the kernel when a layer frees them, and the next layer pays for
fresh zeroed pages: with batches of 32 that took two thirds of a MobileNet's time. Threads but the
first have arenas of 64 MB that are given back whichever threshold is set, unless there is only one
arena for all (see LOG.md).
"""

import ctypes
import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager

from archiveprobe.base.errors import InputError

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_LARGEST_BUFFER = 1 << 30
_USUAL_BUFFER = 1 << 17
_NEVER = 2**31 - 1
# What torch, CUDA's libraries, the C library and the kernel say, in small letters. CUDA's libraries
# cannot begin either ("not initialized") where no memory is left for their own work space.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "std::bad_alloc",
    "can't start new thread",
    "_status_alloc_failed",
    "_status_not_initialized",
    "cudnn_status_internal_error",
    "unable to find an engine to execute this computation",
)
# oneDNN says this where its code or its work space finds no memory. What it cannot do at all fails
# a step earlier, at "a primitive descriptor", which is no lack of memory.
_NO_PRIMITIVE = re.compile(r"could not (create|execute) a primitive(?! descriptor)")


def keep_freed_memory() -> bool:
    """Tell the C library's allocator to reuse large buffers; False where it is not glibc."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    wanted = (
        (_M_ARENA_MAX, 1),
        (_M_MMAP_THRESHOLD, _LARGEST_BUFFER),
        (_M_TRIM_THRESHOLD, _NEVER),
    )
    answers = [mallopt(setting, value) for setting, value in wanted]
    return all(answers)


def give_back_freed_memory() -> None:
    """Undo `keep_freed_memory` where memory is short: slower, and the kernel gets all of it.

    Under a limit the kept pieces are soon too small for the next layer, and oneDNN, which asks the
    kernel itself, finds nothing left.
    """
    try:
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_M_MMAP_THRESHOLD, _USUAL_BUFFER)
        library.malloc_trim(0)
    except (OSError, AttributeError):
        return


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the device or the machine has no more memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = str(error).lower()
    return any(said in words for said in _OUT_OF_MEMORY) or bool(_NO_PRIMITIVE.search(words))


@contextmanager
def collector_paused() -> Iterator[None]:
    """Let the garbage collector wait while a great many objects are made that all stay.

    It looks at all of them again whenever they have grown by a quarter, and finds nothing: of the
    time that a manifest of a million rows took to read that was more than half.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def memory_for(what: str, remedy: str) -> Iterator[None]:
    """Say what there was too little memory for, and what helps.

    Raises:
        InputError: the device or the machine has no more memory.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"out of memory {what}: {remedy}") from error
