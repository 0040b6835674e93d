"""work/manifest.csv: one line per row of the task, and what the decode saw of its image.

The last name of its header holds the SHA-256 of everything else in the file, which is compared
before anything is read: a plain table for people and notebooks that proves itself all the same.

Observations depend on a file's bytes only, so they are carried over by digest when names change.
Where a table writes a path in another way than the file's, the manifest has both: whoever reads it
without the images knows which file was meant.
Size, mtime and inode are kept as a hint that a file's digest is still the one recorded.
"""

import csv
import io
import math
import operator
import os
import re
import stat
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from archiveprobe.base.cores import usable_cores
from archiveprobe.base.errors import InputError
from archiveprobe.base.files import write_whole
from archiveprobe.base.reading import (
    IMAGE_BYTES,
    PRODUCT_BYTES,
    TooManyBytesError,
    digest_of,
    read_product,
)
from archiveprobe.task.config import Task
from archiveprobe.task.decoding import (
    FLAGS,
    POLICY,
    REJECTIONS,
    Observation,
    passing_now,
    rejected,
)
from archiveprobe.task.find_images import printable
from archiveprobe.task.match_files import AMBIGUOUS, Match, match_files, text_below
from archiveprobe.task.rows import Row, images_below, locate
from archiveprobe.task.table_csv import long_cells, text_stream

# A file written in the same clock tick as it was hashed may change again unseen.
_SETTLED_NS = 2_000_000_000
_ROWS_AT_ONCE = 64
_SEAL = "sha256="
_REMEDY = "run `archiveprobe embed`, which looks at every image again and writes it"
DECODER = f"pillow-{'.'.join(version('pillow').split('.')[:2])}/policy-{POLICY['version']}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A row's image: where it lies, the digest of its bytes, and what was observed.

    `written` is the path as the table has it, empty where that is `path`. `digest` is empty where
    no bytes could be read; `observed` is None before the first decode.
    """

    id: str
    path: str
    digest: str = ""
    observed: Observation | None = None
    mtime_ns: int | None = None
    inode: int | None = None
    written: str = ""

    @property
    def status(self) -> str:
        """Return the status, or `new` for an image that was never decoded."""
        return self.observed.status if self.observed else "new"

    @property
    def usable(self) -> bool:
        """Return whether the image was decoded and can have an embedding."""
        return self.observed is not None and self.observed.usable


_OBSERVED = [field.name for field in fields(Observation)]
_DIGEST = re.compile("([0-9a-f]{64})?")
_PHASH = re.compile("([0-9a-f]{16})?")
_COLUMNS = ["id", "path", "digest", *_OBSERVED, "mtime_ns", "inode", "decoder", "written"]
_SEEN = operator.attrgetter(*_OBSERVED)
_UNSEEN = [None] * len(_OBSERVED)
_WHOLE = {"bytes", "width", "height", "frames", "orientation", "exif", "mtime_ns", "inode"}
_REAL = {"border", "red", "green", "blue"}


def manifest_file(task: Task) -> Path:
    """Return where the manifest of a task lies."""
    return task.work / "manifest.csv"


def read_manifest(task: Task) -> list[Entry]:
    """Read the manifest; empty where there is none.

    Raises:
        InputError: the file is not as it was written.
    """
    return read_manifest_with_digest(task)[0]


def read_manifest_with_digest(task: Task, *, decoder: str | None = None) -> tuple[list[Entry], str]:
    """Read the manifest, and the digest of its content; an empty list and "" where there is none.

    With `decoder` only what that decoder has seen counts, since another may see another image.

    Raises:
        InputError: the file is not as it was written.
    """
    file = manifest_file(task)
    content = read_product(file, PRODUCT_BYTES, _REMEDY)
    if content is None:
        return [], ""
    first, end, rows = content.partition(b"\r\n")
    columns, _, seal = first.rpartition(b",")
    content = columns + end + rows
    digest = sha256(content).hexdigest()
    if seal != f"{_SEAL}{digest}".encode():
        raise InputError(f"{file} is damaged or was edited: {_REMEDY}")
    reader = csv.reader(text_stream(content, errors="surrogateescape"), strict=True)
    try:
        with long_cells():
            header = next(reader, [])
            # Manifests of earlier versions end before `written`.
            if header not in (_COLUMNS, _COLUMNS[:-1]):
                raise ValueError("not its header")
            lacking = [""] * (len(_COLUMNS) - len(header))
            return [_parse(cells + lacking, decoder) for cells in reader if cells], digest
    except (csv.Error, ValueError) as error:
        raise InputError(
            f"{file} line {reader.line_num} cannot be read ({error}): {_REMEDY}"
        ) from None


def write_manifest(task: Task, entries: Iterable[Entry]) -> str:
    """Write the manifest in one step; the digest of its content."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for entry in entries:
        # None comes out as an empty cell.
        seen, decoder = (_SEEN(entry.observed), DECODER) if entry.observed else (_UNSEEN, "")
        cells = [entry.id, entry.path, entry.digest, *seen, entry.mtime_ns, entry.inode, decoder]
        writer.writerow([*cells, entry.written])
    plain = out.getvalue().encode("utf-8", "surrogateescape")
    seal = sha256(plain).hexdigest()
    columns, end, rows = plain.partition(b"\r\n")
    write_whole(manifest_file(task), b"".join([columns, f",{_SEAL}{seal}".encode(), end, rows]))
    return seal


