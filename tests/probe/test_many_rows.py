"""Many rows are computed with in single precision, in blocks: the answers stay those of few."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from archiveprobe.base import blocks
from archiveprobe.evaluate.dataset import Dataset, Rows
from archiveprobe.probe import base, crossval, run
from archiveprobe.probe.base import standardiser
from archiveprobe.probe.knn import nearest
from archiveprobe.probe.linear import Logistic, Ridge
from archiveprobe.probe.table import PROBES
from archiveprobe.task.config import Folds, Task

LEARNED = [name for name, entry in PROBES.items() if not entry.prompts]


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("k", [2, 3])
def test_single_precision_and_blocks_move_no_probability(name, k, build, draw, monkeypatch) -> None:
    x, y = draw(300, 20, k)
    x = (10 * x + 3).astype(np.float32)
    fresh = (10 * draw(50, 20, k, seed=1)[0] + 3).astype(np.float32)
    wanted = softmax(build(name, 20, k).fit_path(x, y).path_logits(fresh), 2)
    monkeypatch.setattr(base, "_MOST_DOUBLE", 0)
    monkeypatch.setattr(blocks, "_BLOCK", 700)
    model = build(name, 20, k).fit_path(x, y)
    np.testing.assert_allclose(softmax(model.path_logits(fresh), 2), wanted, atol=2e-4)


def test_cross_validation_in_single_precision_gives_the_same_logits(make_data, monkeypatch) -> None:
    makes = {"ridge": lambda: Ridge(alphas=(1.0, 30.0)), "logistic": lambda: Logistic(Cs=(0.01,))}
    wanted = crossval.cross_validate(makes, *make_data())
    monkeypatch.setattr(base, "_MOST_DOUBLE", 0)
    # Parts too large for two at once have two BLAS threads instead.
    monkeypatch.setattr(crossval, "_BYTES", 0)
    threads = []

    def limits(count: int) -> threadpool_limits:
        threads.append(count)
        return threadpool_limits(count)

    monkeypatch.setattr(crossval, "threadpool_limits", limits)
    found = crossval.cross_validate(makes, *make_data(), workers=2)
    assert threads == [2]
    for name, result in wanted.items():
        np.testing.assert_allclose(found[name].logits, result.logits, atol=1e-3)
        np.testing.assert_allclose(found[name].unlabelled, result.unlabelled, atol=1e-3)


def test_rows_to_predict_are_answered_in_blocks(make_data, monkeypatch) -> None:
    features, dataset = make_data("rows")
    makes = {"ridge": lambda: Ridge(alphas=(1.0, 30.0))}
    wanted = crossval.cross_validate(makes, features, dataset)["ridge"]
    monkeypatch.setattr(crossval, "_ROWS_AT_ONCE", 2)
    found = crossval.cross_validate(makes, features, dataset)["ridge"]
    np.testing.assert_allclose(found.unlabelled_views, wanted.unlabelled_views, atol=1e-12)


@pytest.mark.parametrize("precision", [np.float64, np.float32])
@pytest.mark.parametrize("most", [1, 7, 40])
def test_the_nearest_are_those_of_a_stable_sort(precision, most) -> None:
    rng = np.random.default_rng(0)
    cosines = np.round(rng.uniform(-1, 1, (30, 40)), 1).astype(precision)
    cosines[0] = 1
    near, places = nearest(cosines, most)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :most]
    np.testing.assert_array_equal(places, order)
    np.testing.assert_allclose(near, np.take_along_axis(cosines, order, 1), atol=1e-6)


def test_a_column_far_from_zero_keeps_its_scale(monkeypatch) -> None:
    x = 1e4 + np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32)
    monkeypatch.setattr(blocks, "_BLOCK", 300)
    mean, scale = standardiser(x)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), rtol=1e-12)
    np.testing.assert_allclose(scale, x.astype(np.float64).std(0), rtol=1e-9)


@pytest.mark.parametrize(
    ("rows", "named", "repeats"),
    [(20_000, False, 5), (25_000, False, 4), (50_000, False, 2), (1_000_000, False, 2),
     (50_000, True, 5)],
)  # fmt: skip
def test_many_rows_need_few_repeats_unless_the_task_names_them(rows, named, repeats) -> None:
    folds = Folds(repeats=5) if named else Folds()
    task = Task.model_construct(folds=folds, file=Path("task.toml"))
    fold = np.zeros((5, rows), np.int64)
    ids, none = Rows(np.empty(rows, "U1"), [], []), Rows(np.empty(0, "U1"), [], [])
    labels = np.zeros(rows, np.int64)
    dataset = Dataset(task, ("a", "b"), 1, 0, ids, labels, labels, fold, none)
    said: list[str] = []
    assert len(run.with_few_repeats(dataset, said.append).fold) == repeats
    assert [f"probes use {repeats} of the 5 repeats" in line for line in said] == (
        [True] if repeats < 5 else []
    )
