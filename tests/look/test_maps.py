"""The map of embeddings: held to numpy's singular values, with gaps, and where rows are few."""

import sys

import numpy as np
import pytest

from archiveprobe.look.embeddings.maps import explained_shares, pca_map, umap_map


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


def test_axes_have_the_share_of_the_variance_that_svd_gives() -> None:
    matrix = np.insert(drawn(90, 7) + 50, [4, 60], np.nan, axis=0)
    known = matrix[np.isfinite(matrix).all(1)].astype(np.float64)
    s = np.linalg.svd(known - known.mean(0), compute_uv=False)
    wanted = s[:2] ** 2 / (s**2).sum()
    np.testing.assert_allclose(explained_shares(matrix, pca_map(matrix)), wanted, rtol=1e-3)
    same = np.ones((4, 3), np.float32)
    assert explained_shares(same, pca_map(same)) == [0.0, 0.0]
    assert explained_shares(same * np.nan, pca_map(same * np.nan)) == [0.0, 0.0]


def test_few_rows_are_mapped_without_umap() -> None:
    matrix = np.insert(drawn(10, 5), 3, np.nan, axis=0)
    np.testing.assert_array_equal(umap_map(matrix), pca_map(matrix))


def test_umap_that_is_not_installed_is_named(monkeypatch, fault_of) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    fault_of(lambda: umap_map(drawn(40, 5)), "umap-learn", "pip install 'archiveprobe[umap]'")


@pytest.mark.filterwarnings("ignore")
def test_umap_keeps_clusters_together_and_gives_the_same_map_twice() -> None:
    pytest.importorskip("umap", reason="the extra `umap` is not installed")
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(6)[:2], 20, axis=0)
    matrix = (centres + 0.05 * rng.normal(size=(40, 6))).astype(np.float32)
    matrix[7] = np.nan
    found = umap_map(matrix)
    assert found.dtype == np.float32 and np.isnan(found[7]).all()
    assert np.isfinite(np.delete(found, 7, 0)).all()
    left, right = np.delete(found[:20], 7, 0), found[20:]
    apart = np.linalg.norm(left.mean(0) - right.mean(0))
    assert max(np.ptp(left, axis=0).max(), np.ptp(right, axis=0).max()) < apart
    assert found.tobytes() == umap_map(matrix).tobytes()