def _number(text: str) -> float | None:
    value = float(text) if text else None
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{text!r} measures nothing")
    return value


_READ = {name: lambda text: int(text) if text else None for name in _WHOLE}
_READ_CELL = [_READ.get(name, _number if name in _REAL else str) for name in _COLUMNS]


def _parse(cells: list[str], wanted: str | None) -> Entry:
    if len(cells) != len(_COLUMNS):
        raise ValueError("cells too many or too few")
    values: list[Any] = [read(text) for read, text in zip(_READ_CELL, cells, strict=True)]
    id_, path, key, *seen, mtime_ns, inode, decoder, written = values
    status = sys.intern(seen[0])
    if status and status != "ok" and status not in FLAGS and status not in REJECTIONS:
        raise ValueError(f"unknown status {status!r}")
    if not _DIGEST.fullmatch(key) or not _PHASH.fullmatch(seen[-1]):
        raise ValueError("no digest")
    known = bool(status) and wanted in (None, decoder)
    observed = Observation(status, *seen[1:]) if known else None
    return Entry(id_, path, key, observed, mtime_ns, inode, written)


def scan(
    task: Task,
    rows: list[Row],
    *,
    rehash: bool = False,
    on_hashed: Callable[[], None] = lambda: None,
    notify: Callable[[str], None] = lambda _: None,
) -> list[Entry]:
    """Look at every row's file and give its entry, hashing only what changed since last time.

    Entries come in the order of the rows. A file that cannot be read gets a rejection. Where a
    table names no file as it is called, the one that it means is looked for: see `match_files`.
    Where the manifest is damaged every file is looked at as if for the first time, and `notify` is
    told.

    Raises:
        InputError: not one of the images that were seen before is there.
    """
    try:
        known, _ = read_manifest_with_digest(task, decoder=DECODER)
    except InputError:
        notify(f"{manifest_file(task)} is damaged or was edited: every image is looked at again")
        known = []
    scanner = _Scanner(task.root.resolve(), known, rehash)

    def look(row: Row) -> Entry:
        entry = scanner.look(row)
        on_hashed()
        return entry

    # Threads take no chunks by themselves, and a future for every row weighs more than its entry.
    parts = [rows[start : start + _ROWS_AT_ONCE] for start in range(0, len(rows), _ROWS_AT_ONCE)]
    with ThreadPoolExecutor(max_workers=min(8, usable_cores())) as pool:
        parts_done = pool.map(lambda part: [look(row) for row in part], parts)
        entries = [entry for some in parts_done for entry in some]
    if task.tables:
        _match_lost(task, rows, entries, scanner, notify)
    _check_there(task, scanner.by_path, entries)
    return entries


