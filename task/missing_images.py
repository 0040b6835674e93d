"""Rows whose images are not where the table says: how many, and where they may be."""

import os
from collections.abc import Sequence
from pathlib import PurePosixPath

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.base.wording import first_few, quote_few
from archiveprobe.task.config import Task, nearest
from archiveprobe.task.manifest import Entry
from archiveprobe.task.match_files import AMBIGUOUS, count_differences

_FAULTS = {
    "missing_file": "missing",
    "outside_root": "outside images.root, below which every path must stay",
    "not_a_file": "not an ordinary file",
}


def report_missing(task: Task, entries: Sequence[Entry], notify: Notify) -> None:
    """Say how many rows name their file in another way than it is called, and how many have none.

    Raises:
        InputError: not one row of the table has a file that can be read.
    """
    without = [entry for entry in entries if not entry.digest]
    if task.table and without and len(without) == len(entries):
        raise InputError(_all_missing(task, without))
    for remark in (*_match_remarks(entries), *_shared_remarks(entries)):
        notify(remark)
    ambiguous = [entry for entry in without if _is_ambiguous(entry)]
    if ambiguous:
        reasons = [f"{e.written or e.path!r} ({_reason(e)})" for e in ambiguous]
        notify(
            f"{len(ambiguous)} of {len(entries)} rows name no single file, so they have no image: "
            f"{first_few(reasons)}: write the paths below images.root"
        )
    for status, fault in _FAULTS.items():
        some = [e for e in without if e.status == status and not _is_ambiguous(e)]
        if some:
            count = f"{len(some)} of {len(entries)} images"
            shown = quote_few(entry.path for entry in some[1:])
            more = f", then {shown}" if shown else ""
            notify(f"{count} {fault}: the first is {some[0].path!r}{_hint(some[0])}{more}")


def _match_remarks(entries: Sequence[Entry]) -> list[str]:
    matched = [entry for entry in entries if entry.written and entry.digest]
    if not matched:
        return []
    kinds = count_differences((entry.written, entry.path) for entry in matched)
    first = matched[0]
    return [
        f"{len(matched)} of {len(entries)} rows name their file in another way, each a single one: "
        f"{kinds}; the first is {first.written!r} for {first.path!r}"
    ]


def _shared_remarks(entries: Sequence[Entry]) -> list[str]:
    """Say which rows have the same path as another row."""
    first: dict[str, str] = {}
    shared = []
    for entry in entries:
        other = first.setdefault(entry.path, entry.id) if entry.digest else entry.id
        if other != entry.id:
            shared.append(f"{entry.id!r} has that of {other!r}")
    count = f"{len(shared)} of {len(entries)} rows have the file of another row"
    return [f"{count}: {first_few(shared)}"] if shared else []


def _detail(entry: Entry) -> str:
    return entry.observed.detail if entry.observed else ""


def _is_ambiguous(entry: Entry) -> bool:
    return _detail(entry).startswith(AMBIGUOUS)


def _reason(entry: Entry) -> str:
    return _detail(entry).removeprefix(AMBIGUOUS)


def _hint(entry: Entry) -> str:
    is_hint = entry.status == "missing_file" and _detail(entry)
    return f" ({_reason(entry)})" if is_hint else ""


def _all_missing(task: Task, without: Sequence[Entry]) -> str:
    first = without[0]
    none = f"not one of the {len(without)} images in {task.place} is there"
    remedy = f"correct images.root in {task.file}, or the paths in the table"
    if not task.root.is_dir():
        hint = nearest(task.root.name, (path.name for path in task.folder.glob("*/")))
        return f"{none}: no folder {task.root}{hint or _beside(task, first.path)}: {remedy}"
    why = f"{first.path!r} ({first.status})"
    if first.status == "outside_root":
        why = f"{first.path!r}, which is not below {task.root}"
    if first.status == "missing_file":
        why = f"{task.root / first.path}{_hint(first)}"
    return f"{none}: the first is {why}: {remedy}"


def _beside(task: Task, path: str) -> str:
    """Hint at a folder beside the missing root that has the file."""
    name = PurePosixPath(path).name
    folders = [place for place in sorted(task.folder.glob("*/")) if place != task.work]
    for folder in folders:
        for tail in (path.lstrip("/"), name):
            # An id may be too long for a name, which pathlib would raise for.
            if tail and os.path.isfile(folder / tail):  # noqa: PTH113
                return f" (did you mean {folder.name!r}?)"
    return ""
