"""Write a cache: rows are queued, and committed as immutable shards that survive any fault."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock, wait_for_lock
from archiveprobe.cache import log, shard, spec
from archiveprobe.cache.keys import Keys
from archiveprobe.cache.log import Commit, Failure
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.resume import State, agree, resume, set_aside
from archiveprobe.cache.shard_rows import ShardRows, check_key, unusable

__all__ = ["COMMIT_BYTES", "COMMIT_SECONDS", "Failure", "Reader", "Writer", "unusable"]

COMMIT_SECONDS = 60.0
# A commit needs this much once more, for the shard that it builds.
COMMIT_BYTES = 8 * 2**20
_RECORD_LOCK = "LOCK-record"


class Writer:
    """The writer of a cache folder, or of one share of the work, from `Writer.open`; a context
    manager.

    Rows count as done when `commit` returns; it runs by itself once the oldest queued row has
    waited `commit_seconds` or the queue exceeds `commit_bytes`, and on leaving the context, also
    by an exception.
    """

    def __init__(
        self,
        lock: Lock,
        record: spec.CacheRecord,
        state: State,
        *,
        commit_seconds: float = COMMIT_SECONDS,
        commit_bytes: int = COMMIT_BYTES,
        share: str | None = None,
    ) -> None:
        self.folder = record.folder
        self.notes: list[str] = state.notes
        """What had to be repaired on opening, a sentence each."""
        self._rows = ShardRows()
        self.keys = Keys(state.indexes, self._rows)
        """Committed and queued rows."""
        self.failures: dict[bytes, Failure] = self.keys.without_rows(
            log.read_all_failures(self.folder)
        )
        self._index = state.own
        self._share = share
        self._lock = lock
        self._record = record
        self._row_shape = record.row_shape
        self._sequence = state.next_sequence
        self._limits = (commit_seconds, commit_bytes)
        self._new_failures: dict[bytes, Failure] = {}
        self._since: float | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        fingerprint: Mapping[str, Any],
        request: Mapping[str, Any],
        *,
        commit_seconds: float = COMMIT_SECONDS,
        commit_bytes: int = COMMIT_BYTES,
        share: str | None = None,
    ) -> "Writer":
        """Create or resume the cache in `folder`.

        The stored request becomes `request`. `share` ("2of4") makes it one of several writers: each
        knows the rows that the others had when it opened, and mends and writes its own only; the
        writer without a share excludes them all, and mends all. Raises InputError: another writer,
        another fingerprint, a folder that cannot be written.
        """
        if share is not None and not log.is_share(share):
            raise InputError(f"{share!r} is not a share: write it as 2of4")
        with files.explained(f"create the cache {folder}"):
            files.make_folder(folder)
        lock = Lock(folder, share=share)
        lock.acquire()
        try:
            with _others_waiting(folder, share):
                record, notes = agree(folder, fingerprint, request)
            state = resume(folder, record.row_shape, share)
            state.notes[:0] = notes
            return cls(
                lock,
                record,
                state,
                commit_seconds=commit_seconds,
                commit_bytes=commit_bytes,
                share=share,
            )
        except BaseException:
            lock.release()
            raise

    @property
    def row_shape(self) -> tuple[int, ...] | None:
        """Return (views, *shape) of every row; None until it is known."""
        return self._row_shape

    @property
    def pending(self) -> int:
        """Count the rows queued and not yet on disk."""
        return len(self._rows)

    def add(self, key: bytes, embedding: NDArray[Any]) -> str | None:
        """Queue the embedding (views, *shape) of `key` (32 bytes); a known key changes nothing.

        That an earlier run has stored a row is found on committing, for all queued rows at once.

        Returns None, or why the row is recorded as a failure instead: "non_finite" or "zero", as
        float16 in any view. Raises InputError when the shape is not the cache's, or when an
        automatic commit fails.
        """
        check_key(key)
        if key in self._rows or self._index.is_recent(key):
            return None
        self._check_shape(np.shape(embedding))
        status = self._rows.add(key, embedding)
        if status is not None:
            self.fail(key, status, f"the embedding is {status.replace('_', '-')} as float16")
            return status
        self.failures.pop(key, None)
        self._new_failures.pop(key, None)
        self._commit_when_due()
        return None

    def adopt(self, commit: Commit) -> None:
        """Take over a shard that another process has written by `ShardRows.write`.

        One that holds a key of this writer's rows is set aside instead, and `notes` says so; one
        that was taken over before changes nothing. Raises InputError: it is missing, damaged, of
        another size or shape.
        """
        path = self.folder / log.SHARDS / commit.file
        self._check_open()
        if self._index.covers(commit):
            return
        size = shard.size_of(path)
        if size != commit.bytes:
            raise shard.ShardError(str(path), f"{size} bytes instead of {commit.bytes}")
        with shard.open_checked(path, self._row_shape, commit.rows) as file:
            keys = [key.tobytes() for key in file["key"][...]]
            self._check_shape(file["embeddings"].shape[1:])
        with files.explained(f"write to the cache {self.folder}"):
            if len(set(keys)) < commit.rows or self.keys.holds(keys).any():
                set_aside(self.folder, commit.file)
                self.notes.append(f"{commit.file} set aside (a key occurs twice)")
                return
            self._declare_row_shape()
            self._log(commit, keys)

    def fail(self, key: bytes, status: str, detail: str) -> None:
        """Record that `key` has no embedding. A known row, or a repeated failure, changes nothing.

        Raises InputError when an automatic commit fails.
        """
        check_key(key)
        failure = Failure(status, detail)
        if key in self.keys or self.failures.get(key) == failure:
            return
        self.failures[key] = self._new_failures[key] = failure
        self._commit_when_due()

    def commit(self) -> None:
        """Bring everything queued to disk. Raises InputError; the queue is kept then."""
        if self._rows or self._new_failures:
            self._check_open()
        with files.explained(f"write to the cache {self.folder}"):
            if self._rows:
                self._commit_rows()
            if self._new_failures:
                lines = log.format_failures(self._new_failures)
                files.append_durable(self.folder / log.failures_name(self._share), lines)
                self._new_failures.clear()
        self._since = None

    def close(self) -> None:
        """Commit, then give the lock back in any case. Raises InputError."""
        try:
            self.commit()
        finally:
            self._lock.release()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self.close()
        except InputError as failed:
            if error is None:
                raise
            # What ended the run explains more than the commit that failed after it.
            error.add_note(str(failed))

    def _commit_when_due(self) -> None:
        seconds, most_bytes = self._limits
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        # A clock that went back must not put the commit off.
        if not 0 <= now - self._since < seconds or self._rows.size > most_bytes:
            self.commit()

    def _commit_rows(self) -> None:
        self._rows.discard(self.keys.stored(self._rows.keys))
        if not self._rows:
            return
        self._declare_row_shape()
        commit = self._rows.write(self.folder, self._sequence, self._share)
        try:
            keys = self._rows.keys
            self._log(commit, keys)
        except BaseException:
            # Else a later commit of more rows would meet these again in an orphan.
            if not self._index.covers(commit):
                with contextlib.suppress(OSError):
                    files.remove(self.folder / log.SHARDS / commit.file)
            raise
        finally:
            if self._index.covers(commit):
                self._rows.clear()
                self._sequence += 1

    def _log(self, commit: Commit, keys: Sequence[bytes]) -> None:
        """Append the line of a shard, from which on its rows count."""
        line = log.format_commit(commit)
        files.append_durable(self.folder / log.commits_name(self._share), line)
        self._index.add(commit, keys)
        for key in self.failures.keys() & set(keys):
            del self.failures[key]

    def _declare_row_shape(self) -> None:
        """Write down the shape before the first shard, which never lies there without its form."""
        if self._record.row_shape == self._row_shape:
            return
        # Another share may have declared another one meanwhile.
        with _others_waiting(self.folder, self._share):
            record = spec.CacheRecord.read(self.folder)
            if record.row_shape not in (None, self._row_shape):
                raise _other_shape(self.folder, self._row_shape, record.row_shape)
            self._record = replace(self._record, row_shape=self._row_shape)
            self._record.write()

    def _check_open(self) -> None:
        if not self._lock.held:
            raise InputError(f"the writer of {self.folder} is closed; open the cache again")

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if self._row_shape is None:
            try:
                self._row_shape = spec.checked_row_shape(shape)
            except ValueError as error:
                raise InputError(
                    f"{error}: it cannot be stored in the cache {self.folder}"
                ) from None
        if shape != self._row_shape:
            raise _other_shape(self.folder, shape, self._row_shape)


@contextlib.contextmanager
def _others_waiting(folder: Path, share: str | None) -> Iterator[None]:
    """Let writers of shares write the record one after the other; one without has no others."""
    with contextlib.ExitStack() as stack:
        if share is not None:
            with files.explained(f"lock {folder} for writing"):
                stack.enter_context(wait_for_lock(folder, _RECORD_LOCK))
        yield


def _other_shape(folder: Path, shape: object, declared: object) -> InputError:
    return InputError(
        f"an embedding for {folder} has shape {shape}, the cache's rows have {declared}: the "
        "fingerprint must tell the two apart"
    )
