"""The images most alike, exactly: cosines of all pairs in blocks, or of one row with all others."""

from collections.abc import Iterator

import numpy as np

# Cosines computed at a time: 32 MB.
_COSINES = 1 << 23
_AT_ONCE = 16_384


def blocks(places: np.ndarray) -> Iterator[np.ndarray]:
    """Part places (n,) into blocks, so that the rows there fit into memory."""
    for start in range(0, len(places), _AT_ONCE):
        yield places[start : start + _AT_ONCE]


def finite_rows(matrix: np.ndarray) -> np.ndarray:
    """Return the places of the rows of a matrix (n, d) that are finite."""
    found = [np.isfinite(matrix[part]).all(1) for part in blocks(np.arange(len(matrix)))]
    return np.flatnonzero(np.concatenate([np.zeros(0, bool), *found]))


def scale_to_unit(matrix: np.ndarray) -> None:
    """Scale the rows of a matrix (n, d) float32 to length one, in place; those of zeros are NaN."""
    for start in range(0, len(matrix), _AT_ONCE):
        part = matrix[start : start + _AT_ONCE]
        length = np.linalg.norm(part, axis=1, keepdims=True)
        length[length == 0] = np.nan
        part /= length


def nearest_of_all(units: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest rows of every unit row (n, d): places (n, count) int32, cosines float32.

    The nearest come first, of equal ones those first in the table; no row is its own neighbour.
    Rows of NaN have no neighbours and are none; what is lacking is -1 and NaN.
    """
    n = len(units)
    near = np.full((n, count), -1, np.int32)
    cosine = np.full((n, count), np.nan, np.float32)
    known = finite_rows(units)
    x = np.ascontiguousarray(units[known])
    kept = min(count, len(x) - 1)
    if kept < 1:
        return near, cosine
    step = max(1, _COSINES // len(x))
    for start in range(0, len(x), step):
        cosines = x[start : start + step] @ x.T
        own = np.arange(len(cosines))
        cosines[own, start + own] = -np.inf
        places, values = _highest(cosines, kept)
        near[known[start + own], :kept] = known[places]
        cosine[known[start + own], :kept] = values
    return near, cosine


def nearest_of_one(units: np.ndarray, position: int, count: int) -> list[tuple[int, float]]:
    """Find the nearest rows of one unit row, as `nearest_of_all` does; none where it is of NaN."""
    cosines = similarities(units, units[position])
    cosines[position] = np.nan
    cosines = np.nan_to_num(cosines, nan=-np.inf)
    kept = min(count, int(np.isfinite(cosines).sum()))
    places, values = _highest(cosines[None], kept)
    return list(zip(places[0].tolist(), values[0].tolist(), strict=True))


def similarities(units: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Compute the cosines (n,) float32 of unit rows (n, d) with a unit vector (d,), block by block.

    NaN where a row is.
    """
    step = max(1, _COSINES // max(1, units.shape[1]))
    parts = [units[start : start + step] @ vector for start in range(0, len(units), step)]
    return np.concatenate([np.empty(0, np.float32), *parts]).astype(np.float32)


def _highest(cosines: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places and values (m, count) of the highest cosines (m, n), these first."""
    if not count:
        return np.empty((len(cosines), 0), np.intp), np.empty((len(cosines), 0), np.float32)
    places = np.argpartition(cosines, -count, axis=1)[:, -count:]
    values = np.take_along_axis(cosines, places, 1)
    order = np.lexsort((places, -values), axis=1)
    return np.take_along_axis(places, order, 1), np.take_along_axis(values, order, 1)
