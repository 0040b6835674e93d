"""Sorted keys of some shards, in one immutable file that is named by the SHA-256 of its bytes.

It holds the lines of the commit log that it covers, an empty line, the keys (n, 32) in order, and
for every key the number of its line (n uint32, little endian, from 0). A file that does not prove
itself is no piece, and is made again from the shards.
"""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import digest_of
from archiveprobe.cache import log, shard
from archiveprobe.cache.log import Commit

SUFFIX = ".keys"
_KEY = np.dtype(f"S{shard.KEY_BYTES}")
_NUMBER = np.dtype("<u4")
_BLOCK_ROWS = 1 << 16

KeyArray = NDArray[np.bytes_]
"""Keys (n,) of 32 bytes; numpy compares them byte by byte, and drops zeros only from scalars."""


@dataclass(frozen=True)
class Piece:
    """Keys (n,), sorted, and the numbers (n,) of their shards among `commits`; `path` of a file."""

    keys: KeyArray
    numbers: NDArray[np.uint32]
    commits: Sequence[Commit]
    path: Path | None = None

    def find(self, keys: KeyArray) -> tuple[NDArray[np.bool_], NDArray[np.uint32]]:
        """Return which of the keys (n,) are there, and the numbers of the shards of those."""
        at = np.searchsorted(self.keys, keys)
        at[at == len(self.keys)] = 0
        present = self.keys[at] == keys
        return present, self.numbers[at[present]]


def key_array(keys: Iterable[bytes]) -> KeyArray:
    """Return keys of 32 bytes as an array (n,)."""
    return np.frombuffer(b"".join(keys), _KEY)


def blocks_of(keys: KeyArray) -> Iterator[bytes]:
    """Yield the keys (n,) one by one."""
    for start in range(0, len(keys), _BLOCK_ROWS):
        data = keys[start : start + _BLOCK_ROWS].tobytes()
        yield from (data[at : at + _KEY.itemsize] for at in range(0, len(data), _KEY.itemsize))


def build_piece(keys: Iterable[bytes], numbers: Iterable[int], commits: Sequence[Commit]) -> Piece:
    """Sort keys that come with the numbers of their shards."""
    unsorted = key_array(keys)
    order = np.argsort(unsorted, kind="stable")
    return Piece(unsorted[order], np.fromiter(numbers, _NUMBER, len(order))[order], commits)


def read_piece(path: Path) -> Piece | None:
    """Map a piece into memory; None where it is gone or does not prove itself.

    Raises InputError where the disk does not say.
    """
    try:
        with files.explained(f"read {path}"):
            # Read rather than mapped: what is mapped and touched counts as memory in use.
            if not (size := shard.size_of(path)) or digest_of(path, size) + SUFFIX != path.name:
                return None
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return _parse(data, path)
    except (shard.ShardError, ValueError):
        pass
    except InputError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
    return None


def _parse(data: mmap.mmap, path: Path) -> Piece:
    lines = data.find(b"\n\n") + 1
    share = path.parent.name if log.is_share(path.parent.name) else None
    commits = log.parse_log(data[:lines], share).entries
    rows = sum(commit.rows for commit in commits)
    start = lines + 1
    if not rows or len(data) != start + rows * (_KEY.itemsize + _NUMBER.itemsize):
        raise ValueError("its size is not that of its rows")
    keys = np.frombuffer(data, _KEY, rows, start)
    numbers = np.frombuffer(data, _NUMBER, rows, start + keys.nbytes)
    if numbers.max() >= len(commits):
        raise ValueError("it names a shard that it does not list")
    return Piece(keys, numbers, commits, path)


def merge_pieces(
    place: Path, pieces: Sequence[tuple[Piece, NDArray[np.int64]]], commits: Sequence[Commit]
) -> Piece:
    """Write pieces as a single one into the folder `place`, and map it.

    With each comes, for its own numbers, the number among `commits`, or -1 for a shard that is no
    more. Needs 5 bytes of memory a row. Raises OSError.
    """
    path = files.write_digested(place, _merged(pieces, commits), SUFFIX)
    piece = read_piece(path)
    if piece is None:
        raise OSError(f"{path} does not read back as it was written")
    return piece


def _merged(
    pieces: Sequence[tuple[Piece, NDArray[np.int64]]], commits: Sequence[Commit]
) -> Iterator[bytes]:
    yield b"".join(map(log.format_commit, commits)) + b"\n"
    numbers: list[bytes] = []
    # Between neighbouring cuts no piece has more rows than a block.
    cuts = np.sort(np.concatenate([piece.keys[::_BLOCK_ROWS] for piece, _ in pieces]))
    ends = [[*np.searchsorted(piece.keys, cuts), len(piece.keys)] for piece, _ in pieces]
    starts = [0] * len(pieces)
    for stops in zip(*ends, strict=True):
        parts = [slice(start, stop) for start, stop in zip(starts, stops, strict=True)]
        keys = np.concatenate([p.keys[part] for (p, _), part in zip(pieces, parts, strict=True)])
        where = np.concatenate(
            [new[p.numbers[part]] for (p, new), part in zip(pieces, parts, strict=True)]
        )
        # Stable sorting is merging, where sorted runs follow each other.
        order = np.argsort(keys, kind="stable")
        order = order[where[order] >= 0]
        yield keys[order].tobytes()
        numbers.append(where[order].astype(_NUMBER).tobytes())
        starts = list(stops)
    yield from numbers
