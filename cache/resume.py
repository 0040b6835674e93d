"""Bring a cache folder, in whatever state a fault left it, back to one that can be continued.

Only under the lock. Nothing is deleted but temporaries: what cannot be used is set aside, its
rows count as absent and are computed again.
"""

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.cache import log, shard, spec
from archiveprobe.cache.log import Commit
from archiveprobe.cache.shard import ShardError

SHARDS = "shards"
SET_ASIDE = "set-aside"


@dataclass
class State:
    """What a cache holds after repair; `notes` are sentences for a person, one for every repair."""

    commits: list[Commit] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)
    next_sequence: int = 0
    notes: list[str] = field(default_factory=list)


def resume(folder: Path, row_shape: tuple[int, ...] | None) -> State:
    """Repair `folder` and say what is done. `row_shape` is (views, *shape), None before any row.

    Raises InputError when the folder cannot be read or written.
    """
    state = State()
    with files.explained(f"resume the cache {folder}"):
        files.make_folder(folder / SHARDS)
        # What a killed writer had not come to sync is counted as done from here on.
        for name in (log.COMMITS, log.FAILURES):
            with contextlib.suppress(FileNotFoundError):
                files.fsync(folder / name)
        for place in (folder, folder / SHARDS):
            files.drop_temporaries(place)
            files.fsync(place)
        written = log.read_log(folder / log.COMMITS)
        for commit in written.entries:
            _take(folder, commit.file, commit, row_shape, state)
        kept = len(state.commits)
        for path in _orphans(folder, {commit.file for commit in written.entries}):
            _take(folder, path.name, None, row_shape, state)
        if written.damaged or kept != len(written.entries):
            lines = b"".join(map(log.format_commit, state.commits))
            files.write_whole(folder / log.COMMITS, lines)
        else:
            for commit in state.commits[kept:]:
                files.append_durable(folder / log.COMMITS, log.format_commit(commit))
        if written.damaged:
            state.notes.append(f"{log.COMMITS} had damaged lines, which were removed")
        state.next_sequence = _next_sequence(folder)
    return state


def set_aside(folder: Path, name: str) -> None:
    """Move a shard out of use, keeping its bytes. Raises OSError; needs the lock."""
    target = folder / SET_ASIDE / name
    files.make_folder(target.parent)
    number = 1
    while target.exists():
        target = target.with_name(f"{name}.{number}")
        number += 1
    files.move_durable(folder / SHARDS / name, target)


def _take(
    folder: Path, name: str, logged: Commit | None, row_shape: tuple[int, ...] | None, state: State
) -> None:
    """Count the rows of a shard as done, or set it aside; one that no line names is read fully."""
    path = folder / SHARDS / name
    try:
        size = shard.size_of(path)
        if logged and size is None:
            state.notes.append(f"{name} is missing: {logged.rows} rows to compute again")
            return
        if row_shape is None:
            raise ShardError(str(path), "the fingerprint file declares no row shape")
        if logged is None:
            commit, keys = _verified(path, row_shape)
        elif size == logged.bytes:
            commit, keys = logged, shard.read_keys(path, row_shape, logged.rows)
        else:
            raise ShardError(str(path), "wrong size")
        if len(set(keys)) != len(keys) or not state.keys.isdisjoint(keys):
            raise ShardError(str(path), "a key occurs twice")
    except ShardError as error:
        set_aside(folder, name)
        state.notes.append(f"{name} set aside ({error.reason})")
        return
    state.keys.update(keys)
    state.commits.append(commit)
    if logged is None:
        state.notes.append(f"{name} adopted: {commit.rows} rows were not in the log")


def _orphans(folder: Path, logged: set[str]) -> list[Path]:
    """Return the shards that the log does not name."""
    place = folder / SHARDS
    shards = place.iterdir() if place.is_dir() else ()
    names = (p for p in shards if log.shard_sequence(p.name) is not None and p.name not in logged)
    return sorted(names)


def _verified(path: Path, row_shape: tuple[int, ...] | None) -> tuple[Commit, list[bytes]]:
    """Read all of a shard; return its line for the log, and its keys. Raises ShardError."""
    if shard.size_of(path) is None:
        raise ShardError(str(path), "missing")
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    rows = shard.read(data, row_shape, where=path)
    if f"-{sha256[:8]}.h5" not in path.name:
        raise ShardError(str(path), "its name does not match its content")
    if (reason := shard.fault(rows)) is not None:
        raise ShardError(str(path), reason)
    keys = [key.tobytes() for key in rows.key]
    return Commit(path.name, len(keys), len(data), sha256), keys


def _next_sequence(folder: Path) -> int:
    places = [folder / SHARDS, folder / SET_ASIDE]
    names = [path.name for place in places if place.is_dir() for path in place.iterdir()]
    # A set-aside name may carry a suffix; its sequence number stays used.
    numbers = [log.shard_sequence(name[: name.find(".h5") + 3]) for name in names]
    return max((number for number in numbers if number is not None), default=-1) + 1


def agree(
    folder: Path,
    fingerprint: Mapping[str, Any],
    request: Mapping[str, Any],
    row_shape: tuple[int, ...] | None,
) -> tuple[spec.CacheRecord, list[str]]:
    """Return the record of `folder`, written or brought up to date, and what was repaired for that.

    Needs the lock. Raises InputError when the folder belongs to another fingerprint or row shape,
    or nothing tells which one it belongs to.
    """
    shape = None if row_shape is None else storable_shape(folder, row_shape)
    record = spec.CacheRecord(folder, fingerprint, request, shape)
    old, notes = _stored_record(record)
    if old is None:
        record.write()
        return record, notes
    changed = spec.differences(old.fingerprint, fingerprint)
    if old.row_shape is not None and shape not in (None, old.row_shape):
        changed.append(("row shape", list(old.row_shape), list(shape or ())))
    if changed:
        path, before, after = changed[0]
        raise InputError(
            f"the cache {folder} was computed with another {path} ({before!s:.80}, now "
            f"{after!s:.80}): embed into the folder of its own fingerprint"
        )
    record = replace(record, row_shape=shape or old.row_shape)
    if record.row_shape != old.row_shape or spec.differences(old.request, request):
        record.write()
    return record, notes


def _stored_record(wanted: spec.CacheRecord) -> tuple[spec.CacheRecord | None, list[str]]:
    """Return the record on disk; None for a new cache. One that is lost or damaged is made again.

    That needs a folder name which says that its shards are those of the wanted fingerprint.
    """
    folder = wanted.folder
    path = folder / spec.FILE
    with files.explained(f"read {path}"):
        exists, shards = path.exists(), _orphans(folder, set())
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
            _verified(path, None)
            with shard.open_checked(path, None) as file:
                return tuple(file["embeddings"].shape[1:])
    return None


def storable_shape(folder: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return `shape` as (views, *shape), or InputError."""
    try:
        return spec.checked_row_shape(shape)
    except ValueError as error:
        raise InputError(f"{error}: it cannot be stored in the cache {folder}") from None
