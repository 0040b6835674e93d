"""Rows on their way into one shard: cast, looked at, built into a file, and named."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.cache import log, shard
from archiveprobe.cache.log import Commit


class ShardRows:
    """Rows of one shape that become a shard together, by key (32 bytes); `keys` in order.

    A process without the lock of a cache may write one, under a sequence number that no other
    process uses; the writer of the cache takes it over by `Writer.adopt`.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, tuple[NDArray[np.float16], NDArray[np.float32]]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._rows)

    @property
    def keys(self) -> list[bytes]:
        """Return the keys in order."""
        return list(self._rows)

    @property
    def size(self) -> int:
        """Count the bytes of the embeddings."""
        first = next(iter(self._rows.values()), None)
        return len(self._rows) * first[0].nbytes if first else 0

    def add(self, key: bytes, embedding: NDArray[Any]) -> str | None:
        """Queue the embedding (views, *shape) of `key`; a key that is there changes nothing.

        Returns None, or why there is no row: "non_finite" or "zero", as float16 in any view.
        Raises InputError: the key is no SHA-256.
        """
        check_key(key)
        if key in self._rows:
            return None
        exact = np.asarray(embedding, np.float32)
        # Cast first: 65520 is finite until it is stored. The copy also detaches a reused buffer.
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            stored = exact.astype(np.float16, order="C")
        status = unusable(stored)
        if status is None:
            self._rows[key] = stored, shard.row_norms(exact[None])[0]
        return status

    def discard(self, keys: Iterable[bytes]) -> None:
        """Take the rows of `keys` out."""
        for key in keys:
            del self._rows[key]

    def clear(self) -> None:
        """Take all rows out."""
        self._rows.clear()

    def write(self, folder: Path, sequence: int, share: str | None = None) -> Commit:
        """Write the rows, one at least, as an immutable shard of the cache in `folder`.

        Durable on return; equal rows give an equal file. It counts only once its line is in a log.
        Raises OSError.
        """
        keys = np.frombuffer(b"".join(self._rows), np.uint8).reshape(-1, shard.KEY_BYTES)
        embeddings, norms = zip(*self._rows.values(), strict=True)
        norm = np.stack(norms)
        data = shard.build(keys, embeddings, norm, np.ones(norm.shape, np.bool_))
        return write_shard(folder, sequence, share, data, len(keys))


def write_shard(folder: Path, sequence: int, share: str | None, data: bytes, rows: int) -> Commit:
    """Write the bytes of a shard under the name that they have. Raises OSError."""
    sha256 = hashlib.sha256(data).hexdigest()
    name = log.shard_name(sequence, sha256, share)
    files.write_whole(folder / log.SHARDS / name, data)
    return Commit(name, rows, len(data), sha256)


def check_key(key: bytes) -> None:
    """Raise InputError where a key is no SHA-256."""
    if len(key) != shard.KEY_BYTES:
        raise InputError(
            f"the key {key.hex()!r} is not a SHA-256: pass its {shard.KEY_BYTES} bytes"
        )


def unusable(stored: NDArray[np.float16]) -> str | None:
    """Say why an embedding (views, *shape) is none: "non_finite", or "zero" in any view."""
    if not np.isfinite(stored).all():
        return "non_finite"
    return None if stored.reshape(len(stored), -1).any(axis=1).all() else "zero"
