"""Bring a cache folder, in whatever state a fault left it, back to one that can be continued.

Only under the lock: that of a share mends what belongs to this share, the one without a share
mends all. Nothing is deleted but temporaries, and shards that no line names whose rows lie in
others byte for byte: what else cannot be used is set aside, its rows count as absent and are
computed again.
"""

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of
from archiveprobe.cache import log, shard, spec
from archiveprobe.cache.key_index import INDEX, KeyIndex
from archiveprobe.cache.key_piece import key_array
from archiveprobe.cache.keys import Keys
from archiveprobe.cache.log import SET_ASIDE, SHARDS, Commit
from archiveprobe.cache.shard import Shard, ShardError


@dataclass
class State:
    """What a cache holds after repair: the keys of the own log, and those of all logs.

    `notes` are sentences for a person, one for every repair.
    """

    own: KeyIndex
    indexes: list[KeyIndex]
    next_sequence: int
    notes: list[str]


def resume(folder: Path, row_shape: tuple[int, ...] | None, share: str | None = None) -> State:
    """Repair `folder` and say what is done. `row_shape` is (views, *shape), None before any row.

    With a `share` only its own log and shards are repaired; the rows that others have count where
    nothing is wrong with them. Raises InputError when the folder cannot be read or written.
    """
    notes: list[str] = []
    with files.explained(f"resume the cache {folder}"):
        files.make_folder(folder / SHARDS / (share or ""))
        if share is None:
            files.drop_temporaries(folder)
        indexes: dict[str | None, KeyIndex] = {}
        for one in log.find_shares(folder):
            if share in (None, one):
                mending = _Mending(folder, row_shape, notes, list(indexes.values()))
                indexes[one] = _mend(mending, one)
            else:
                indexes[one] = _count(folder, one, row_shape)
        return State(indexes[share], list(indexes.values()), _next_sequence(folder, share), notes)


def index_place(folder: Path, share: str | None) -> Path:
    """Return where the pieces of the index of a log lie."""
    return folder / INDEX / (share or "")


def _count(folder: Path, share: str | None, row_shape: tuple[int, ...] | None) -> KeyIndex:
    """Count the rows of another writer's log, as they stand."""
    commits = []
    for commit in log.read_log(folder / log.commits_name(share)).entries:
        with contextlib.suppress(ShardError):
            size = shard.size_of(folder / SHARDS / commit.file)
            if row_shape is not None and size == commit.bytes:
                commits.append(commit)
    return read_index(folder, share, commits, row_shape)


def read_index(
    folder: Path,
    share: str | None,
    commits: Sequence[Commit],
    row_shape: tuple[int, ...] | None,
) -> KeyIndex:
    """Return the keys of the shards of a log that are not damaged, writing nothing."""
    index = KeyIndex(index_place(folder, share), commits, keep=False)
    for commit in index.absent:
        with contextlib.suppress(ShardError):
            index.add(commit, read_new_keys(index, folder, commit, row_shape or ()))
    return index


def read_new_keys(
    index: KeyIndex, folder: Path, commit: Commit, row_shape: tuple[int, ...]
) -> list[bytes]:
    """Read the keys of a shard that no piece covers. Raises ShardError, also for a known key."""
    path = folder / SHARDS / commit.file
    keys = shard.read_keys(path, row_shape, commit.rows)
    check_new(index, path, keys)
    return keys


def check_new(index: KeyIndex, path: Path, keys: Sequence[bytes]) -> None:
    """Raise ShardError where a key occurs twice, in a shard or in the log."""
    # A key twice would shift nothing, but which row is meant is then anyone's guess.
    if len(set(keys)) < len(keys) or (index.find(keys, key_array(keys)) >= 0).any():
        raise ShardError(str(path), "a key occurs twice")


