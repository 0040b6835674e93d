"""How many cores this process may use: those it may run on, and its containers' processor time."""

import os
from collections.abc import Iterator
from contextlib import suppress
from math import ceil
from pathlib import Path


def usable_cores() -> int:
    """Count the cores that this process may keep busy, at least one.

    A scheduler or `taskset` names cores (affinity); a container gets a quota, processor time per
    period, and whoever starts more threads than that is stopped for the rest of every period.
    """
    return max(1, min([_cores_by_affinity(), *map(ceil, quotas())]))


def let_waiting_threads_sleep() -> None:
    """Have OpenMP's threads sleep while they wait, unless the environment says otherwise.

    Those that spin take twenty times as long as soon as another process has a core. OpenMP reads
    its environment when torch is imported, so this comes before.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _cores_by_affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quotas(process: Path = Path("/proc/self")) -> Iterator[float]:
    """Yield the quotas, in cores, of the control groups that a process is in and those above.

    Both versions are read: "cpu.max" is one line, "<microseconds or max> <period>"; version 1 has a
    file for each, with -1 for no quota. What cannot be read limits nothing.
    """
    for folder, top, version in _groups(process):
        for group in (folder, *folder.parents):
            if group.is_relative_to(top):
                with suppress(OSError, ValueError, ZeroDivisionError, IndexError):
                    yield from _quota(group, version)


def _quota(group: Path, version: int) -> Iterator[float]:
    if version == 1:
        words = [(group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")]
    else:
        words = (group / "cpu.max").read_text().split()
    if words[0] != "max" and int(words[0]) > 0:
        yield int(words[0]) / int(words[1])


def _groups(process: Path) -> Iterator[tuple[Path, Path, int]]:
    """Yield (folder, mount point, version) of control groups that limit processor time."""
    with suppress(OSError, ValueError, IndexError):
        mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
        for line in (process / "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            version = 1 if controllers else 2
            if version == 1 and "cpu" not in controllers.split(","):
                continue
            for root, top in _mounted(mounts, version):
                # A container may see its own group only, mounted where the topmost one would be.
                inside = Path(path).is_relative_to(root)
                yield top / (Path(path).relative_to(root) if inside else "."), top, version


def _mounted(mounts: list[list[str]], version: int) -> Iterator[tuple[str, Path]]:
    """Yield (root within the hierarchy, mount point) of control groups in mountinfo."""
    for words in mounts:
        kind, _, options = words[words.index("-") + 1 :][:3]
        if kind == ("cgroup" if version == 1 else "cgroup2") and (
            version == 2 or "cpu" in options.split(",")
        ):
            yield words[3], Path(words[4])
