"""Rows whose images are not where the table says: how many, and where they may be."""

import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import Task, nearest
from archiveprobe.task.find_images import has_image_extension, printable
from archiveprobe.task.manifest import Entry

# All files of a large archive on a network disk would take minutes.
_LOOKED_AT = 50_000
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
            count = f"{len(paths)} of {len(entries)} images"
            notify(f"{count} {fault}: the first is {paths[0]!r}{hint}")


def _all_missing(task: Task, without: Sequence[Entry]) -> str:
    first = without[0]
    none = f"not one of the {len(without)} images in {task.table} is there"
    remedy = f"correct images.root in {task.file}, or the paths in the table"
    if not task.root.is_dir():
        folder = nearest(task.root.name, (path.name for path in task.folder.glob("*/")))
        return f"{none}: no folder {task.root}{folder or _hint(task.folder, first.path)}: {remedy}"
    why = f"{first.path!r} ({first.status})"
    if first.status == "outside_root":
        why = f"{first.path!r}, which is not below {task.root}"
    if first.status == "missing_file":
        why = f"{task.root / first.path}{_hint(task.root, first.path)}"
    return f"{none}: the first is {why}: {remedy}"


def _hint(root: Path, path: str) -> str:
    found = likely_file(root, path)
    return f" (did you mean {printable(found)!r}?)" if found else ""


def likely_file(root: Path, path: str) -> str | None:
    """Find the file below `root` that a missing `path` most likely means, or None.

    It differs in case, in its ending or the lack of one, or lies in another folder.
    """
    # A dead link bears the very name.
    files = (file for file in islice(_files(root), _LOOKED_AT) if file != path)
    ranked = ((_unlikeness(path, file), file) for file in files)
    best = min((rank_and_file for rank_and_file in ranked if rank_and_file[0]), default=None)
    return best[1] if best else None


def _files(root: Path) -> Iterator[str]:
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(n for n in subfolders if not n.startswith(".") and n != "work")
        below = Path(folder).relative_to(root)
        yield from ((below / name).as_posix() for name in sorted(files))


def _unlikeness(wanted: str, file: str) -> int:
    """Rank from 1 (another case) to 4 (another folder and another ending); 0 where nothing fits."""
    left, right = (
        PurePosixPath(unicodedata.normalize("NFC", path.rstrip(".")).casefold())
        for path in (wanted, file)
    )
    is_image = has_image_extension(right.name)
    fits = (
        left == right,
        is_image and right.parent / right.stem in (left, left.parent / left.stem),
        left.name == right.name,
        is_image and right.stem in (left.name, left.stem),
    )
    return fits.index(True) + 1 if any(fits) else 0
