"""A map of embeddings: two coordinates for every image."""

import numpy as np

# The axes of a map do not move by more rows than these.
_FITTED = 20_000


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
