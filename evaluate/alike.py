"""Pairs of rows whose embeddings are alike, exactly, without the product of all rows with all rows.

Let V (D, k) be orthonormal, x1 = x V and |x2|^2 = |x|^2 - |x1|^2. By Cauchy and Schwarz
x.y <= x1.y1 + |x2| |y2|, so only pairs that reach the threshold there can reach it at all. With the
main axes of the rows as V few do, and k + 1 numbers a row, (x1, |x2|), are multiplied instead of D.

Products are made tile by tile, one thread to a core, each tile small enough that its bounds are
still in the core's cache when they are held against the threshold: that is five to twenty times as
fast as fetching them from memory.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from threadpoolctl import threadpool_limits

from archiveprobe.base.cores import usable_cores

# Rows of a tile, and its columns: 2 MB of bounds.
HEADS, TAILS = 512, 1000
# Tiles whose pairs come together: 8 million pairs at the most.
_TILES = 16
# Numbers of axes to choose from.
_AXES = (32, 48, 64, 96, 128)
# With fewer rows, comparing all of them costs less than finding their axes.
_FEW_ROWS = 5_000
SAMPLE = 5_000
_ROUNDS = 3
# Rows of the sample that are compared with each other to choose the number of axes.
_COMPARED = 2_000
# Of float32 products of unit rows.
_ROUNDING = 1e-4
# To gather the rows of a pair costs about what so many pairs of a product of matrices cost.
_GATHERED = 40
_PAIRS = 1 << 8


class Tile:
    """Holds unit rows (n, D) float32, read when they are first needed, and their sketch."""

    def __init__(self, sketch: np.ndarray, read: Callable[[], np.ndarray]) -> None:
        self.sketch, self._read = sketch, read

    @cached_property
    def units(self) -> np.ndarray:
        """Return the unit rows (n, D)."""
        return self._read()


@dataclass(frozen=True)
class Axes:
    """Main axes (D, k) of some rows; with none, the sketch of a row is the row itself."""

    axes: np.ndarray | None

    @classmethod
    def of(cls, sample: np.ndarray, threshold: float) -> "Axes":
        """Find the axes of a sample (n, D) of unit rows by which comparing at a threshold is least.

        Subspace iteration (Halko, Martinsson and Tropp, 2011, algorithm 4.4), then the axes within
        the subspace in order. The bound holds for any axes, so a few rounds will do.
        """
        counts = [count for count in _AXES if count < sample.shape[1]]
        if len(sample) < _FEW_ROWS or not counts:
            return cls(None)
        axes = np.random.default_rng(0).standard_normal((sample.shape[1], counts[-1]), np.float32)
        for _ in range(_ROUNDS):
            axes = np.linalg.qr(sample.T @ (sample @ axes))[0]
        inside = sample @ axes
        axes = axes @ np.linalg.eigh(inside.T @ inside)[1][:, ::-1]
        some = sample[:: max(1, len(sample) // _COMPARED)]
        choices = [cls(np.ascontiguousarray(axes[:, :count])) for count in counts]
        return min(choices, key=lambda choice: choice._cost(some, threshold))

    def sketch(self, units: np.ndarray) -> np.ndarray:
        """Return the sketch (n, k + 1) of unit rows (n, D): products of two are upper bounds."""
        if self.axes is None:
            return units
        sketch = np.empty((len(units), self.axes.shape[1] + 1), np.float32)
        np.matmul(units, self.axes, out=sketch[:, :-1])
        rest = _squares(units) - _squares(sketch[:, :-1])
        np.sqrt(np.maximum(0, rest), out=sketch[:, -1])
        return sketch

    def _cost(self, units: np.ndarray, threshold: float) -> float:
        """Return the multiplications that a pair of rows costs."""
        sketch, width = self.sketch(units), units.shape[1]
        share = float(np.mean(sketch @ sketch.T >= threshold - _ROUNDING))
        return float(sketch.shape[1] + width * min(1, _GATHERED * share))


@contextmanager
def tile_workers() -> Iterator[Executor]:
    """Give threads for tiles, one to a core, whose products take one thread each."""
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(usable_cores()) as workers:
        yield workers


def pairs_alike(
    x: np.ndarray, threshold: float, sketch: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the pairs (heads, tails), heads < tails, of unit rows x (n, D) that are alike.

    Their cosines float32 come with them. Each pair comes once, in blocks of rising heads, so that
    memory stays small even where all rows are alike. `sketch` is that of x where it is known.
    """
    if sketch is None:
        chosen = np.random.default_rng(0).permutation(len(x))[:SAMPLE]
        sketch = Axes.of(x[chosen], threshold).sketch(x)
    panel = _TILES * TAILS
    with tile_workers() as workers:
        for start in range(0, len(x), HEADS):
            head = _part(x, sketch, start, HEADS)
            for first in range(start, len(x), panel):
                starts = range(first, min(len(x), first + panel), TAILS)
                tails = [_part(x, sketch, at, TAILS) for at in starts]
                found = list(workers.map(partial(compare, head, threshold=threshold), tails))
                yield from _later(start, starts, found)


def _part(x: np.ndarray, sketch: np.ndarray, start: int, rows: int) -> Tile:
    return Tile(sketch[start : start + rows], lambda: x[start : start + rows])


def _later(
    start: int, starts: Sequence[int], found: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the pairs of some tiles as one block, in order, without those seen from both sides."""
    heads = start + np.concatenate([pairs[0] for pairs in found])
    tails = np.concatenate([at + pairs[1] for at, pairs in zip(starts, found, strict=True)])
    cosines = np.concatenate([pairs[2] for pairs in found])
    chosen = np.flatnonzero(heads < tails)
    if len(chosen):
        chosen = chosen[np.lexsort((tails[chosen], heads[chosen]))]
        yield heads[chosen], tails[chosen], cosines[chosen]


def compare(
    heads: Tile, tails: Tile, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the pairs of rows of two tiles that are alike, and their cosines, row by row."""
    bounds = heads.sketch @ tails.sketch.T
    found = np.flatnonzero(bounds >= threshold - _ROUNDING)
    rows, columns = np.divmod(found, bounds.shape[1])
    if not len(found):
        return rows, columns, np.empty(0, np.float32)
    if len(found) * _GATHERED > bounds.size:
        cosines = (heads.units @ tails.units.T).ravel()[found]
    else:
        cosines = _cosines(heads.units, tails.units, rows, columns)
    alike = cosines >= threshold
    return rows[alike], columns[alike], cosines[alike]


def _cosines(x: np.ndarray, y: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [
            np.einsum("nd,nd->n", x[rows[part]], y[columns[part]])
            for part in (slice(at, at + _PAIRS) for at in range(0, len(rows), _PAIRS))
        ]
    )


def _squares(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("nd,nd->n", x, x))
