"""Near-duplicates among embeddings, exactly, for thousands or a million.

Groups are stars: the earliest row that belongs to no group takes every later one that is alike to
itself. So every member is alike to the first of its group, and a chain of small steps, in which the
two ends are strangers, is cut. The groups along which folds are assigned (task/duplicates.py) keep
whole chains instead: there a strange pair costs nothing, and a copy in another fold flatters.
A group of n rows has n - 1 pairs, however alike its rows are.
"""

import hashlib
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from archiveprobe.base.progress import Progress, silent
from archiveprobe.evaluate.alike import (
    HEADS,
    SAMPLE,
    TAILS,
    Axes,
    Tile,
    compare,
    pairs_alike,
    tile_workers,
)
from archiveprobe.evaluate.cosines import blocks, scale_to_unit

_AT_ONCE = 16_384
# Rows whose stars are found together, before the rows after them are compared with these.
_BLOCK = 4096


@dataclass(frozen=True)
class Stars:
    """Groups of near-duplicates among n rows.

    `first` (n,) int64 is the first row of the group of every row, itself where it has no
    near-duplicate, -1 where it has no direction (not finite, or zeros). `cosine` (n,) float32 is
    that with the first, NaN where there is none.
    """

    first: np.ndarray
    cosine: np.ndarray

    @cached_property
    def members(self) -> np.ndarray:
        """Return the rows of all groups of two and more, group by group, the first row first."""
        size = np.bincount(self.first[self.first >= 0], minlength=len(self.first))
        among = np.flatnonzero((self.first >= 0) & (size[self.first] > 1))
        return among[np.argsort(self.first[among], kind="stable")]

    @property
    def groups(self) -> int:
        """Count the groups of two and more rows."""
        return len(np.unique(self.first[self.members]))


def find_near_duplicates(
    matrix: np.ndarray, similarity: float, *, progress: Progress = silent
) -> Stars:
    """Group the rows of a matrix (n, d) whose cosine is `similarity` or more: none is missed.

    The matrix may lie in a file (`numpy.memmap`): it is read block by block, and about 130 numbers
    a row are held in memory. Equal rows are put together first, so that a million blank images cost
    no more than one. Time grows with the square of the rows that begin a group or belong to none.
    """
    equal = _first_of_equal(matrix)
    places = np.flatnonzero(equal == np.arange(len(equal)))
    first, cosine = _stars(matrix, places, similarity, progress)
    of_equal = np.full(len(equal), -1, np.int64)
    known = equal >= 0
    of_equal[known] = np.searchsorted(places, equal[known])
    return Stars(
        np.where(known, places[first][of_equal] if len(places) else -1, -1),
        np.where(known, cosine[of_equal] if len(places) else np.nan, np.nan).astype(np.float32),
    )


def _first_of_equal(matrix: np.ndarray) -> np.ndarray:
    """Return the first row (n,) that has the same bytes as each; -1 where there is no direction."""
    digests, has_direction = [], np.zeros(len(matrix), bool)
    for start in range(0, len(matrix), _AT_ONCE):
        part = np.ascontiguousarray(matrix[start : start + _AT_ONCE])
        has_direction[start : start + len(part)] = np.isfinite(part).all(1) & part.any(1)
        digests += [hashlib.blake2b(row.data, digest_size=16).digest() for row in part]
    # An ending of zero bytes counts for nothing here, but all digests are of one length.
    values = np.array(digests, "S16")
    _, first, which = np.unique(values, return_index=True, return_inverse=True)
    return np.where(has_direction, first[which], -1) if len(values) else np.empty(0, np.int64)


