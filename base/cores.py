"""How many cores this process may use: those it may run on, and its containers' processor time."""

import os
from collections.abc import Iterator
from contextlib import suppress
from math import ceil
from pathlib import Path

_GROUPS_OF_PROCESS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Count the cores that this process may keep busy, at least one.

    A scheduler or `taskset` names cores (affinity); a container gets a quota, processor time per
    period, and whoever starts more threads than that is stopped for the rest of every period.
    """
    return max(1, min([_named_cores(), *map(ceil, _quotas())]))


def heed_quotas() -> None:
    """Give libraries as many threads as a quota has cores, unless the environment has a word.

    They count the cores that they may run on: 64 threads use up a quota of two in a thirtieth of
    every period, and all of them stand still for the rest. To be called before their import.
    """
    cores = usable_cores()
    if cores < _named_cores():
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, str(cores))


def _named_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def let_waiting_threads_sleep() -> None:
    """Have threads of OpenMP and OpenBLAS sleep while they wait, unless the environment has a word.

    Those that spin take twenty times as long as soon as another process has a core. OpenMP reads
    its environment when torch is imported and OpenBLAS when numpy is, so this comes before.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # As a power of two, in cycles; by default a thread spins for 2**26 after every product.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")


def _quotas() -> Iterator[float]:
    """Yield the quotas, in cores, of the control groups that this process is in and those above.

    Version 2 has one file, "<microseconds or max> <period>"; version 1 has two, with -1 for no
    quota. A container may be told a path of which it sees the topmost folder only: its own group.
    What cannot be read limits nothing.
    """
    with suppress(OSError):
        for line in _GROUPS_OF_PROCESS.read_text().splitlines():
            controllers, _, path = line.partition(":")[2].partition(":")
            if controllers and "cpu" not in controllers.split(","):
                continue
            top, *names = ("cpu", "cfs_quota_us", "cfs_period_us") if controllers else ("", "max")
            below = Path(path.lstrip("/"))
            for group in (below, *below.parents):
                with suppress(OSError, ValueError, ZeroDivisionError):
                    texts = [(_GROUPS / top / group / f"cpu.{name}").read_text() for name in names]
                    quota, period = map(int, " ".join(texts).split())
                    if quota > 0:
                        yield quota / period