class _Scanner:
    """Looks at files below a root; what was known of them before spares reading them again."""

    def __init__(self, root: Path, known: Sequence[Entry], rehash: bool) -> None:
        self.root = root
        self.by_path = {entry.path: entry for entry in known}
        self._by_written = {entry.written: entry.path for entry in known if entry.written}
        self._rehash = rehash
        self._folders: dict[str, bool] = {}
        self._passing = passing_now()
        self._seen = {
            entry.digest: entry.observed
            for entry in known
            if entry.digest and entry.observed and entry.status not in self._passing
        }

    def look(self, row: Row) -> Entry:
        """Look at a row's file, or at the one that was found for it before, if it is still so."""
        stored = self._by_written.get(printable(row.path))
        if stored is not None and not _exists(f"{self.root}/{row.path}"):
            entry = self.look_at(row, stored)
            if entry.status != "missing_file":
                return entry
        return self.look_at(row, row.path)

    def look_at(self, row: Row, path: str) -> Entry:
        """Look at the file at `path`, which is what the table means by the row's own."""
        hint = None if self._rehash else self.by_path.get(printable(path))
        entry = _look(self.root, replace(row, path=path), hint, self._folders, self._passing)
        if entry.observed is None and entry.digest:
            entry = replace(entry, observed=self._seen.get(entry.digest))
        return entry if path == row.path else replace(entry, written=printable(row.path))


def _exists(file: str) -> bool:
    try:
        return os.path.lexists(file)
    except ValueError:
        return False  # a NUL in it


def _match_lost(
    task: Task,
    rows: Sequence[Row],
    entries: list[Entry],
    scanner: _Scanner,
    notify: Callable[[str], None],
) -> None:
    """Find the files of rows whose path leads to none; entries change in place."""
    lost = _lost_paths(rows, entries, str(scanner.root))
    if not lost or not task.root.is_dir():
        return
    try:
        files = images_below(task).paths
    except InputError as error:
        notify(str(error))
        return
    taken = [
        entry.path
        for row, entry in zip(rows, entries, strict=True)
        if entry.digest and row.path not in lost
    ]
    matches = match_files(lost, files, taken)
    for at, row in enumerate(rows):
        if row.path in lost:
            entries[at] = _of_match(row, entries[at], matches[row.path], scanner)


def _lost_paths(rows: Sequence[Row], entries: Sequence[Entry], root: str) -> dict[str, str]:
    """Return the written paths that lead to no file, or to one that another row names itself, each
    with the same path as far as it lies below the root.
    """
    matched = {entry.path for entry in entries if entry.written}
    claimed = {e.path for e in entries if e.digest and not e.written and e.path in matched}
    lost: dict[str, str] = {}
    for row, entry in zip(rows, entries, strict=True):
        is_lost = entry.status in ("missing_file", "outside_root")
        if is_lost or (entry.written and entry.path in claimed):
            text = text_below(root, row.path)
            # A link that leads out, or nowhere, bears the very name.
            if text is not None and not (text == row.path and _exists(f"{root}/{text}")):
                lost[row.path] = text
    return lost


def _of_match(row: Row, entry: Entry, match: Match, scanner: _Scanner) -> Entry:
    if match.path is not None:
        return scanner.look_at(row, match.path)
    if entry.status == "outside_root" and not match.detail.startswith(AMBIGUOUS):
        return entry
    return Entry(row.id, printable(row.path), "", rejected("missing_file", match.detail))


def with_found_paths(rows: Sequence[Row], entries: Sequence[Entry]) -> list[Row]:
    """Return the rows with the paths of the files that were found for what their table writes."""
    return [
        replace(row, path=entry.path)
        if entry.written and entry.written == printable(row.path)
        else row
        for row, entry in zip(rows, entries, strict=True)
    ]