def _stars(
    matrix: np.ndarray, places: np.ndarray, similarity: float, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Group the rows at some places, all of them unlike: first (m,) and cosine (m,) of each."""
    rows = _Rows(matrix, places, similarity)
    with tile_workers() as workers, progress("comparing", len(places)) as advance:
        for start in range(0, len(places), _BLOCK):
            stars = rows.stars(start)
            rows.let_take(stars, start + _BLOCK, workers)
            for _ in range(start, min(len(places), start + _BLOCK)):
                advance()
    return rows.first, rows.cosine


@dataclass(frozen=True)
class _Block:
    """The rows (s,) of a block that no star has taken, as tiles."""

    rows: np.ndarray
    tiles: list[Tile]


class _Rows:
    """Holds the groups of the rows (m,) at some places of a matrix, as far as they are known.

    Open is a row that no star has taken: it begins one, or may be taken still. Sketches are held
    of the open rows and at most as many others.
    """

    def __init__(self, matrix: np.ndarray, places: np.ndarray, similarity: float) -> None:
        self._matrix, self._places, self._similarity = matrix, places, similarity
        count = len(places)
        self.first, self.cosine = np.arange(count), np.ones(count, np.float32)
        self._is_open = np.ones(count, bool)
        sample = np.sort(np.random.default_rng(0).permutation(count)[:SAMPLE])
        axes = Axes.of(self._units(sample), similarity)
        self._kept = np.arange(count)
        width = axes.sketch(self._units(self._kept[:1])).shape[1]
        self._sketch = np.empty((count, width), np.float32)
        for part in blocks(self._kept):
            self._sketch[part] = axes.sketch(self._units(part))

    def stars(self, start: int) -> _Block:
        """Let the stars of the block at `start` take what is alike to them there; return them."""
        rows = start + np.flatnonzero(self._is_open[start : start + _BLOCK])
        units, sketch = self._units(rows), self._sketch[np.searchsorted(self._kept, rows)]
        for heads, tails, cosines in pairs_alike(units, self._similarity, sketch):
            ends = [*np.flatnonzero(np.diff(heads, prepend=-1)), len(heads)]
            for part in map(slice, ends, ends[1:]):
                star = rows[heads[part.start]]
                if self._is_open[star]:
                    self._join(rows[tails[part]], star, cosines[part])
        still = self._is_open[rows]
        units, sketch = units[still], sketch[still]
        parts = [slice(at, at + HEADS) for at in range(0, len(units), HEADS)]
        return _Block(
            rows[still], [Tile(sketch[part], partial(units.__getitem__, part)) for part in parts]
        )

    def let_take(self, stars: _Block, start: int, workers: Executor) -> None:
        """Let stars take what is alike to them among the open rows from `start` on."""
        self._forget(start)
        if not stars.tiles:
            return

        def take(at: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            part = slice(at, at + TAILS)
            # Made here, so that units are held no longer than the tile is compared.
            tile = Tile(self._sketch[part], partial(self._units, self._kept[part]))
            columns, star, cosines = _first_alike(stars.tiles, tile, self._similarity)
            return self._kept[part][columns], stars.rows[star], cosines

        for found in workers.map(take, range(0, len(self._kept), TAILS)):
            self._join(*found)

    def _join(self, rows: np.ndarray, stars: np.ndarray, cosines: np.ndarray) -> None:
        """Let rows that are open belong to stars, one for all of them or one for each."""
        free = self._is_open[rows]
        self.first[rows[free]] = np.broadcast_to(stars, rows.shape)[free]
        self.cosine[rows[free]] = cosines[free]
        self._is_open[rows[free]] = False

    def _forget(self, start: int) -> None:
        """Drop the sketches of the rows before `start`, and of taken ones where they are many."""
        first = int(np.searchsorted(self._kept, start))
        self._kept, self._sketch = self._kept[first:], self._sketch[first:]
        is_open = self._is_open[self._kept]
        if is_open.sum() < len(is_open) / 2:
            self._kept, self._sketch = self._kept[is_open], self._sketch[is_open]

    def _units(self, rows: np.ndarray) -> np.ndarray:
        units: np.ndarray = self._matrix[self._places[rows]].astype(np.float32)
        scale_to_unit(units)
        return units


def _first_alike(
    stars: list[Tile], tile: Tile, similarity: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the rows of a tile that are alike to stars: columns, the first star of each, cosines."""
    found, start = [], 0
    for part in stars:
        heads, columns, cosines = compare(part, tile, similarity)
        found.append((columns, start + heads, cosines))
        start += len(part.sketch)
    columns, heads, cosines = (np.concatenate(part) for part in zip(*found, strict=True))
    # Pairs come star by star: the first of a column is that with its first star.
    columns, at = np.unique(columns, return_index=True)
    return columns, heads[at], cosines[at]
