"""An inverted file of faiss: rows in lists around centroids, so that few of millions are compared.

Jegou, Douze and Schmid, "Product quantization for nearest neighbor search" (2011), here with the
rows themselves as float16 instead of codes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from archiveprobe.base.cores import let_waiting_threads_sleep, usable_cores
from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Progress
from archiveprobe.evaluate.cosines import scale_to_unit

_AT_ONCE = 16_384
# Rows from which each centroid is learned: faiss asks for 39 or more.
_PER_LIST = 40
_LISTS = 2
# Copies of so many rows are drawn to see how many lists must be looked into.
_TRIED = 10_000
_MISSED = 2e-4
_FEWEST_PROBES, _MOST_PROBES = 16, 128


class InvertedFile:
    """Compares a row with those in the lists whose centroids are nearest to it.

    `probes` is the number of lists looked into, measured on these very rows: see `_probes`.
    """

    def __init__(
        self, matrix: np.ndarray, places: np.ndarray, radius: float, progress: Progress
    ) -> None:
        faiss = _faiss()
        self._faiss, self._matrix, self._places, self._radius = faiss, matrix, places, radius
        width = matrix.shape[1]
        lists = _lists(len(places))
        # The quantizer must stay: the index does not own it.
        self._quantizer = faiss.IndexFlatIP(width)
        self._index = faiss.IndexIVFScalarQuantizer(
            self._quantizer,
            width,
            lists,
            faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT,
            False,
        )
        rng = np.random.default_rng(0)
        sample = np.sort(rng.permutation(len(places))[: _PER_LIST * lists])
        with _all_cores(faiss), progress("sorting into lists", len(places)) as advance:
            self._index.train(self._units(sample))
            for part in _blocks(len(places)):
                self._index.add(self._units(part))
                for _ in part:
                    advance()
            self.probes = self._probes(rng)

    def near(self, rows: np.ndarray, is_open: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Search: almost all neighbours, whose number is measured and not promised."""
        faiss = self._faiss
        # A name of its own: the selector points into the array.
        bits = np.packbits(is_open, bitorder="little")
        chosen = faiss.SearchParametersIVF(sel=faiss.IDSelectorBitmap(bits), nprobe=self.probes)
        with _all_cores(faiss):
            ends, _, near = self._index.range_search(self._units(rows), self._radius, params=chosen)
        return np.repeat(np.arange(len(rows)), np.diff(ends).astype(np.int64)), near

    def _units(self, rows: np.ndarray) -> np.ndarray:
        units: np.ndarray = self._matrix[self._places[rows]].astype(np.float32)
        scale_to_unit(units)
        return units

    def _probes(self, rng: np.random.Generator) -> int:
        """Measure into how many lists one must look to find the farthest near-duplicates.

        Copies y of rows x at exactly the cosine c asked for are drawn, y = c x + sqrt(1 - c^2) e
        with a unit vector e across x, toward another row: copies differ in what images differ in,
        which leads through more lists than a step in a direction drawn at random. Half of the other
        rows are the next in the table, of the same event perhaps, and half are any. A pair is found
        if the list of y is among those nearest to x or that of x among those nearest to y, since
        both are searched for; the lists of a pair are far apart from both sides in few cases.
        """
        x = self._units(np.sort(rng.permutation(len(self._places))[:_TRIED]))
        return max(self._rank(x, other) for other in (np.roll(x, 1, 0), rng.permutation(x)))

    def _rank(self, x: np.ndarray, across: np.ndarray) -> int:
        across = across - np.einsum("nd,nd->n", across, x)[:, None] * x
        scale_to_unit(across)
        # A row that is its own other has no direction across.
        y = self._radius * x + np.sqrt(1 - self._radius**2) * np.nan_to_num(across)
        near_x, near_y = (
            self._quantizer.search(rows, min(_MOST_PROBES, self._index.nlist))[1] for rows in (x, y)
        )
        rank = np.minimum(_place(near_x, near_y[:, :1]), _place(near_y, near_x[:, :1]))
        return max(_FEWEST_PROBES, int(np.quantile(rank, 1 - _MISSED, method="higher")))


def _place(lists: np.ndarray, home: np.ndarray) -> np.ndarray:
    """Return from which of the nearest lists (n, p) on the one in `home` (n, 1) is among them."""
    is_there = lists == home
    rank: np.ndarray = np.where(is_there.any(1), is_there.argmax(1) + 1, lists.shape[1])
    return rank


def _lists(rows: int) -> int:
    """Choose the number of lists: both looking for lists and looking into them stay short."""
    return max(1, min(int(_LISTS * np.sqrt(rows)), rows // _PER_LIST))


def _blocks(count: int) -> Iterator[np.ndarray]:
    for start in range(0, count, _AT_ONCE):
        yield np.arange(start, min(count, start + _AT_ONCE))


def _faiss() -> Any:
    let_waiting_threads_sleep()
    try:
        import faiss
    except ImportError:
        raise InputError(
            "near-duplicates among so many images need the package faiss-cpu: run "
            "`pip install 'archiveprobe[search]'`"
        ) from None
    return faiss


@contextmanager
def _all_cores(faiss: Any) -> Iterator[None]:
    """Let faiss use every core, and then give back its number of threads, which torch has too."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(usable_cores())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
