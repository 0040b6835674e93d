"""Pairs of rows whose embeddings are alike, without the product of all rows with all rows.

Let V (D, k) be orthonormal, x1 = x V and |x2|^2 = |x|^2 - |x1|^2. By Cauchy and Schwarz
x.y <= x1.y1 + |x2| |y2|, so only pairs that reach the threshold there can reach it at all. With the
main axes of the rows as V few do, and k numbers a row are multiplied instead of D.
"""

from collections.abc import Iterator

import numpy as np

# Cosines computed at a time: 32 MB.
COSINES = 1 << 23
_AXES = 128
# Where rows are few or short, comparing all of them costs less than finding their axes.
_FEW_ROWS, _FEW_NUMBERS = 5_000, 512
_SAMPLE, _ROUNDS = 5_000, 3
# Of float32 products of unit rows.
_ROUNDING = 1e-4
# To gather the rows of a pair costs about what ten pairs of a product of matrices cost.
_MOST_CANDIDATES = 0.02
_PAIRS = 1 << 14


def pairs_alike(x: np.ndarray, threshold: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs (heads, tails), heads < tails, of unit rows x (n, D) float32 that are alike.

    Each pair comes once, in blocks, so that memory stays small even where all rows are alike.
    """
    axes = _main_axes(x)
    near = x if axes is None else np.ascontiguousarray(x @ axes)
    rest = np.sqrt(np.maximum(0, _squares(x) - _squares(near)))
    start = 0
    while start < len(x):
        step = max(1, COSINES // (len(x) - start))
        head, tails = x[start : start + step], x[start:]
        found = None
        if axes is not None:
            bounds = near[start : start + step] @ near[start:].T
            bounds += rest[start : start + step, None] * rest[start:]
            found = _pairs(bounds >= threshold - _ROUNDING)
            if len(found[0]) <= _MOST_CANDIDATES * bounds.size:
                found = _only_alike(head, tails, *found, threshold)
            else:
                found = None
        if found is None:
            found = _pairs(head @ tails.T >= threshold)
        if len(found[0]):
            yield start + found[0], start + found[1]
        start += step


def _pairs(alike: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of pairs in a block of rows with all rows from its first on."""
    heads, tails = np.nonzero(alike)
    apart = heads < tails
    return heads[apart], tails[apart]


def _only_alike(
    x: np.ndarray, y: np.ndarray, heads: np.ndarray, tails: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return those of some pairs of rows of x and y that are alike."""
    alike = [
        np.einsum("nd,nd->n", x[heads[part]], y[tails[part]]) >= threshold
        for part in (slice(at, at + _PAIRS) for at in range(0, len(heads), _PAIRS))
    ]
    chosen = np.concatenate([*alike, np.empty(0, np.bool_)])
    return heads[chosen], tails[chosen]


def _main_axes(x: np.ndarray) -> np.ndarray | None:
    """Return orthonormal axes (D, k) that hold most of the rows; None where they would not pay.

    Subspace iteration (Halko, Martinsson and Tropp, 2011, algorithm 4.4). The bound holds for any
    axes, so a few rounds on some of the rows will do.
    """
    if len(x) < _FEW_ROWS or x.shape[1] < _FEW_NUMBERS:
        return None
    some = x[:: max(1, len(x) // _SAMPLE)]
    axes = np.random.default_rng(0).standard_normal((x.shape[1], _AXES)).astype(x.dtype)
    for _ in range(_ROUNDS):
        axes = np.linalg.qr(some.T @ (some @ axes))[0]
    return axes


def _squares(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("nd,nd->n", x, x))
