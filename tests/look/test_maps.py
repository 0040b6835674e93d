"""The map of embeddings: held to numpy's singular values, with gaps, and where rows are few."""

import numpy as np
import pytest

from archiveprobe.look.maps import pca_map


def drawn(rows: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(rows + width)
    return (rng.normal(size=(rows, width)) * 0.8 ** np.arange(width) + 3).astype(np.float32)


@pytest.mark.parametrize(("rows", "width"), [(300, 8), (40, 600), (3, 2)])
def test_a_map_has_the_first_two_principal_components(rows: int, width: int) -> None:
    matrix = drawn(rows, width)
    u, s, _ = np.linalg.svd(matrix - matrix.mean(0), full_matrices=False)
    found = pca_map(matrix)
    assert found.shape == (rows, 2) and found.dtype == np.float32
    assert np.allclose(np.abs(found), np.abs(u[:, :2] * s[:2]), atol=1e-3)


def test_rows_without_an_embedding_are_nan_and_move_nothing() -> None:
    matrix = drawn(50, 6)
    gaps = np.insert(matrix, [0, 20, 50], np.nan, axis=0)
    found = pca_map(gaps)
    missing = np.isnan(gaps).all(1)
    assert np.isnan(found[missing]).all() and missing.sum() == 3
    assert np.array_equal(found[~missing], pca_map(matrix))


def test_the_same_rows_in_another_order_have_the_same_places() -> None:
    matrix, order = drawn(60, 7), np.random.default_rng(0).permutation(60)
    assert np.allclose(pca_map(matrix)[order], pca_map(matrix[order]), atol=1e-4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("matrix", [np.ones((4, 3)), np.ones((1, 3)), drawn(5, 1), np.ones((0, 3))])
def test_what_the_rows_do_not_span_is_zero(matrix: np.ndarray) -> None:
    found = pca_map(matrix)
    assert found.shape == (len(matrix), 2)
    assert not found[:, 1].any()