def _mend(mending: "_Mending", share: str | None) -> KeyIndex:
    """Repair one writer's log and shards, and count their rows."""
    folder = mending.folder
    commits, place = folder / log.commits_name(share), folder / SHARDS / (share or "")
    # What a killed writer had not come to sync is counted as done from here on.
    for name in (commits, folder / log.failures_name(share)):
        with contextlib.suppress(FileNotFoundError):
            files.fsync(name)
    for one in (place, index_place(folder, share)):
        if one.is_dir():
            files.drop_temporaries(one)
            files.fsync(one)
    files.fsync(folder)
    written = log.read_log(commits)
    whole = [commit for commit in written.entries if mending.is_whole(commit)]
    index = KeyIndex(index_place(folder, share), whole, keep=True)
    for commit in index.absent:
        mending.take(index, commit.file, commit)
    orphans = _orphans(folder, share, {commit.file for commit in written.entries})
    names = [path.relative_to(folder / SHARDS).as_posix() for path in orphans]
    adopted = [taken for name in names if (taken := mending.take(index, name, None))]
    kept = [commit for commit in written.entries if index.covers(commit)]
    if written.damaged or len(kept) != len(written.entries):
        files.write_whole(commits, b"".join(map(log.format_commit, [*kept, *adopted])))
    else:
        for commit in adopted:
            files.append_durable(commits, log.format_commit(commit))
    if written.damaged:
        mending.notes.append(f"{commits.name} had damaged lines, which were removed")
    return index


def set_aside(folder: Path, name: str) -> None:
    """Move a shard out of use, keeping its bytes. Raises OSError; needs the lock."""
    target = folder / SET_ASIDE / name
    files.make_folder(target.parent)
    number = 1
    while target.exists():
        target = target.with_name(f"{name}.{number}")
        number += 1
    files.move_durable(folder / SHARDS / name, target)


@dataclass
class _Mending:
    """Looks at the shards of a log, and sets aside those that cannot be used; `others` are the
    keys in logs that come before it."""

    folder: Path
    row_shape: tuple[int, ...] | None
    notes: list[str]
    others: list[KeyIndex]

    def is_whole(self, commit: Commit) -> bool:
        """Return whether a shard has the size that its line says."""
        path = self.folder / SHARDS / commit.file
        try:
            size = shard.size_of(path)
            if size is None:
                rows = number_of(commit.rows, "row")
                self.notes.append(f"{commit.file} is missing: {rows} to compute again")
                return False
            if self.row_shape is None:
                raise ShardError(str(path), "the fingerprint file declares no row shape")
            if size != commit.bytes:
                raise ShardError(str(path), "wrong size")
        except ShardError as error:
            self._set_aside(commit.file, error)
            return False
        return True

    def take(self, index: KeyIndex, name: str, logged: Commit | None) -> Commit | None:
        """Count the rows of a shard as done; one that no line names is read fully.

        Returns its line; None where it was set aside.
        """
        path = self.folder / SHARDS / name
        try:
            if self.row_shape is None:
                raise ShardError(str(path), "the fingerprint file declares no row shape")
            if logged:
                commit, keys = logged, read_new_keys(index, self.folder, logged, self.row_shape)
            else:
                orphan, rows = _verified(path, self.row_shape)
                commit, keys = orphan._replace(file=name), [key.tobytes() for key in rows.key]
                if self._is_stored(keys, rows, index):
                    files.remove(path)
                    self.notes.append(f"{name} removed: its rows are in other shards")
                    return None
                check_new(index, path, keys)
        except ShardError as error:
            self._set_aside(name, error)
            return None
        index.add(commit, keys)
        if not logged:
            count = number_of(commit.rows, "row")
            self.notes.append(f"{name} adopted, which was not in the log: {count}")
        return commit

    def _is_stored(self, keys: Sequence[bytes], rows: Shard, index: KeyIndex) -> bool:
        """Return whether other shards hold the rows, byte for byte."""
        stored = Keys([*self.others, index])
        where = stored.locate(keys)
        if (where < 0).any():
            return False
        for number in np.unique(where):
            commit, mine = stored.commits[number], where == number
            path = self.folder / SHARDS / commit.file
            data = shard.read_proved(path, commit.sha256)
            with shard.open_checked(data, self.row_shape, commit.rows, path) as file:
                places = shard.find_rows(file, np.compress(mine, key_array(keys)))
                theirs = file["embeddings"][...][places]
            if theirs.tobytes() != rows.embeddings[mine].tobytes():
                return False
        return True

    def _set_aside(self, name: str, error: ShardError) -> None:
        set_aside(self.folder, name)
        self.notes.append(f"{name} set aside ({error.reason})")


