"""Read a cache: no lock, nothing written, and never a number that was not stored."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of
from archiveprobe.cache import log, shard
from archiveprobe.cache.key_index import KeyIndex
from archiveprobe.cache.key_piece import KeyArray, key_array
from archiveprobe.cache.keys import Keys
from archiveprobe.cache.log import SET_ASIDE, SHARDS, Commit, Failure
from archiveprobe.cache.resume import index_place, read_new_keys
from archiveprobe.cache.shard import EMBED_AGAIN, Embeddings, ShardError
from archiveprobe.cache.spec import CacheRecord

_T = TypeVar("_T")


class Reader:
    """The rows of a cache as its logs stood on opening; fine on a read-only folder.

    With `keep_shard` the shard that was read last stays in memory (256 MB after compaction), for
    whoever reads rows that lie side by side a few at a time.

    Raises InputError, naming the file, when the record or a log is damaged or a shard is
    missing or of the wrong size.
    """

    def __init__(self, folder: Path, *, keep_shard: bool = False) -> None:
        self.folder = folder
        self.keep_shard = keep_shard
        self._proved: tuple[Commit, bytes] | None = None
        self.record = CacheRecord.read(folder)
        self._logs = self._read_logs()
        while missing := self._find_missing():
            # Rows that were compacted meanwhile are in another shard now.
            before, self._logs = self._logs, self._read_logs()
            if before == self._logs:
                raise InputError(_describe_lost(folder, missing))

    @property
    def commits(self) -> list[Commit]:
        """Return the lines of all logs."""
        return [commit for commits in self._logs.values() for commit in commits]

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
        if sum(map(bool, self._logs.values())) > 1:
            return len(self.keys)
        return sum(commit.rows for commit in self.commits)

    @property
    def size(self) -> int:
        """Count the bytes in all shards."""
        return sum(commit.bytes for commit in self.commits)

    @cached_property
    def keys(self) -> Keys:
        """Return the keys of all rows, set-like. Raises InputError for a damaged shard."""
        return self._after_compaction(Reader._read_keys)

    def _read_keys(self) -> Keys:
        indexes = []
        for share, commits in self._logs.items():
            index = KeyIndex(index_place(self.folder, share), commits, keep=False)
            for commit in index.absent:
                index.add(commit, read_new_keys(index, self.folder, commit, self.row_shape or ()))
            indexes.append(index)
        return Keys(indexes)

    @cached_property
    def failures(self) -> dict[bytes, Failure]:
        """Return images without an embedding; a row that came later takes its failure away."""
        return self.keys.without_rows(log.read_all_failures(self.folder))

    def read(self, keys: Sequence[bytes | None]) -> tuple[NDArray[np.bool_], Embeddings]:
        """Read the rows of `keys`, in that order, repeats allowed; None is never there.

        Also after the cache was compacted.

        Returns present (n,) and embeddings (n, views, *shape) float16, NaN where not present.
        Every shard that holds one of the rows is read whole, once, and compared with the log's
        SHA-256 first: its numbers come from the very bytes that were compared. Raises InputError
        naming a shard that is damaged, and for a cache without any row, whose row shape nobody
        knows.
        """
        if self.row_shape is None:
            raise InputError(f"the cache {self.folder} has no rows yet; run embed")
        return self._after_compaction(lambda reader: reader._read(keys))

    def _read(self, keys: Sequence[bytes | None]) -> tuple[NDArray[np.bool_], Embeddings]:
        shape = self.row_shape or ()
        where, commits = self.keys.locate(keys), self.keys.commits
        out = np.empty((len(keys), *shape), np.float16)
        out[where < 0] = np.nan
        order = np.argsort(where, kind="stable")
        for targets in np.split(order, np.flatnonzero(np.diff(where[order])) + 1):
            if len(targets) and where[targets[0]] >= 0:
                asked = key_array(key for at in targets if (key := keys[at]) is not None)
                self._read_shard(commits[where[targets[0]]], asked, out, targets)
        return where >= 0, out

    def _read_shard(
        self, commit: Commit, keys: KeyArray, out: Embeddings, targets: NDArray[np.intp]
    ) -> None:
        """Read the rows of `keys`, all in one shard, into the places `targets` of `out`."""
        path = self._path(commit)
        data = self._prove(commit)
        with shard.open_checked(data, self.row_shape, commit.rows, path) as file:
            rows = shard.find_rows(file, keys)
            embeddings = file["embeddings"]
            step = embeddings.chunks[0]
            # Only chunks that are asked for, since a shard may have hundreds.
            for chunk in np.unique(rows // step):
                part = np.flatnonzero(rows // step == chunk)
                block = embeddings[chunk * step : (chunk + 1) * step]
                out[targets[part]] = block[rows[part] - chunk * step]

    def _prove(self, commit: Commit) -> bytes:
        """Return the bytes of a shard, compared with the digest in the log."""
        proved = self._proved
        if proved is not None and proved[0] == commit:
            return proved[1]
        # Given back first: two shards at once would need twice the memory.
        proved = self._proved = None
        data = shard.read_proved(self._path(commit), commit.sha256)
        if self.keep_shard:
            self._proved = commit, data
        return data

    def _after_compaction(self, action: Callable[["Reader"], _T]) -> _T:
        """Return what `action` gives; when shards went meanwhile, of the cache as it is now."""
        try:
            return action(self)
        except ShardError:
            new = Reader(self.folder, keep_shard=self.keep_shard)
            if new.commits == self.commits:
                raise
            vars(self).clear()
            vars(self).update(vars(new))
            return action(self)

    def _find_missing(self) -> list[Commit]:
        missing = []
        for commit in self.commits:
            size = shard.size_of(self._path(commit))
            if size is None:
                missing.append(commit)
            elif size != commit.bytes:
                reason = f"{size} bytes instead of {commit.bytes}"
                raise ShardError(str(self._path(commit)), reason, EMBED_AGAIN)
        return missing

    def _read_logs(self) -> dict[str | None, list[Commit]]:
        shares = log.find_shares(self.folder)
        # Compaction moves rows from a share's log to the plain one, which is hence read last.
        logs = {share: self._read_log(share) for share in reversed(shares)}
        return {share: logs[share] for share in shares}

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
    what = number_of(sum(commit.rows for commit in commits), "row")
    first = commits[0].file
    aside = (folder / SET_ASIDE / first).exists()
    why = f"{first} was set aside as damaged" if aside else f"{folder / SHARDS / first} is missing"
    more = f" and {len(commits) - 1} more like it" if len(commits) > 1 else ""
    return (
        f"{what} of the cache {folder} lost the embedding ({why}{more}): "
        "run `archiveprobe embed TASK`, which computes what is lost again"
    )
