"""Neighbours by cosine, held to a sort of all pairs: gaps, ties, few rows, blocks."""

import numpy as np
import pytest

from archiveprobe.evaluate import cosines
from archiveprobe.evaluate.cosines import (
    nearest_of_all,
    nearest_of_one,
    scale_to_unit,
    similarities,
)


def drawn(rows: int, width: int = 9) -> np.ndarray:
    units = np.random.default_rng(rows).normal(size=(rows, width)).astype(np.float32)
    scale_to_unit(units)
    return units


def sorted_pairs(units: np.ndarray, at: int, count: int) -> list[tuple[float, int]]:
    """The nearest rows of one by sorting all, in double precision."""
    x = units.astype(np.float64)
    found = [
        (-float(x[at] @ x[other]), other)
        for other in range(len(x))
        if other != at and np.isfinite(x[[at, other]]).all()
    ]
    return [(-value, other) for value, other in sorted(found)[:count]]


@pytest.mark.parametrize("at_once", [1 << 23, 60])
def test_all_have_the_neighbours_that_sorting_finds(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(cosines, "_COSINES", at_once)
    units = drawn(40)
    units[[3, 17]] = np.nan
    near, cosine = nearest_of_all(units, 6)
    assert near.dtype == np.int32 and cosine.dtype == np.float32
    for at in range(40):
        wanted = sorted_pairs(units, at, 6)
        assert [int(other) for other in near[at] if other >= 0] == [other for _, other in wanted]
        assert np.isnan(cosine[at]).all() == (at in (3, 17))
        if wanted:
            np.testing.assert_allclose(cosine[at], [value for value, _ in wanted], atol=1e-6)


def test_one_row_has_the_same_neighbours_as_among_all() -> None:
    units = drawn(50)
    units[8] = np.nan
    near, cosine = nearest_of_all(units, 7)
    for at in range(50):
        found = nearest_of_one(units, at, 7)
        assert [other for other, _ in found] == [other for other in near[at] if other >= 0]
        np.testing.assert_allclose([value for _, value in found], cosine[at][: len(found)], 1e-5)
    assert nearest_of_one(units, 8, 7) == []


def test_equal_images_come_in_the_order_of_the_table() -> None:
    units = np.repeat(drawn(3, 4), [5, 1, 1], axis=0)
    near, cosine = nearest_of_all(units, 4)
    assert near[2].tolist() == [0, 1, 3, 4]
    np.testing.assert_allclose(cosine[2], 1, atol=1e-6)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_what_is_lacking_is_marked(rows: int) -> None:
    near, cosine = nearest_of_all(drawn(rows), 5)
    assert near.shape == cosine.shape == (rows, 5)
    for at in range(rows):
        assert (near[at] >= 0).sum() == max(0, rows - 1) == np.isfinite(cosine[at]).sum()
        assert at not in near[at]


def test_similarities_are_products_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    units = drawn(100)
    units[5] = np.nan
    whole = similarities(units, units[0])
    monkeypatch.setattr(cosines, "_COSINES", 70)
    np.testing.assert_allclose(similarities(units, units[0]), whole, atol=1e-6)
    np.testing.assert_allclose(whole, units @ units[0], atol=1e-6)
    assert np.isnan(whole[5]) and whole.dtype == np.float32


def test_rows_of_zeros_have_no_direction() -> None:
    matrix = np.array([[0, 0], [3, 4], [np.nan, 1]], np.float32)
    scale_to_unit(matrix)
    np.testing.assert_allclose(matrix[1], [0.6, 0.8])
    assert np.isnan(matrix[[0, 2]]).any(1).all()
