"""Write a cache: rows are queued, and committed as immutable shards that survive any fault."""

import contextlib
import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock
from archiveprobe.cache import log, shard, spec
from archiveprobe.cache.log import Commit, Failure
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.resume import SHARDS, State, agree, resume, storable_shape

__all__ = ["COMMIT_BYTES", "COMMIT_SECONDS", "Failure", "Reader", "Writer"]

COMMIT_SECONDS = 60.0
# A commit needs this much once more, for the shard that it builds.
COMMIT_BYTES = 8 * 2**20


class Writer:
    """The one writer of a cache folder, from `Writer.open`; a context manager.

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
    ) -> None:
        self.folder = record.folder
        self.notes: list[str] = state.notes
        """What had to be repaired on opening, a sentence each."""
        self.keys: set[bytes] = state.keys
        """Committed and queued rows."""
        self.failures: dict[bytes, Failure] = {
            key: failure
            for key, failure in log.read_failures(self.folder / log.FAILURES).items()
            if key not in state.keys
        }
        self._lock = lock
        self._record = record
        self._row_shape = record.row_shape
        self._sequence = state.next_sequence
        self._limits = (commit_seconds, commit_bytes)
        self._rows: dict[bytes, tuple[NDArray[np.float16], NDArray[np.float32]]] = {}
        self._new_failures: dict[bytes, Failure] = {}
        self._since: float | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        fingerprint: Mapping[str, Any],
        request: Mapping[str, Any],
        row_shape: tuple[int, ...] | None = None,
        *,
        commit_seconds: float = COMMIT_SECONDS,
        commit_bytes: int = COMMIT_BYTES,
    ) -> "Writer":
        """Create or resume the cache in `folder`.

        `row_shape` is (views, *shape); None takes it from the cache or from the first row. The
        stored request becomes `request`. Raises InputError: another writer, another fingerprint,
        a folder that cannot be written.
        """
        with files.explained(f"create the cache {folder}"):
            files.make_folder(folder)
        lock = Lock(folder)
        lock.acquire()
        try:
            record, notes = agree(folder, fingerprint, request, row_shape)
            state = resume(folder, record.row_shape)
            state.notes[:0] = notes
            return cls(
                lock, record, state, commit_seconds=commit_seconds, commit_bytes=commit_bytes
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

        Returns None, or why the row is recorded as a failure instead: "non_finite" or "zero", as
        float16 in any view. Raises InputError when the shape is not the cache's, or when an
        automatic commit fails.
        """
        _check_key(key)
        if key in self.keys:
            return None
        exact = np.asarray(embedding, np.float32)
        self._check_shape(exact.shape)
        # Cast first: 65520 is finite until it is stored. The copy also detaches a reused buffer.
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            stored = exact.astype(np.float16, order="C")
        status = unusable(stored)
        if status is not None:
            self.fail(key, status, f"the embedding is {status.replace('_', '-')} as float16")
            return status
        self._rows[key] = stored, shard.row_norms(exact[None])[0]
        self.keys.add(key)
        self.failures.pop(key, None)
        self._new_failures.pop(key, None)
        self._commit_when_due()
        return None

    def fail(self, key: bytes, status: str, detail: str) -> None:
        """Record that `key` has no embedding. A known row, or a repeated failure, changes nothing.

        Raises InputError when an automatic commit fails.
        """
        _check_key(key)
        failure = Failure(status, detail)
        if key in self.keys or self.failures.get(key) == failure:
            return
        self.failures[key] = self._new_failures[key] = failure
        self._commit_when_due()

    def commit(self) -> None:
        """Bring everything queued to disk. Raises InputError; the queue is kept then."""
        if not self._lock.held and (self._rows or self._new_failures):
            raise InputError(f"the writer of {self.folder} is closed; open the cache again")
        with files.explained(f"write to the cache {self.folder}"):
            if self._rows:
                self._commit_rows()
            if self._new_failures:
                lines = log.format_failures(self._new_failures)
                files.append_durable(self.folder / log.FAILURES, lines)
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
        queued = len(self._rows) * math.prod(self._row_shape or ()) * np.dtype(np.float16).itemsize
        # A clock that went back must not put the commit off.
        if not 0 <= now - self._since < seconds or queued > most_bytes:
            self.commit()

    def _commit_rows(self) -> None:
        # Declared before the first shard, which never lies there without its form.
        if self._record.row_shape != self._row_shape:
            self._record = replace(self._record, row_shape=self._row_shape)
            self._record.write()
        keys = np.frombuffer(b"".join(self._rows), np.uint8).reshape(-1, shard.KEY_BYTES)
        embeddings, norms = zip(*self._rows.values(), strict=True)
        norm = np.stack(norms)
        data = shard.build(keys, embeddings, norm, np.ones(norm.shape, np.bool_))
        sha256 = hashlib.sha256(data).hexdigest()
        name = log.shard_name(self._sequence, sha256)
        path = self.folder / SHARDS / name
        line = log.format_commit(Commit(name, len(self._rows), len(data), sha256))
        files.write_whole(path, data)
        try:
            files.append_durable(self.folder / log.COMMITS, line)
        except BaseException:
            # Else a later commit of more rows would meet these again in an orphan.
            with contextlib.suppress(OSError):
                files.remove(path)
            raise
        self._rows.clear()
        self._sequence += 1

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if self._row_shape is None:
            self._row_shape = storable_shape(self.folder, shape)
        if shape != self._row_shape:
            raise InputError(
                f"an embedding for {self.folder} has shape {shape}, the cache's rows have "
                f"{self._row_shape}: the fingerprint must tell the two apart"
            )


def _check_key(key: bytes) -> None:
    if len(key) != shard.KEY_BYTES:
        raise InputError(
            f"the key {key.hex()!r} is not a SHA-256: pass its {shard.KEY_BYTES} bytes"
        )


def unusable(stored: NDArray[np.float16]) -> str | None:
    """Say why an embedding (views, *shape) is none: "non_finite", or "zero" in any view."""
    if not np.isfinite(stored).all():
        return "non_finite"
    return None if stored.reshape(len(stored), -1).any(axis=1).all() else "zero"
