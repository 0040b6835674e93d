"""Limits on the memory of this process, heeded before a library that would wait for it for ever."""

import os
import resource

# numpy and scipy alone take some 250 MB of address space when they are imported.
NEEDED_BYTES = 600_000_000
_AMPLE_BYTES = 8_000_000_000


def heed_memory_limit() -> None:
    """Look at the limit that `ulimit -v` has set.

    OpenBLAS takes memory for every thread while it is imported, and asks again for ever where a
    limit refuses it: with little room it gets one thread, with less nothing is imported at all.

    Raises:
        InputError: the limit is too low for the libraries.
    """
    from archiveprobe.base.errors import InputError

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY or limit >= _AMPLE_BYTES:
        return
    if limit < NEEDED_BYTES:
        raise InputError(
            f"this process may use {limit / 1e6:.0f} MB of memory only (ulimit -v), and the "
            f"libraries alone need {NEEDED_BYTES / 1e6:.0f} MB: raise the limit"
        )
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
