"""Near-duplicates among embeddings: all pairs for few rows, an inverted file for millions.

Groups are stars: the earliest row that belongs to no group takes every later one that is alike to
itself. So every member is alike to the first of its group, and a chain of small steps, in which the
two ends are strangers, is cut. The groups along which folds are assigned (task/duplicates.py) keep
whole chains instead: there a strange pair costs nothing, and a copy in another fold flatters.
A group of n rows has n - 1 pairs, however alike its rows are.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import numpy as np

from archiveprobe.base.progress import Progress, silent
from archiveprobe.evaluate.cosines import scale_to_unit
from archiveprobe.evaluate.inverted_file import InvertedFile

# Up to so many rows all pairs are compared: the lists of an inverted file take longer to make.
EXACT = 20_000
_AT_ONCE = 16_384
# Neighbours that one search may find, at the worst: 12 bytes each.
_FOUND = 1 << 26
# A search may find what is a little too far: rows were rounded to float16 a second time there.
_ROUNDING = 1e-3


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


class Search(Protocol):
    """Finds, for some rows, others that may be alike: all later ones, or almost all."""

    def near(self, rows: np.ndarray, is_open: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return pairs: which of `rows` (q,), and a row alike to it among those that are open."""
        ...


def find_near_duplicates(
    matrix: np.ndarray, similarity: float, *, exact: int = EXACT, progress: Progress = silent
) -> Stars:
    """Group the rows of a matrix (n, d) whose cosine is `similarity` or more.

    The matrix may lie in a file (`numpy.memmap`): it is read block by block. Equal rows are put
    together first, so that a million blank images cost no more than one. Among at most `exact`
    others every pair is compared; among more, only rows in neighbouring lists of an inverted file
    (see `InvertedFile`), and every pair found there is held against the cosine of the rows as they
    are.

    Raises:
        InputError: more than `exact` rows, and faiss is not installed.
    """
    equal = _first_of_equal(matrix)
    places = np.flatnonzero(equal == np.arange(len(equal)))
    first, cosine = _stars(matrix, places, similarity, exact, progress)
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
    matrix: np.ndarray, places: np.ndarray, similarity: float, exact: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Group the rows at some places, all of them unlike: first (m,) and cosine (m,) of each."""
    count = len(places)
    first, cosine = np.arange(count), np.ones(count, np.float32)
    radius = similarity - _ROUNDING
    search: Search = (
        AllPairs(matrix, places, radius)
        if count <= exact
        else InvertedFile(matrix, places, radius, progress)
    )
    # Open is a row that no star has taken: it begins one, or may be taken still.
    is_open = np.ones(count, bool)
    at_once = max(1, min(4096, _FOUND // max(1, count)))
    with progress("comparing", count) as advance:
        for start in range(0, count, at_once):
            rows = start + np.flatnonzero(is_open[start : start + at_once])
            which, near = search.near(rows, is_open)
            for row, others, cosines in _alike(matrix, places, rows[which], near, similarity):
                _take(row, others, cosines, first, cosine, is_open)
            for _ in range(min(at_once, count - start)):
                advance()
    return first, cosine


def _take(
    row: int,
    others: np.ndarray,
    cosines: np.ndarray,
    first: np.ndarray,
    cosine: np.ndarray,
    is_open: np.ndarray,
) -> None:
    """Let a row join the earliest star that is alike to it, or else take what is alike to it."""
    free = is_open[others]
    others, cosines = others[free], cosines[free]
    if not is_open[row] or not len(others):
        return
    # What is earlier and open has begun a star. An approximate search may have missed the pair from
    # that side: seen from both, few are missed.
    if others[0] < row:
        first[row], cosine[row], is_open[row] = others[0], cosines[0], False
        return
    first[others], cosine[others], is_open[others] = row, cosines, False


def _alike(
    matrix: np.ndarray, places: np.ndarray, rows: np.ndarray, near: np.ndarray, similarity: float
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield every row with others whose cosine is high enough, and these; both in order."""
    another = near != rows
    rows, near = rows[another], near[another]
    order = np.lexsort((near, rows))
    rows, near = rows[order], near[order]
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    for start, end in pairwise([*starts, len(rows)]):
        others = near[start:end]
        cosines = _cosines(matrix, places[rows[start]], places[others])
        enough = cosines >= similarity
        if enough.any():
            yield int(rows[start]), others[enough], cosines[enough]


def _cosines(matrix: np.ndarray, row: int, others: np.ndarray) -> np.ndarray:
    """Compute the cosines (m,) float32 of one row of a matrix with others, block by block."""
    unit = _units(matrix[row][None])[0]
    parts = [
        _units(matrix[others[start : start + _AT_ONCE]]) @ unit
        for start in range(0, len(others), _AT_ONCE)
    ]
    return np.concatenate([np.empty(0, np.float32), *parts])


def _units(rows: np.ndarray) -> np.ndarray:
    units = rows.astype(np.float32)
    scale_to_unit(units)
    return units


class AllPairs:
    """Compares every row with all later ones: exact."""

    def __init__(self, matrix: np.ndarray, places: np.ndarray, radius: float) -> None:
        self._units, self._radius = _units(matrix[places]), radius

    def near(self, rows: np.ndarray, is_open: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Search."""
        start = int(rows[0]) if len(rows) else 0
        found = self._units[rows] @ self._units[start:].T >= self._radius
        which, near = np.nonzero(found & is_open[start:])
        return which, near + start
