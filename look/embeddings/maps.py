"""A map of embeddings: two coordinates for every image."""

from collections.abc import Callable, Mapping

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.cosines import blocks, finite_rows

# The axes of a map do not move by more rows than these.
_FITTED = 20_000
_FEWEST = 16


def pca_map(matrix: np.ndarray) -> np.ndarray:
    """Project embeddings (n, d) on their first two principal components, (n, 2) float32.

    Rows that are not finite, as those of images without an embedding, are NaN and have no say in
    the components. What the rows do not span is 0. The same rows give the same map: the sign of a
    component is that of its largest loading.
    """
    from sklearn.decomposition import PCA

    known = finite_rows(matrix)
    result = np.full((len(matrix), 2), np.nan, np.float32)
    result[known] = 0.0
    count = min(2, len(known), matrix.shape[1])
    if count == 0:
        return result
    model = PCA(count, random_state=0)
    # Rows that are all alike have no variance to divide by.
    with np.errstate(divide="ignore", invalid="ignore"):
        model.fit(matrix[known[:: -(-len(known) // _FITTED)]].astype(np.float32))
    for part in blocks(known):
        result[part, :count] = model.transform(matrix[part].astype(np.float32))
    return result


def explained_shares(matrix: np.ndarray, places: np.ndarray) -> list[float]:
    """Return the share of the variance of embeddings (n, d) that each axis of `places` (n, 2) has.

    Rows of NaN have no say; 0 where the rows are all alike.
    """
    known = finite_rows(places)
    if not len(known):
        return [0.0, 0.0]
    total, squares = np.zeros(matrix.shape[1]), np.zeros(matrix.shape[1])
    first = matrix[known[0]].astype(np.float64)
    for part in blocks(known):
        # Less the first row, so that no digits are lost where all rows lie far from zero.
        rows = matrix[part] - first
        total += rows.sum(0)
        squares += (rows**2).sum(0)
    variance = float((squares / len(known) - (total / len(known)) ** 2).sum())
    of_axes = places[known].var(0, dtype=np.float64)
    return [float(share) for share in of_axes / variance] if variance > 0 else [0.0, 0.0]


def umap_map(matrix: np.ndarray) -> np.ndarray:
    """Place embeddings (n, d) so that neighbours by cosine stay together, (n, 2) float32.

    UMAP (McInnes, Healy and Melville, 2018) with a fixed seed: the same rows give the same map.
    Rows that are not finite are NaN.

    Raises:
        InputError: the package is not installed.
    """
    known = finite_rows(matrix)
    result = np.full((len(matrix), 2), np.nan, np.float32)
    count = len(known)
    # UMAP needs more rows than neighbours, and more than it has axes to begin with.
    if count <= _FEWEST:
        result[known] = pca_map(matrix[known])
        return result
    try:
        from umap import UMAP
    except ImportError:
        raise InputError(
            "a map by UMAP needs the package umap-learn: run `pip install 'archiveprobe[umap]'`"
        ) from None
    model = UMAP(n_neighbors=min(15, count - 1), metric="cosine", random_state=0, n_jobs=1)
    result[known] = model.fit_transform(matrix[known])
    return result


MAPS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"PCA": pca_map, "UMAP": umap_map}
"""The ways to draw a map, by the name that a page shows."""
