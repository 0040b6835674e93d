"""Rows whose photographs are not where the table says: how many, and where they may be."""

from collections.abc import Callable, Sequence
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import Task
from archiveprobe.task.likely import likely_file
from archiveprobe.task.manifest import Entry
from archiveprobe.task.pictures import readable

_FAULTS = {
    "missing_file": "are missing",
    "outside_root": "lie outside images.root, below which every path must stay",
    "not_a_file": "are no ordinary files",
}


def report_missing(task: Task, entries: Sequence[Entry], notify: Callable[[str], None]) -> None:
    """Say how many rows have no file, and which file the first of them may mean.

    Raises:
        InputError: not one row of the table has a file that can be read.
    """
    without = [entry for entry in entries if not entry.digest]
    if task.table and without and len(without) == len(entries):
        raise InputError(_all_missing(task, without))
    for status, fault in _FAULTS.items():
        paths = [entry.path for entry in without if entry.status == status]
        if paths:
            hint = _hint(task.root, paths[0]) if status == "missing_file" else ""
            count = f"{len(paths)} of {len(entries)} photographs"
            notify(f"{count} {fault}: the first is {paths[0]!r}{hint}")


def _all_missing(task: Task, without: Sequence[Entry]) -> str:
    first = without[0]
    none = f"not one of the {len(without)} photographs in {task.table} is there"
    remedy = f"correct images.root in {task.file}, or the paths in the table"
    if not task.root.is_dir():
        return f"{none}: no folder {task.root}{_hint(task.folder, first.path)}: {remedy}"
    why = f"{first.path!r} ({first.status})"
    if first.status == "outside_root":
        why = f"{first.path!r}, which is not below {task.root}"
    if first.status == "missing_file":
        why = f"{task.root / first.path}{_hint(task.root, first.path)}"
    return f"{none}: the first is {why}: {remedy}"


def _hint(root: Path, path: str) -> str:
    found = likely_file(root, path)
    return f" (did you mean {readable(found)!r}?)" if found else ""
