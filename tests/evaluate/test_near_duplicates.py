"""Near-duplicates among embeddings, held to a plain loop over all pairs; odd and equal rows."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from archiveprobe.evaluate import alike, near_duplicates
from archiveprobe.evaluate.near_duplicates import Stars, find_near_duplicates


def drawn(rows: int, copies: int, width: int = 16, seed: int = 0) -> np.ndarray:
    """Rows (n, d) float16, of which the last are copies of others, a little changed."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(rows - copies, width))
    near = first[:copies] + 0.05 * rng.normal(size=(copies, width))
    return np.concatenate([first, near]).astype(np.float16)


def plain_stars(matrix: np.ndarray, similarity: float) -> np.ndarray:
    """The first of every row's group, pair by pair in double precision."""
    x = matrix.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    first = np.arange(len(x))
    for row in range(len(x)):
        if first[row] == row:
            for other in range(row + 1, len(x)):
                if first[other] == other and x[row] @ x[other] >= similarity:
                    first[other] = row
    return first


@pytest.fixture(params=["as they are", "small tiles", "small blocks and few axes"])
def _sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "as they are":
        monkeypatch.setattr(alike, "TAILS", 30)
        monkeypatch.setattr(near_duplicates, "TAILS", 30)
        monkeypatch.setattr(near_duplicates, "HEADS", 7)
    if request.param == "small blocks and few axes":
        monkeypatch.setattr(near_duplicates, "_BLOCK", 50)
        monkeypatch.setattr(alike, "_FEW_ROWS", 0)
        monkeypatch.setattr(alike, "_AXES", (1, 2))


@pytest.mark.usefixtures("_sizes")
def test_groups_are_those_of_a_plain_loop() -> None:
    matrix = drawn(400, 60)
    stars = find_near_duplicates(matrix, 0.95)
    wanted = plain_stars(matrix, 0.95)
    assert stars.first.tolist() == wanted.tolist()
    assert stars.groups == len({first for at, first in enumerate(wanted) if first != at}) > 50
    x = matrix.astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(stars.cosine, (x * x[wanted]).sum(1), atol=1e-5)


def test_chains_are_cut_at_the_first_image() -> None:
    angles = np.radians([0, 15, 30, 45, 200])
    matrix = np.stack([np.cos(angles), np.sin(angles)], 1)
    # Neighbours lie 15 degrees apart, a cosine of .966; the ends of the chain at .707.
    stars = find_near_duplicates(matrix, 0.95)
    assert stars.first.tolist() == [0, 0, 2, 2, 4]
    assert stars.members.tolist() == [0, 1, 2, 3] and stars.groups == 2


@pytest.mark.proves("hostile")
@pytest.mark.usefixtures("_sizes")
def test_rows_without_direction_are_in_no_group() -> None:
    matrix = drawn(60, 20)
    matrix[[0, 1]] = np.nan
    matrix[[2, 3]] = 0
    matrix[4, 0] = np.inf
    stars = find_near_duplicates(matrix, 0.95)
    assert stars.first[:5].tolist() == [-1] * 5 and np.isnan(stars.cosine[:5]).all()
    assert stars.groups == 15 and not set(range(5)) & set(stars.members.tolist())


@pytest.mark.parametrize("rows", [0, 1])
def test_few_rows_have_no_near_duplicates(rows: int) -> None:
    stars = find_near_duplicates(np.ones((rows, 4), np.float16), 0.9)
    assert stars.groups == 0 and stars.first.tolist() == list(range(rows))


@pytest.mark.proves("hostile")
def test_many_equal_rows_are_one_group_with_bounded_pairs() -> None:
    # Compared pair by pair these would be 5e9 pairs.
    matrix = np.broadcast_to(np.float16([1, 2, 3, 4]), (100_000, 4))
    stars = find_near_duplicates(matrix, 0.95)
    assert stars.groups == 1 and len(stars.members) == 100_000
    assert (stars.first == 0).all() and (stars.cosine == 1).all()


@pytest.mark.proves("hostile")
@pytest.mark.usefixtures("_sizes")
def test_many_almost_equal_rows_are_one_group() -> None:
    rng = np.random.default_rng(1)
    blank = (1 + 0.01 * rng.normal(size=(3000, 8))).astype(np.float16)
    stars = find_near_duplicates(blank, 0.95)
    assert stars.groups == 1 and len(stars.members) == 3000


@pytest.mark.usefixtures("_sizes")
@given(st.integers(0, 2**32 - 1), st.integers(1, 80), st.sampled_from([0.5, 0.9, 0.99]))
@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_groups_of_any_rows_are_those_of_a_plain_loop(
    seed: int, rows: int, similarity: float
) -> None:
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(rows, 4)) * rng.choice([0.01, 0.3, 3], (rows, 1))
    matrix = np.cumsum(steps, 0) + 1e-3
    stars = find_near_duplicates(matrix, similarity)
    assert stars.first.tolist() == plain_stars(matrix, similarity).tolist()


def test_the_number_of_threads_is_given_back() -> None:
    before = [library["num_threads"] for library in threadpool_info()]
    find_near_duplicates(drawn(400, 60), 0.95)
    assert [library["num_threads"] for library in threadpool_info()] == before


def test_few_pairs_are_compared_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    plain = alike._cosines

    def count(x: np.ndarray, y: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        compared.append(len(rows))
        return plain(x, y, rows, columns)

    monkeypatch.setattr(alike, "_cosines", count)
    monkeypatch.setattr(alike, "_FEW_ROWS", 0)
    rng = np.random.default_rng(3)
    # Almost all of every row lies along eight axes, as most of an embedding lies along its first.
    wide = rng.normal(size=(2000, 8)) @ rng.normal(size=(8, 200)) + 0.1 * rng.normal(
        size=(2000, 200)
    )
    wide[1900:] = wide[:100] + 0.05 * rng.normal(size=(100, 200))
    stars = find_near_duplicates(wide, 0.97)
    assert stars.first.tolist() == plain_stars(wide, 0.97).tolist() and stars.groups >= 100
    assert 0 < sum(compared) < 0.02 * 2000**2 / 2


def test_a_matrix_may_lie_in_a_file(tmp_path) -> None:
    matrix = drawn(300, 40)
    file = np.memmap(tmp_path / "rows", np.float16, "w+", shape=matrix.shape)
    file[:] = matrix
    found: list[Stars] = [find_near_duplicates(rows, 0.95) for rows in (file, matrix)]
    assert found[0].first.tolist() == found[1].first.tolist()
