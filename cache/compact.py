"""Few large shards in place of many small ones, under the protocol of every commit.

Rows move a group of shards at a time: the new shard is durable, then the log is replaced by one
that names it in place of the old ones, then those are removed. Killed in between, the next opening
finds shards that no line names, whose rows lie in others byte for byte, and removes them. Rows of
a share go to the plain log: its line is there before the share's lines go, and a key in two logs
counts once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from archiveprobe.base import files
from archiveprobe.base.lock import Lock
from archiveprobe.cache import log, shard
from archiveprobe.cache.key_index import KeyIndex
from archiveprobe.cache.key_piece import key_array
from archiveprobe.cache.log import SHARDS, Commit
from archiveprobe.cache.resume import State, index_place, resume
from archiveprobe.cache.shard import Shard
from archiveprobe.cache.shard_rows import write_shard
from archiveprobe.cache.spec import CacheRecord

SHARD_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Compaction:
    """Shards of a cache before and after, and sentences about what was repaired on the way."""

    before: int
    after: int
    notes: list[str]


def compact(folder: Path, shard_bytes: int = SHARD_BYTES) -> Compaction:
    """Rewrite the cache in `folder` into shards of at most `shard_bytes`, all in the plain log.

    Takes the lock. Needs room on disk for one more shard, and three times its size in memory.
    Readers that are open meanwhile go on. Raises InputError: another writer, a damaged shard, a
    full disk; no row is lost then, nor by a kill, and the next call goes on.
    """
    record = CacheRecord.read(folder)
    with Lock(folder), files.explained(f"compact the cache {folder}"):
        before = _count(folder)
        state = resume(folder, record.row_shape)
        # The plain log last, so that it takes in what shares have left.
        for share in reversed(log.find_shares(folder)):
            for group in list(_groups(_entries(folder, share), shard_bytes)):
                if share is not None or len(group) > 1:
                    _move(folder, share, group, record.row_shape, state)
            if share is not None:
                _remove_share(folder, share)
        # Once more, for the key index of the new shards.
        again = resume(folder, record.row_shape)
        return Compaction(before, _count(folder), state.notes + again.notes)


def _entries(folder: Path, share: str | None) -> list[Commit]:
    return log.read_log(folder / log.commits_name(share)).entries


def _count(folder: Path) -> int:
    return sum(len(_entries(folder, share)) for share in log.find_shares(folder))


def _groups(commits: Sequence[Commit], shard_bytes: int) -> Iterator[list[Commit]]:
    """Yield runs of neighbours that fill a shard together."""
    group: list[Commit] = []
    size = 0
    for commit in commits:
        if group and size + commit.bytes > shard_bytes:
            yield group
            group, size = [], 0
        group.append(commit)
        size += commit.bytes
    if group:
        yield group


def _move(
    folder: Path,
    share: str | None,
    group: Sequence[Commit],
    row_shape: tuple[int, ...] | None,
    state: State,
) -> None:
    """Move the rows of neighbouring shards into one shard of the plain log."""
    parts = [_read(folder, commit, row_shape) for commit in group]
    if share is not None:
        parts = [part for each in parts if len((part := _without(each, state.own)).key)]
    moved = [_write(folder, parts, state)] if parts else []
    if share is not None:
        for commit in moved:
            files.append_durable(folder / log.COMMITS, log.format_commit(commit))
            state.own.add(commit, [key.tobytes() for part in parts for key in part.key])
        moved = []
    entries = _entries(folder, share)
    at = entries.index(group[0])
    entries[at : at + len(group)] = moved
    files.write_whole(folder / log.commits_name(share), b"".join(map(log.format_commit, entries)))
    for commit in group:
        files.remove(folder / SHARDS / commit.file)


def _read(folder: Path, commit: Commit, row_shape: tuple[int, ...] | None) -> Shard:
    path = folder / SHARDS / commit.file
    data = shard.read_proved(path, commit.sha256)
    return shard.read(data, row_shape, commit.rows, path)


def _without(rows: Shard, index: KeyIndex) -> Shard:
    """Return the rows that the plain log does not hold yet."""
    keys = [key.tobytes() for key in rows.key]
    new = index.find(keys, key_array(keys)) < 0
    return Shard(rows.key[new], rows.embeddings[new], rows.norm[new], rows.view_ok[new])


def _write(folder: Path, parts: Sequence[Shard], state: State) -> Commit:
    keys, norm, view_ok = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("key", "norm", "view_ok")
    )
    # Row by row, so that they need not lie in memory once more.
    embeddings = [row for part in parts for row in part.embeddings]
    data = shard.build(keys, embeddings, norm, view_ok)
    commit = write_shard(folder, state.next_sequence, None, data, len(keys))
    state.next_sequence += 1
    return commit


def _remove_share(folder: Path, share: str) -> None:
    """Remove what is left of a share whose rows are all in the plain log."""
    name = folder / log.failures_name(share)
    failures = log.read_failures(name)
    if failures:
        plain = log.read_failures(folder / log.FAILURES)
        files.write_whole(folder / log.FAILURES, log.format_failures(plain | failures))
    for path in (name, folder / log.commits_name(share)):
        files.remove(path)
    files.fsync(folder)
    index = index_place(folder, share)
    for path in sorted(index.iterdir()) if index.is_dir() else []:
        files.discard(path)
    for place in (index, folder / SHARDS / share):
        files.remove_folder(place)
