"""Bring a cache folder, in whatever state a fault left it, back to one that can be continued.

Only under the lock: that of a share mends what belongs to this share, the one without a share
mends all. Nothing is deleted but temporaries: what cannot be used is set aside, its rows count as
absent and are computed again.
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
from archiveprobe.cache.log import SET_ASIDE, SHARDS, Commit
from archiveprobe.cache.shard import ShardError


@dataclass
class State:
    """What a cache holds after repair; `notes` are sentences for a person, one for every repair."""

    commits: list[Commit] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)
    next_sequence: int = 0
    notes: list[str] = field(default_factory=list)


def resume(folder: Path, row_shape: tuple[int, ...] | None, share: str | None = None) -> State:
    """Repair `folder` and say what is done. `row_shape` is (views, *shape), None before any row.

    With a `share` only its own log and shards are repaired; the rows that others have count where
    nothing is wrong with them. Raises InputError when the folder cannot be read or written.
    """
    state = State()
    with files.explained(f"resume the cache {folder}"):
        files.make_folder(folder / SHARDS / (share or ""))
        shares = log.find_shares(folder)
        own = shares if share is None else [share]
        if share is None:
            _settle(folder)
        for one in shares:
            if one not in own:
                _count(folder, one, row_shape, state)
        for one in own:
            _mend(folder, one, row_shape, state)
        state.next_sequence = _next_sequence(folder, share)
    return state


def _settle(folder: Path) -> None:
    files.drop_temporaries(folder)
    files.fsync(folder)


def _count(
    folder: Path, share: str | None, row_shape: tuple[int, ...] | None, state: State
) -> None:
    """Count the rows of another writer's log, as they stand."""
    for commit in log.read_log(folder / log.commits_name(share)).entries:
        path = folder / SHARDS / commit.file
        with contextlib.suppress(ShardError):
            if row_shape is not None and shard.size_of(path) == commit.bytes:
                state.keys.update(shard.read_keys(path, row_shape, commit.rows))
                state.commits.append(commit)


def _mend(folder: Path, share: str | None, row_shape: tuple[int, ...] | None, state: State) -> None:
    """Repair one writer's log and shards, and count their rows."""
    commits, place = folder / log.commits_name(share), folder / SHARDS / (share or "")
    # What a killed writer had not come to sync is counted as done from here on.
    for name in (commits, folder / log.failures_name(share)):
        with contextlib.suppress(FileNotFoundError):
            files.fsync(name)
    if place.is_dir():
        files.drop_temporaries(place)
        files.fsync(place)
    files.fsync(folder)
    written = log.read_log(commits)
    own = State(notes=state.notes)
    for commit in written.entries:
        _take(folder, commit.file, commit, row_shape, own)
    kept = len(own.commits)
    for path in _orphans(folder, share, {commit.file for commit in written.entries}):
        _take(folder, path.relative_to(folder / SHARDS).as_posix(), None, row_shape, own)
    if written.damaged or kept != len(written.entries):
        files.write_whole(commits, b"".join(map(log.format_commit, own.commits)))
    else:
        for commit in own.commits[kept:]:
            files.append_durable(commits, log.format_commit(commit))
    if written.damaged:
        state.notes.append(f"{commits.name} had damaged lines, which were removed")
    state.commits += own.commits
    state.keys |= own.keys


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
            commit = commit._replace(file=name)
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


def _orphans(folder: Path, share: str | None, logged: set[str]) -> list[Path]:
    """Return the shards of `share` that its log does not name."""
    place = folder / SHARDS / (share or "")
    shards = place.iterdir() if place.is_dir() else ()
    known = {Path(name).name for name in logged}
    names = (p for p in shards if log.shard_sequence(p.name) is not None and p.name not in known)
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


def _next_sequence(folder: Path, share: str | None) -> int:
    places = [folder / SHARDS / (share or ""), folder / SET_ASIDE / (share or "")]
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
