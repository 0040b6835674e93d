"""Look at the file of every row, and find those that a table names in another way than they are.

A digest is computed anew only where size, mtime or inode are not those of the manifest.
"""

import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from archiveprobe.base.cores import usable_cores
from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import collector_paused
from archiveprobe.base.progress import Notify
from archiveprobe.base.reading import IMAGE_BYTES, TooManyBytesError, digest_of
from archiveprobe.task.config import Task
from archiveprobe.task.decoding import passing_now, rejected
from archiveprobe.task.find_images import printable
from archiveprobe.task.manifest import (
    Entry,
    decoder_of,
    manifest_file,
    read_manifest_with_digest,
)
from archiveprobe.task.match_files import AMBIGUOUS, Match, match_files, text_below
from archiveprobe.task.rows import Row, images_below, locate
from archiveprobe.task.shares import ROWS_PER_UNIT, read_shares

# A file written in the same clock tick as it was hashed may change again unseen.
_SETTLED_NS = 2_000_000_000
# Stands in for a digest where it is enough that there is a file.
_NOT_READ = "-"


def known_entries(task: Task, *, notify: Notify = lambda _: None) -> tuple[list[Entry], str]:
    """Read what earlier runs have seen, and the digest of the manifest, "" where there is none.

    Where the manifest is damaged nothing is known, and `notify` is told.
    """
    decoder = decoder_of(task)
    try:
        known, digest = read_manifest_with_digest(task, decoder=decoder)
    except InputError:
        notify(f"{manifest_file(task)} is damaged or was edited: every image is looked at again")
        known, digest = [], ""
    return known + read_shares(task, decoder), digest


def scan(
    task: Task,
    rows: list[Row],
    known: Sequence[Entry] | None = None,
    *,
    rehash: bool = False,
    owns: Callable[[int], bool] = lambda _: True,
    on_hashed: Callable[[], None] = lambda: None,
    notify: Notify = lambda _: None,
) -> list[Entry]:
    """Look at every row's file and give its entry, hashing only what changed since last time.

    Entries come in the order of the rows. A file that cannot be read gets a rejection. Where a
    table names no file as it is called, the one that it means is looked for: see `match_files`.
    `known` is what earlier runs have seen, by default `known_entries`. A unit of rows that `owns`
    does not take is not read: whether its files are there matters to the files that other rows may
    mean, and their entries hold nothing else.

    Raises:
        InputError: not one of the images that were seen before is there.
    """
    if known is None:
        known, _ = known_entries(task, notify=notify)
    scanner = _Scanner(task.root.resolve(), known, rehash)

    def look(unit: int) -> list[Entry]:
        entries = []
        for row in rows[unit * ROWS_PER_UNIT : (unit + 1) * ROWS_PER_UNIT]:
            entries.append(scanner.look(row, read=owns(unit)))
            if owns(unit):
                on_hashed()
        return entries

    # Threads take no chunks by themselves, and a future for every row weighs more than its entry.
    units = range(-(-len(rows) // ROWS_PER_UNIT))
    workers = min(8, usable_cores())
    with collector_paused(), ThreadPoolExecutor(max_workers=workers) as pool:
        entries = [entry for some in pool.map(look, units) for entry in some]
    if task.tables:
        _match_lost(task, rows, entries, scanner, owns, notify)
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

    def look(self, row: Row, *, read: bool = True) -> Entry:
        """Look at a row's file, or at the one that was found for it before, if it is still so."""
        stored = self._by_written.get(printable(row.path)) if self._by_written else None
        if stored is not None and not _exists(f"{self.root}/{row.path}"):
            entry = self.look_at(row, stored, read=read)
            if entry.status != "missing_file":
                return entry
        return self.look_at(row, row.path, read=read)

    def look_at(self, row: Row, path: str, *, read: bool = True) -> Entry:
        """Look at the file at `path`, which is what the table means by the row's own."""
        shown = printable(path)
        hint = None if self._rehash else self.by_path.get(shown)
        meant = row if path == row.path else row._replace(path=path)
        entry = _look(self.root, meant, shown, hint, self._folders, self._passing, read=read)
        if entry.observed is None and entry.digest:
            entry = entry._replace(observed=self._seen.get(entry.digest))
        return entry if path == row.path else entry._replace(written=printable(row.path))


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
    owns: Callable[[int], bool],
    notify: Notify,
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
            read = owns(at // ROWS_PER_UNIT)
            entries[at] = _of_match(row, entries[at], matches[row.path], scanner, read=read)


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


def _of_match(row: Row, entry: Entry, match: Match, scanner: _Scanner, *, read: bool) -> Entry:
    if match.path is not None:
        return scanner.look_at(row, match.path, read=read)
    if entry.status == "outside_root" and not match.detail.startswith(AMBIGUOUS):
        return entry
    return Entry(row.id, printable(row.path), "", rejected("missing_file", match.detail))


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
    root: Path,
    row: Row,
    path: str,
    hint: Entry | None,
    folders: dict[str, bool],
    passing: frozenset[str],
    *,
    read: bool,
) -> Entry:
    def without(status: str, detail: str = "", size: int | None = None) -> Entry:
        return Entry(row.id, path, "", rejected(status, detail, size))

    try:
        located = find_below(root, row.path, folders)
        if located is None:
            return without("outside_root", "it must lie below the root")
        file, facts = located
        if not stat.S_ISREG(facts.st_mode):
            return without("not_a_file", "it is no ordinary file")
        times = facts.st_mtime_ns, facts.st_ino
        if hint and _is_unchanged(hint, facts):
            return _again(row, path, hint, passing)
        content_digest = digest_of(file, IMAGE_BYTES) if read else _NOT_READ
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


def _again(row: Row, path: str, hint: Entry, passing: frozenset[str]) -> Entry:
    """Return the entry of a file that is as it was."""
    if hint.id == row.id and not hint.written and hint.status not in passing:
        # The very same: a million new ones would take as much memory again.
        return hint
    lasting = None if hint.status in passing else hint.observed
    return Entry(row.id, path, hint.digest, lasting, hint.mtime_ns, hint.inode)


def _is_unchanged(hint: Entry, facts: os.stat_result) -> bool:
    size = hint.observed.bytes if hint.digest and hint.observed else None
    return (size, hint.mtime_ns, hint.inode) == (facts.st_size, facts.st_mtime_ns, facts.st_ino)


def find_below(
    root: Path, path: str, folders: dict[str, bool]
) -> tuple[str, os.stat_result] | None:
    """Find a file and its facts; None where the path or a link on it leaves the resolved root.

    `folders` remembers which folders lie inside. Raises OSError, RuntimeError where links loop, and
    ValueError for a name that no file can have.

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
