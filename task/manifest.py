"""work/manifest.csv: one line per row of the task, and what the decode saw of its photograph.

Observations depend on a file's bytes only, so they are carried over by digest when names change.
Size, mtime and inode are kept as a hint that a file's digest is still the one recorded.
"""

import csv
import io
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from task.config import Task
from task.errors import InputError
from task.files import write_whole
from task.images import FLAGS, PASSING, POLICY, REJECTIONS, Observation, digest, rejected
from task.rows import Row, locate, readable

# A file written in the same clock tick as it was hashed may change again unseen.
_SETTLED_NS = 2_000_000_000
DECODER = f"pillow-{'.'.join(version('pillow').split('.')[:2])}/policy-{POLICY['version']}"


@dataclass(frozen=True)
class Entry:
    """A row's photograph: where it lies, the digest of its bytes, and what was observed.

    `digest` is empty where no bytes could be read; `observed` is None before the first decode.
    """

    id: str
    path: str
    digest: str = ""
    observed: Observation | None = None
    mtime_ns: int | None = None
    inode: int | None = None

    @property
    def status(self) -> str:
        """The status, or `new` for a photograph that was never decoded."""
        return self.observed.status if self.observed else "new"

    @property
    def usable(self) -> bool:
        """Whether the photograph was decoded and can have an embedding."""
        return self.observed is not None and self.observed.usable


_OBSERVED = [field.name for field in fields(Observation)]
_COLUMNS = ["id", "path", "digest", *_OBSERVED, "mtime_ns", "inode", "decoder"]
_WHOLE = {"bytes", "width", "height", "frames", "orientation", "exif", "mtime_ns", "inode"}
_REAL = {"border", "red", "green", "blue"}


def manifest_file(task: Task) -> Path:
    """Where the manifest of a task lies."""
    return task.work / "manifest.csv"


def read_manifest(task: Task) -> list[Entry]:
    """Read the manifest; empty where there is none.

    Raises:
        InputError: the file was damaged.
    """
    file = manifest_file(task)
    try:
        content = file.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return []
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    try:
        if reader.fieldnames != _COLUMNS:
            raise ValueError("not its header")
        return [_parse(cells) for cells in reader]
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} line {reader.line_num} is damaged ({error}): delete it and run embed again"
        ) from None


def write_manifest(task: Task, entries: Iterable[Entry]) -> None:
    """Write the manifest in one step."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for entry in entries:
        observed = entry.observed
        seen = [getattr(observed, name) if observed else "" for name in _OBSERVED]
        decoder = DECODER if observed else ""
        cells = [entry.id, entry.path, entry.digest, *seen, entry.mtime_ns, entry.inode, decoder]
        writer.writerow("" if cell is None else cell for cell in cells)
    write_whole(manifest_file(task), out.getvalue().encode("utf-8", "surrogateescape"))


def _parse(cells: Mapping[Any, Any]) -> Entry:
    if None in cells or None in cells.values():
        raise ValueError("cells too many or too few")
    values: dict[str, Any] = {}
    for name in [*_OBSERVED, "mtime_ns", "inode"]:
        text = cells[name]
        if name in _WHOLE:
            values[name] = int(text) if text else None
        elif name in _REAL:
            values[name] = float(text) if text else None
        else:
            values[name] = text
    hint = {"mtime_ns": values.pop("mtime_ns"), "inode": values.pop("inode")}
    status = values["status"]
    if status and status != "ok" and status not in FLAGS | REJECTIONS:
        raise ValueError(f"unknown status {status!r}")
    int(values["phash"] or "0", 16)
    # Another decoder may see another picture, so what the old one saw no longer counts.
    known = bool(status) and cells["decoder"] == DECODER
    observed = Observation(**values) if known else None
    return Entry(cells["id"], cells["path"], cells["digest"], observed, **hint)


def scan(
    task: Task,
    rows: list[Row],
    *,
    rehash: bool = False,
    on_hashed: Callable[[], None] = lambda: None,
) -> list[Entry]:
    """Look at every row's file and give its entry, hashing only what changed since last time.

    Entries come in the order of the rows. A file that cannot be read gets a rejection.
    """
    known = read_manifest(task)
    by_path = {entry.path: entry for entry in known}
    seen = {
        entry.digest: entry.observed
        for entry in known
        if entry.digest and entry.observed and entry.status not in PASSING
    }
    root = task.root.resolve()
    folders: dict[Path, bool] = {}

    def look(row: Row) -> Entry:
        hint = None if rehash else by_path.get(readable(row.path))
        entry = _look(root, row, hint, folders)
        on_hashed()
        if entry.observed or not entry.digest:
            return entry
        return replace(entry, observed=seen.get(entry.digest))

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(look, rows, chunksize=64))


def _look(root: Path, row: Row, hint: Entry | None, folders: dict[Path, bool]) -> Entry:
    entry = Entry(row.id, readable(row.path))
    try:
        file = _below(root, row.path, folders)
        if file is None:
            return replace(entry, observed=rejected("outside_root", "it must lie below the root"))
        facts = file.stat()
        if not stat.S_ISREG(facts.st_mode):
            return replace(entry, observed=rejected("not_a_file", "it is no ordinary file"))
        if hint and hint.digest and hint.observed and _unchanged(hint, facts):
            lasting = None if hint.status in PASSING else hint.observed
            return replace(hint, id=row.id, observed=lasting)
        content_digest = digest(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return replace(entry, observed=rejected("missing_file"))
    except (OSError, ValueError, RuntimeError) as error:
        # RuntimeError and ValueError: links in a loop, and names that no file can have.
        return replace(entry, observed=rejected("unreadable_file", str(error)))
    settled = time.time_ns() - facts.st_mtime_ns > _SETTLED_NS
    return replace(
        entry,
        digest=content_digest,
        mtime_ns=facts.st_mtime_ns if settled else None,
        inode=facts.st_ino if settled else None,
    )


def _unchanged(hint: Entry, facts: os.stat_result) -> bool:
    assert hint.observed is not None
    recorded = (hint.observed.bytes, hint.mtime_ns, hint.inode)
    return recorded == (facts.st_size, facts.st_mtime_ns, facts.st_ino)


def _below(root: Path, path: str, folders: dict[Path, bool]) -> Path | None:
    """The row's file, or None where the path or a link on it leaves the root."""
    if path.startswith("/") or ".." in path.split("/"):
        return None
    file = locate(root, path)
    folder = file.parent
    if folder not in folders:
        folders[folder] = folder.resolve().is_relative_to(root)
    leaves = file.is_symlink() and not file.resolve().is_relative_to(root)
    return file if folders[folder] and not leaves else None


def with_observations(entries: Iterable[Entry], observed: Mapping[str, Observation]) -> list[Entry]:
    """The entries, with new observations laid over by digest."""
    return [
        replace(entry, observed=observed[entry.digest]) if entry.digest in observed else entry
        for entry in entries
    ]


def paths_by_digest(rows: Iterable[Row], entries: Iterable[Entry]) -> dict[str, str]:
    """One path per distinct photograph, as the file system knows it, in the order of the rows.

    An entry's own path is for reading: bytes of a name that are not UTF-8 are escaped in it.
    """
    paths: dict[str, str] = {}
    for row, entry in zip(rows, entries, strict=True):
        if entry.digest:
            paths.setdefault(entry.digest, row.path)
    return paths
