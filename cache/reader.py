"""Read a cache: no lock, nothing written, and never a number that was not stored."""

from collections.abc import KeysView, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archiveprobe.base.errors import InputError
from archiveprobe.cache import log, shard
from archiveprobe.cache.log import SET_ASIDE, SHARDS, Commit, Failure
from archiveprobe.cache.shard import EMBED_AGAIN, Embeddings, ShardError
from archiveprobe.cache.spec import CacheRecord


class Reader:
    """The rows of a cache as its logs stood on opening; fine on a read-only folder.

    Raises InputError, naming the file, when the record or a log is damaged or a shard is
    missing or of the wrong size.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = CacheRecord.read(folder)
        self._logs = [self._read_log(share) for share in log.find_shares(folder)]
        self.commits = [commit for commits in self._logs for commit in commits]
        missing = []
        for commit in self.commits:
            size = shard.size_of(self._path(commit))
            if size is None:
                missing.append(commit)
            elif size != commit.bytes:
                reason = f"{size} bytes instead of {commit.bytes}"
                raise ShardError(str(self._path(commit)), reason, EMBED_AGAIN)
        if missing:
            raise InputError(_describe_lost(folder, missing))

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Return everything the numbers depend on."""
        return self.record.fingerprint

    @property
    def row_shape(self) -> tuple[int, ...] | None:
        """Return (views, *shape) of every row; None as long as the cache is empty."""
        return self.record.row_shape

    @property
    def rows(self) -> int:
        """Count the committed rows; one that several writers have computed counts once."""
        if sum(map(bool, self._logs)) > 1:
            return len(self._index)
        return sum(commit.rows for commit in self.commits)

    @property
    def size(self) -> int:
        """Count the bytes in all shards."""
        return sum(commit.bytes for commit in self.commits)

    @property
    def keys(self) -> KeysView[bytes]:
        """Return the keys of all rows, set-like. Raises InputError for a damaged shard."""
        return self._index.keys()

    @cached_property
    def failures(self) -> dict[bytes, Failure]:
        """Return images without an embedding; a row that came later takes its failure away."""
        failures = log.read_all_failures(self.folder)
        return {key: failure for key, failure in failures.items() if key not in self._index}

    def read(self, keys: Sequence[bytes | None]) -> tuple[NDArray[np.bool_], Embeddings]:
        """Read the rows of `keys`, in that order, repeats allowed; None is never there.

        Returns present (n,) and embeddings (n, views, *shape) float16, NaN where not present.
        Every shard that holds one of the rows is read whole, once, and compared with the log's
        SHA-256 first: its numbers come from the very bytes that were compared. Raises InputError
        naming a shard that is damaged, and for a cache without any row, whose row shape nobody
        knows.
        """
        if self.row_shape is None:
            raise InputError(f"the cache {self.folder} has no rows yet; run embed")
        numbers = (-1 if key is None else self._index.get(key, -1) for key in keys)
        where = np.fromiter(numbers, np.intp, len(keys))
        out = np.empty((len(keys), *self.row_shape), np.float16)
        out[where < 0] = np.nan
        ends = np.cumsum([commit.rows for commit in self.commits], dtype=np.intp)
        # The shard of every key: the first that ends behind its row; -1 for those in none.
        owner = np.where(where < 0, -1, np.searchsorted(ends, where, side="right"))
        for number in np.unique(owner[owner >= 0]):
            commit = self.commits[number]
            targets = np.flatnonzero(owner == number)
            path = self._path(commit)
            data = shard.read_proved(path, commit.sha256)
            with shard.open_checked(data, self.row_shape, commit.rows, path) as file:
                start = ends[number] - commit.rows
                out[targets] = file["embeddings"][...][where[targets] - start]
        return where >= 0, out

    @cached_property
    def _index(self) -> dict[bytes, int]:
        index: dict[bytes, int] = {}
        start = 0
        for commits in self._logs:
            seen: set[bytes] = set()
            for commit in commits:
                keys = shard.read_keys(self._path(commit), self.row_shape or (), commit.rows)
                # A key twice would shift nothing, but which row is meant is then anyone's guess.
                if len(set(keys)) < len(keys) or not seen.isdisjoint(keys):
                    raise ShardError(str(self._path(commit)), "a key occurs twice")
                seen.update(keys)
                for at, key in enumerate(keys, start):
                    index.setdefault(key, at)
                start += commit.rows
        return index

    def _read_log(self, share: str | None) -> list[Commit]:
        path = self.folder / log.commits_name(share)
        written = log.read_log(path)
        if written.bad_lines:
            raise InputError(
                f"{path}: line {written.bad_lines[0]} is damaged; "
                "run `archiveprobe embed TASK`, which mends it"
            )
        return written.entries

    def _path(self, commit: Commit) -> Path:
        return self.folder / SHARDS / commit.file


def _describe_lost(folder: Path, commits: Sequence[Commit]) -> str:
    rows = sum(commit.rows for commit in commits)
    what = "1 row" if rows == 1 else f"{rows} rows"
    first = commits[0].file
    aside = (folder / SET_ASIDE / first).exists()
    why = f"{first} was set aside as damaged" if aside else f"{folder / SHARDS / first} is missing"
    more = f" and {len(commits) - 1} more like it" if len(commits) > 1 else ""
    return (
        f"{what} of the cache {folder} lost the embedding ({why}{more}): "
        "run `archiveprobe embed TASK`, which computes what is lost again"
    )
