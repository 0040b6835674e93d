"""A map of embeddings: two coordinates for every image."""

from collections.abc import Callable, Mapping

import numpy as np

from archiveprobe.base.errors import InputError

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

    known = np.isfinite(matrix).all(1)
    result = np.full((len(matrix), 2), np.nan, np.float32)
    result[known] = 0.0
    count = min(2, int(known.sum()), matrix.shape[1])
    if count == 0:
        return result
    rows = matrix[known].astype(np.float32)
    model = PCA(count, random_state=0)
    # Rows that are all alike have no variance to divide by.
    with np.errstate(divide="ignore", invalid="ignore"):
        model.fit(rows[:: -(-len(rows) // _FITTED)])
    result[known, :count] = model.transform(rows)
    return result


def explained_shares(matrix: np.ndarray, places: np.ndarray) -> list[float]:
    """Return the share of the variance of embeddings (n, d) that each axis of `places` (n, 2) has.

    Rows of NaN have no say; 0 where the rows are all alike.
    """
    known = np.isfinite(places).all(1)
    if not known.any():
        return [0.0, 0.0]
    total = float(matrix[known].var(0, dtype=np.float64).sum())
    of_axes = places[known].var(0, dtype=np.float64)
    return [float(share) for share in of_axes / total] if total > 0 else [0.0, 0.0]


def umap_map(matrix: np.ndarray) -> np.ndarray:
    """Place embeddings (n, d) so that neighbours by cosine stay together, (n, 2) float32.

    UMAP (McInnes, Healy and Melville, 2018) with a fixed seed: the same rows give the same map.
    Rows that are not finite are NaN.

    Raises:
        InputError: the package is not installed.
    """
    try:
        from umap import UMAP
    except ImportError:
        raise InputError(
            "a map by UMAP needs the package umap-learn: run `pip install 'archiveprobe[umap]'`"
        ) from None
    known = np.isfinite(matrix).all(1)
    result = np.full((len(matrix), 2), np.nan, np.float32)
    count = int(known.sum())
    # UMAP needs more rows than neighbours, and more than it has axes to begin with.
    if count <= _FEWEST:
        result[known] = pca_map(matrix[known])
        return result
    model = UMAP(n_neighbors=min(15, count - 1), metric="cosine", random_state=0, n_jobs=1)
    result[known] = model.fit_transform(matrix[known])
    return result


MAPS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"PCA": pca_map, "UMAP": umap_map}
"""The ways to draw a map, by the name that a page shows."""