def _check_there(task: Task, known: Mapping[str, Entry], entries: Sequence[Entry]) -> None:
    """Refuse where every known image is gone at once: then the folder is not here."""
    before = [entry for entry in entries if entry.path in known and known[entry.path].digest]
    # Where nothing at all is there, `report_missing` says where the images seem to lie.
    gone = [all(entry.status == "missing_file" for entry in some) for some in (before, entries)]
    if before and gone == [True, False]:
        raise InputError(
            f"not one of the {len(before)} images that embed has seen is there, the first is "
            f"{task.root / before[0].path}: bring them back, or correct images.root in "
            f"{task.file}; if they are gone for good, delete {manifest_file(task)}"
        )


def _look(
    root: Path, row: Row, hint: Entry | None, folders: dict[str, bool], passing: frozenset[str]
) -> Entry:
    def without(status: str, detail: str = "", size: int | None = None) -> Entry:
        return Entry(row.id, path, "", rejected(status, detail, size))

    path = printable(row.path)
    try:
        located = _below(root, row.path, folders)
        if located is None:
            return without("outside_root", "it must lie below the root")
        file, facts = located
        if not stat.S_ISREG(facts.st_mode):
            return without("not_a_file", "it is no ordinary file")
        times = facts.st_mtime_ns, facts.st_ino
        if hint and _is_unchanged(hint, facts):
            lasting = None if hint.status in passing else hint.observed
            return Entry(row.id, path, hint.digest, lasting, *times)
        content_digest = digest_of(file, IMAGE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return without("missing_file")
    except TooManyBytesError as error:
        return without("too_many_bytes", str(error.strerror), error.size)
    except RuntimeError:
        return without("unreadable_file", "links in a loop")
    except (OSError, ValueError) as error:
        # ValueError: names that no file can have. The path in an OSError is not for a manifest.
        return without("unreadable_file", getattr(error, "strerror", None) or str(error))
    if time.time_ns() - facts.st_mtime_ns <= _SETTLED_NS:
        return Entry(row.id, path, content_digest)
    return Entry(row.id, path, content_digest, None, *times)


def _is_unchanged(hint: Entry, facts: os.stat_result) -> bool:
    size = hint.observed.bytes if hint.digest and hint.observed else None
    return (size, hint.mtime_ns, hint.inode) == (facts.st_size, facts.st_mtime_ns, facts.st_ino)


def _below(root: Path, path: str, folders: dict[str, bool]) -> tuple[str, os.stat_result] | None:
    """Find the row's file and its facts, or None where the path or a link on it leaves the root.

    Strings, not Paths: a large archive comes here a million times to find that nothing changed.
    """
    if path.startswith("/") or ".." in path.split("/"):
        return None
    file = f"{root}/{path}"
    if not _is_inside(root, file, folders):
        return None
    try:
        facts = os.lstat(file)
    except (FileNotFoundError, NotADirectoryError):
        file = str(locate(root, path))
        if not _is_inside(root, file, folders):
            return None
        facts = os.lstat(file)
    if not stat.S_ISLNK(facts.st_mode):
        return file, facts
    return (file, Path(file).stat()) if Path(file).resolve().is_relative_to(root) else None


def _is_inside(root: Path, file: str, folders: dict[str, bool]) -> bool:
    folder = file.rpartition("/")[0]
    if folder not in folders:
        folders[folder] = Path(folder).resolve().is_relative_to(root)
    return folders[folder]


def with_observations(entries: Iterable[Entry], observed: Mapping[str, Observation]) -> list[Entry]:
    """Update entries with new observations, by digest."""
    return [
        replace(entry, observed=observed[entry.digest]) if entry.digest in observed else entry
        for entry in entries
    ]


def paths_by_digest(rows: Iterable[Row], entries: Iterable[Entry]) -> dict[str, str]:
    """Return one path per distinct image, as the file system knows it, in the order of the rows.

    An entry's own path is for reading: bytes of a name that are not UTF-8 are escaped in it.
    """
    paths: dict[str, str] = {}
    for row, entry in zip(rows, entries, strict=True):
        if entry.digest:
            paths.setdefault(entry.digest, row.path)
    return paths
