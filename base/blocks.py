"""Sums and products over many rows, a block at a time: no copy of all of them in another form."""

from collections.abc import Iterator

import numpy as np

# Numbers of a block: 8 MB in double precision; and of one that stays in the processor's cache.
_BLOCK = 1 << 20
_SMALL = 1 << 15


def blocks_of(x: np.ndarray) -> Iterator[slice]:
    """Yield slices of rows x (n, ...) that together are all of them."""
    step = max(1, _BLOCK // max(1, x[:1].size))
    yield from (slice(start, start + step) for start in range(0, len(x), step))


def product(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return x (n, d), of any precision, times a matrix (d, m), computed in double precision."""
    out = np.empty((len(x), matrix.shape[1]))
    step = max(1, _SMALL // max(1, x.shape[1]))
    # Memory that is new for every block takes longer to come by than the product does.
    block = np.empty((min(step, len(x)), x.shape[1]))
    for start in range(0, len(x), step):
        rows = block[: min(step, len(x) - start)]
        np.copyto(rows, x[start : start + step])
        np.matmul(rows, matrix, out=out[start : start + step])
    return out
