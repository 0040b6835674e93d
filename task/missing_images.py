"""Rows whose images are not where the table says: how many, and where they may be."""

import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import Task
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
        return f"{none}: no folder {task.root}{_hint(task.folder, first.path)}: {remedy}"
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
    files = islice(_files(root, path), _LOOKED_AT)
    # A dead link bears the very name.
    ranked = ((_unlikeness(path, file), file) for file in files if file != path)
    best = min(((rank, file) for rank, file in ranked if rank), default=None)
    return best[1] if best else None


def _unlikeness(wanted: str, file: str) -> int:
    """Rank from 1 (another case) to 4 (another folder and another ending); 0 where nothing fits."""
    left, right = _plain(wanted), _plain(file)
    if left == right:
        return 1
    left_name, right_name = left.rpartition("/")[2], right.rpartition("/")[2]
    if left_name == right_name:
        return 3
    if not has_image_extension(right_name):
        return 0
    if _stem(right) in (left, _stem(left)):
        return 2
    return 4 if _stem(right_name) in (left_name, _stem(left_name)) else 0


def _plain(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _stem(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)


def _files(root: Path, path: str) -> Iterator[str]:
    """Yield paths of files below `root`: those in the folder of `path` first, then all."""
    folder = path.rpartition("/")[0]
    is_below = not ("\0" in folder or folder.startswith("/") or ".." in folder.split("/"))
    beside = islice(_walk(root, root / folder), 1) if is_below else ()
    return chain.from_iterable(chain(beside, _walk(root, root)))


def _walk(root: Path, start: Path) -> Iterator[list[str]]:
    """Yield the files of `start`, then those of every folder below it, as paths below `root`."""
    for folder, subfolders, files in os.walk(start):
        subfolders[:] = sorted(n for n in subfolders if not n.startswith(".") and n != "work")
        below = Path(folder).relative_to(root)
        yield [(below / name).as_posix() for name in sorted(files)]
