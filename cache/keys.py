"""The keys of a cache as a set, over the logs of all its writers, in bounded memory."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from itertools import compress, islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from archiveprobe.cache.key_index import KeyIndex
from archiveprobe.cache.key_piece import key_array
from archiveprobe.cache.log import Commit, Failure
from archiveprobe.cache.shard import KEY_BYTES

_AT_ONCE = 1 << 16
_S = TypeVar("_S")


class Keys(Set[bytes]):
    """The keys in `indexes`, each counted once, and in `queue`; a set that asks the disk.

    Asking for many keys at once is far faster than one by one.
    """

    def __init__(self, indexes: Sequence[KeyIndex], queue: Collection[bytes] = ()) -> None:
        self._indexes, self._queue = indexes, queue

    def locate(self, keys: Sequence[bytes | None]) -> NDArray[np.int64]:
        """Return, of every key, the number of its shard among `commits`, -1 for one not there."""
        where = np.full(len(keys), -1)
        proper = (at for at, key in enumerate(keys) if key is not None and len(key) == KEY_BYTES)
        rest = np.fromiter(proper, np.intp)
        first = 0
        for index in self._indexes:
            asked = [key for key in map(keys.__getitem__, rest) if key is not None]
            found = index.find(asked, key_array(asked))
            there = found >= 0
            where[rest[there]] = found[there] + first
            rest = rest[~there]
            first += len(index.commits)
        return where

    def holds(self, keys: Sequence[bytes | None]) -> NDArray[np.bool_]:
        """Return which of the keys (n,) are there; None never is."""
        queued = np.fromiter((key in self._queue for key in keys), np.bool_, len(keys))
        return queued | (self.locate(keys) >= 0)

    def stored(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return those of the keys that are in a shard."""
        return list(compress(keys, self.locate(keys) >= 0))

    def without_rows(self, failures: Mapping[bytes, Failure]) -> dict[bytes, Failure]:
        """Return the failures of the keys that are not there."""
        there = self.holds(list(failures))
        return dict(compress(failures.items(), ~there))

    @property
    def commits(self) -> list[Commit]:
        """Return the shards that the numbers of `locate` count."""
        return [commit for index in self._indexes for commit in index.commits]

    def __contains__(self, key: object) -> bool:
        if key in self._queue or any(index.is_recent(key) for index in self._indexes):
            return True
        known = isinstance(key, bytes) and any(index.is_on_disk for index in self._indexes)
        return known and bool(self.holds([key])[0])  # type: ignore[list-item]

    def __rsub__(self, other: Set[_S]) -> Set[_S]:
        keys = list(other)
        return set(compress(keys, ~self.holds(keys)))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[bytes]:
        for number, index in enumerate(self._indexes):
            yield from _without(index, self._indexes[:number])
        yield from _without(self._queue, self._indexes)

    def __len__(self) -> int:
        count = sum(1 for _ in _without(self._queue, self._indexes))
        for number, index in enumerate(self._indexes):
            others = self._indexes[:number]
            count += (
                sum(1 for _ in _without(index, others)) if any(map(len, others)) else len(index)
            )
        return count

    @classmethod
    def _from_iterable(cls, it: Iterable[_S]) -> Set[_S]:
        return set(it)


def _without(keys: Iterable[bytes], indexes: Sequence[KeyIndex]) -> Iterator[bytes]:
    """Yield those of the keys that are in none of the indexes."""
    if not indexes:
        yield from keys
        return
    known, rest = Keys(indexes), iter(keys)
    while part := list(islice(rest, _AT_ONCE)):
        yield from compress(part, ~known.holds(part))
