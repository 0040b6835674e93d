"""Which keys a log holds, and in which shard, found without reading shards.

The keys of the last shards are in memory; those of earlier ones in few sorted pieces on disk, of
sizes that grow by a factor, so that a key is written again a few times only while a cache grows.
Only the writer of the log writes them. A piece names the lines of the log that it covers: shards
that have gone since are left out, shards that no piece covers are read.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archiveprobe.base import files
from archiveprobe.cache.key_piece import (
    SUFFIX,
    KeyArray,
    Piece,
    blocks_of,
    build_piece,
    merge_pieces,
    read_piece,
)
from archiveprobe.cache.log import Commit

INDEX = "index"
# Of shards that no piece covers: reading the keys of 16 takes a tenth of a second.
RECENT_ROWS = 1 << 17
RECENT_SHARDS = 16
_GROWTH = 3


class KeyIndex:
    """The keys of the shards of one log, `commits`; `absent` are those that no piece covers.

    `place` is the folder of the pieces. Only with `keep` is anything written there, or removed.
    """

    def __init__(self, place: Path, commits: Sequence[Commit], *, keep: bool) -> None:
        self.commits: list[Commit] = []
        self._place, self._keep = place, keep
        self._numbers: dict[Commit, int] = {}
        self._pieces: list[tuple[Piece, NDArray[np.int64]]] = []
        self._recent: dict[bytes, int] = {}
        self._recent_shards = 0
        wanted = set(commits)
        for piece in _read_pieces(place, keep):
            where = self._number(piece, wanted)
            if (where >= 0).any():
                self._pieces.append((piece, where))
            elif keep and piece.path:
                files.discard(piece.path)
        self.absent = [commit for commit in commits if commit not in self._numbers]

    def __len__(self) -> int:
        return sum(commit.rows for commit in self.commits)

    def covers(self, commit: Commit) -> bool:
        """Return whether the keys of a shard are counted."""
        return commit in self._numbers

    def __iter__(self) -> Iterator[bytes]:
        """Yield the keys, in no order."""
        for piece, where in self._pieces:
            alive = where[piece.numbers] >= 0
            yield from blocks_of(piece.keys if alive.all() else piece.keys[alive])
        yield from self._recent

    def is_recent(self, key: object) -> bool:
        """Return whether a key is one of the last."""
        return key in self._recent

    @property
    def is_on_disk(self) -> bool:
        """Return whether there are keys that are not recent."""
        return bool(self._pieces)

    def find(self, keys: Sequence[bytes], array: KeyArray) -> NDArray[np.int64]:
        """Return, of every key, the number of its shard among `commits`, or -1.

        `array` holds the same keys (n,).
        """
        recent = (self._recent.get(key, -1) for key in keys)
        found = np.fromiter(recent, np.int64, len(keys))
        for piece, where in self._pieces:
            rest = np.flatnonzero(found < 0)
            present, numbers = piece.find(array[rest])
            found[rest[present]] = where[numbers]
        return found

    def add(self, commit: Commit, keys: Sequence[bytes]) -> None:
        """Count the keys of a new shard, which occur nowhere else. Raises OSError."""
        number = self._take(commit)
        self._recent.update(dict.fromkeys(keys, number))
        self._recent_shards += 1
        if len(self._recent) >= RECENT_ROWS or self._recent_shards >= RECENT_SHARDS:
            self._settle()

    def _take(self, commit: Commit) -> int:
        number = self._numbers[commit] = len(self.commits)
        self.commits.append(commit)
        return number

    def _number(self, piece: Piece, wanted: set[Commit]) -> NDArray[np.int64]:
        """Return the numbers of a piece's shards here; -1 where gone, or in another piece."""
        new = (
            self._take(commit) if commit in wanted and commit not in self._numbers else -1
            for commit in piece.commits
        )
        return np.fromiter(new, np.int64, len(piece.commits))

    def _settle(self) -> None:
        """Turn the recent keys into a piece, together with pieces that are not much larger."""
        own = sorted(set(self._recent.values()))
        commits = [self.commits[number] for number in own]
        place = {number: at for at, number in enumerate(own)}
        numbers = (place[number] for number in self._recent.values())
        sources = [(build_piece(self._recent, numbers, commits), np.array(own, np.int64))]
        kept = list(self._pieces)
        if self._keep:
            rows = len(self._recent)
            while kept and len(kept[-1][0].keys) <= _GROWTH * rows:
                sources.append(kept.pop())
                rows += len(sources[-1][0].keys)
            sources = [self._merge(sources)]
        old = {piece.path for piece, _ in self._pieces} - {
            piece.path for piece, _ in kept + sources
        }
        self._pieces = kept + sources
        self._recent.clear()
        self._recent_shards = 0
        for path in old:
            if path is not None:
                files.discard(path)

    def _merge(
        self, sources: list[tuple[Piece, NDArray[np.int64]]]
    ) -> tuple[Piece, NDArray[np.int64]]:
        alive = np.unique(np.concatenate([where for _, where in sources]))
        alive = alive[alive >= 0]
        place = np.full(len(self.commits) + 1, -1)
        place[alive] = np.arange(len(alive))
        # The last place, which -1 leads to, stays -1.
        pieces = [(piece, place[where]) for piece, where in sources]
        commits = [self.commits[number] for number in alive]
        return merge_pieces(self._place, pieces, commits), alive


def _read_pieces(place: Path, keep: bool) -> list[Piece]:
    """Return the pieces that prove themselves, the largest first."""
    with files.explained(f"read {place}"):
        paths = sorted(place.glob(f"*{SUFFIX}")) if place.is_dir() else []
    pieces = []
    for path in paths:
        piece = read_piece(path)
        if piece:
            pieces.append(piece)
        elif keep:
            files.discard(path)
    return sorted(pieces, key=lambda piece: -len(piece.keys))