def _orphans(folder: Path, share: str | None, logged: set[str]) -> list[Path]:
    """Return the shards of `share` that its log does not name."""
    place = folder / SHARDS / (share or "")
    shards = place.iterdir() if place.is_dir() else ()
    known = {Path(name).name for name in logged}
    names = (p for p in shards if log.shard_sequence(p.name) is not None and p.name not in known)
    return sorted(names)


def _verified(path: Path, row_shape: tuple[int, ...] | None) -> tuple[Commit, Shard]:
    """Read all of a shard; return its line for the log, and its rows. Raises ShardError."""
    if shard.size_of(path) is None:
        raise ShardError(str(path), "missing")
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    rows = shard.read(data, row_shape, where=path)
    if f"-{sha256[:8]}.h5" not in path.name:
        raise ShardError(str(path), "its name does not match its content")
    if (reason := shard.fault(rows)) is not None:
        raise ShardError(str(path), reason)
    return Commit(path.name, len(rows.key), len(data), sha256), rows


def _next_sequence(folder: Path, share: str | None) -> int:
    places = [folder / SHARDS / (share or ""), folder / SET_ASIDE / (share or "")]
    names = [path.name for place in places if place.is_dir() for path in place.iterdir()]
    # A set-aside name may carry a suffix; its sequence number stays used.
    numbers = [log.shard_sequence(name[: name.find(".h5") + 3]) for name in names]
    return max((number for number in numbers if number is not None), default=-1) + 1


def agree(
    folder: Path, fingerprint: Mapping[str, Any], request: Mapping[str, Any]
) -> tuple[spec.CacheRecord, list[str]]:
    """Return the record of `folder`, written or brought up to date, and what was repaired for that.

    Needs the lock. Raises InputError when the folder belongs to another fingerprint, or nothing
    tells which one it belongs to.
    """
    record = spec.CacheRecord(folder, fingerprint, request)
    old, notes = _stored_record(record)
    if old is None:
        record.write()
        return record, notes
    changed = spec.differences(old.fingerprint, fingerprint)
    if changed:
        path, before, after = changed[0]
        raise InputError(
            f"the cache {folder} was computed with another {path} ({before!s:.80}, now "
            f"{after!s:.80}): embed into the folder of its own fingerprint"
        )
    record = replace(record, row_shape=old.row_shape)
    if spec.differences(old.request, request):
        record.write()
    return record, notes


def _stored_record(wanted: spec.CacheRecord) -> tuple[spec.CacheRecord | None, list[str]]:
    """Return the record on disk; None for a new cache. One that is lost or damaged is made again.

    That needs a folder name which says that its shards are those of the wanted fingerprint.
    """
    folder = wanted.folder
    path = folder / spec.FILE
    with files.explained(f"read {path}"):
        exists = path.exists()
        shards = [
            one for share in log.find_shares(folder) for one in _orphans(folder, share, set())
        ]
    if not exists and not shards:
        return None, []
    try:
        if exists:
            return spec.CacheRecord.read(folder), []
        raise spec.DamagedRecordError(path, "it is missing")
    except spec.DamagedRecordError as error:
        if not folder.name.endswith(f"-{wanted.digest[:16]}"):
            raise
        with files.explained(f"read {folder / SHARDS}"):
            restored = replace(wanted, row_shape=_declared_row_shape(shards))
        restored.write()
        return restored, [f"{spec.FILE} was written again ({error.reason})"]


def _declared_row_shape(shards: list[Path]) -> tuple[int, ...] | None:
    """Return what the first whole shard says of its rows."""
    for path in shards:
        with contextlib.suppress(ShardError):
            return _verified(path, None)[1].embeddings.shape[1:]
    return None
