"""Cross-validation: nothing about a row's fold is learned from its own labels."""

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest
from scipy.special import softmax

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import Dataset, Rows
from archiveprobe.probe import crossval
from archiveprobe.probe.crossval import combine_views, cross_validate
from archiveprobe.probe.features import Choice, Features
from archiveprobe.probe.lda import DiscriminantPath
from archiveprobe.probe.linear import LogisticPath, RidgePath
from archiveprobe.task.config import Task

FOLDS, REPEATS, WIDTH = 4, 2, 6


@pytest.fixture
def drawn() -> Callable[..., tuple[Features, Dataset]]:
    """Features of 48 labelled rows and 5 to predict, and their dataset."""

    def drawn(views: str = "mean", labels: np.ndarray | None = None) -> tuple[Features, Dataset]:
        rng = np.random.default_rng(0)
        n, m = 48, 5
        y = rng.permutation(np.arange(n) % 2)
        count = 1 if views == "mean" else 3
        x = rng.normal(size=(n + m, count, WIDTH)).astype(np.float32)
        x[:n, :, 0] += 1.5 * y[:, None]
        fold = np.stack([rng.permutation(n) % FOLDS for _ in range(REPEATS)])
        ids = np.arange(n + m).astype(np.str_)
        dataset = Dataset(
            cast(Task, None),
            ("intact", "damaged"),
            1,
            0,
            Rows(ids[:n], [None] * n, [None] * n),
            y if labels is None else labels,
            np.arange(n) // 2,
            fold,
            Rows(ids[n:], [None] * m, [None] * m),
        )
        return Features(Choice(("a",), views), x[:n], x[n:], {}), dataset

    return drawn


def small() -> LogisticPath:
    return LogisticPath(Cs=(1e-4, 1e-3, 1e-2, 1e-1))


MAKES = {
    "logistic": small,
    "ridge": lambda: RidgePath(alphas=(0.1, 10.0, 1e3)),
    "lda": lambda: DiscriminantPath(shrinkages=(0.05, 0.5, "ledoit-wolf")),
}


def with_own_labels_turned(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Which rows lie in fold 1 of repeat 0, and labels that are turned round there."""
    own = dataset.fold[0] == 1
    return own, np.where(own, 1 - dataset.labels, dataset.labels)


@pytest.mark.parametrize("views", ["mean", "rows", "logits"])
def test_a_folds_own_labels_move_no_logit_of_a_single_candidate(views, drawn) -> None:
    features, dataset = drawn(views)
    own, labels = with_own_labels_turned(dataset)
    single = {"one": lambda: LogisticPath(Cs=(0.01,))}
    before = cross_validate(single, features, dataset)["one"].logits[0]
    after = cross_validate(single, *drawn(views, labels))["one"].logits[0]
    np.testing.assert_array_equal(after[own], before[own])
    assert not np.array_equal(after[~own], before[~own])


def test_candidates_are_weighed_by_the_rows_outside_a_fold(drawn) -> None:
    features, dataset = drawn()
    labels = with_own_labels_turned(dataset)[1]
    path = np.random.default_rng(3).normal(size=(4, REPEATS, 48, 1, 2))
    before = crossval._weights(crossval._problem(features, dataset), path)
    after = crossval._weights(crossval._problem(*drawn(labels=labels)), path)
    np.testing.assert_array_equal(after[0, 1], before[0, 1])
    assert not np.array_equal(after, before)


def test_held_out_logits_are_those_of_a_probe_without_the_fold(drawn) -> None:
    features, dataset = drawn()
    held = cross_validate({"one": lambda: LogisticPath(Cs=(0.01,))}, features, dataset)["one"]
    x = features.labelled[:, 0]
    for repeat in range(REPEATS):
        for fold in range(FOLDS):
            own = dataset.fold[repeat] == fold
            model = LogisticPath(Cs=(0.01,)).fit(x[~own], dataset.labels[~own])
            wanted = model.decision_logits(x[own])
            np.testing.assert_allclose(held.logits[repeat, own], wanted, atol=1e-6)
    whole = LogisticPath(Cs=(0.01,)).fit(x, dataset.labels)
    wanted = whole.decision_logits(features.unlabelled[:, 0])
    np.testing.assert_allclose(held.unlabelled, wanted, atol=1e-9)
    np.testing.assert_allclose(held.model.predict_proba(x), whole.predict_proba(x), atol=1e-9)


def test_every_part_is_fitted_once_and_reported_once(drawn) -> None:
    fitted, advanced = [], []

    class Counting(LogisticPath):
        def _fit_path(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:
            fitted.append(len(x))
            super()._fit_path(x, y, groups)

    features, dataset = drawn("rows")
    cross_validate(
        {"one": lambda: Counting(Cs=(0.01, 0.1))}, features, dataset,
        advance=lambda: advanced.append(1),
    )  # fmt: skip
    assert sorted(fitted) == [36 * 3] * (FOLDS * REPEATS) + [48 * 3]
    assert len(advanced) == FOLDS * REPEATS + 1


def test_the_number_of_workers_changes_nothing(drawn) -> None:
    features, dataset = drawn()
    one = cross_validate(MAKES, features, dataset, workers=1)
    three = cross_validate(MAKES, features, dataset, workers=3)
    for name in MAKES:
        np.testing.assert_array_equal(one[name].logits, three[name].logits)
        np.testing.assert_array_equal(one[name].unlabelled, three[name].unlabelled)


def test_weights_are_shares_of_the_candidates(drawn) -> None:
    held = cross_validate(MAKES, *drawn())
    for name, make in MAKES.items():
        count = len(make().candidates())
        assert held[name].weights.shape == (REPEATS, FOLDS, count)
        np.testing.assert_allclose(held[name].weights.sum(2), 1)
        np.testing.assert_allclose(held[name].final.sum(), 1)
        assert held[name].seconds > 0


def test_rows_without_an_embedding_teach_nothing_and_stay_unknown(drawn) -> None:
    features, dataset = drawn()
    features.labelled[[3, 17]] = np.nan
    features.unlabelled[2] = np.nan
    held = cross_validate({"one": small}, features, dataset)["one"]
    unknown = np.isnan(held.logits).any((0, 2))
    assert np.flatnonzero(unknown).tolist() == [3, 17]
    assert np.flatnonzero(np.isnan(held.unlabelled).any(1)).tolist() == [2]


def test_no_row_to_predict_is_no_trouble(drawn) -> None:
    features, dataset = drawn()
    none = Features(features.choice, features.labelled, features.unlabelled[:0], {})
    assert cross_validate({"one": small}, none, dataset)["one"].unlabelled.shape == (0, 2)


def test_all_pictures_of_a_fold_unreadable(drawn) -> None:
    features, dataset = drawn()
    for fold in (0, FOLDS - 1):
        damaged = features.labelled.copy()
        own = dataset.fold[0] == fold
        damaged[own] = np.nan
        done = Features(features.choice, damaged, features.unlabelled, {})
        held = cross_validate({"one": small}, done, dataset)["one"]
        assert np.isnan(held.logits[:, own]).all()
        assert np.isfinite(held.logits[:, ~own]).all()
        assert held.weights.shape == (REPEATS, FOLDS, 4)


def test_no_picture_is_readable(drawn) -> None:
    features, dataset = drawn()
    features.labelled[:] = np.nan
    with pytest.raises(InputError, match="no readable row of 'intact'") as caught:
        cross_validate({"one": small}, features, dataset)
    assert "\n" not in str(caught.value)


def test_a_class_missing_outside_a_fold_is_one_line(drawn) -> None:
    dataset = drawn()[1]
    labels = (dataset.fold[1] == 2).astype(np.int64)
    with pytest.raises(
        InputError, match="no readable row of 'damaged' lies outside fold 2 of repe"
    ):
        cross_validate({"one": small}, *drawn(labels=labels))


@pytest.mark.parametrize("views", ["rows", "logits"])
def test_views_are_rows_of_training_and_averaged_again(views, drawn) -> None:
    features, dataset = drawn(views)
    held = cross_validate({"one": lambda: LogisticPath(Cs=(0.01,))}, features, dataset)["one"]
    assert held.views.shape == (REPEATS, 48, 3, 2)
    assert held.unlabelled_views.shape == (5, 3, 2)
    own = dataset.fold[0] == 0
    rows = features.labelled[~own].reshape(-1, WIDTH)
    model = LogisticPath(Cs=(0.01,)).fit(rows, np.repeat(dataset.labels[~own], 3))
    logits = model.decision_logits(features.labelled[own].reshape(-1, WIDTH)).reshape(-1, 3, 2)
    wanted = softmax(logits.mean(1), 1) if views == "logits" else softmax(logits, 2).mean(1)
    np.testing.assert_allclose(softmax(held.logits[0, own], 1), wanted, atol=1e-6)


def test_one_view_has_no_views_of_its_own(drawn) -> None:
    held = cross_validate({"one": small}, *drawn())["one"]
    assert held.views is None and held.unlabelled_views is None


def test_views_by_hand() -> None:
    logits = np.log(np.array([[[0.9, 0.1], [0.5, 0.5]]]))
    np.testing.assert_allclose(np.exp(combine_views(logits, "rows")), [[0.7, 0.3]])
    # Odds of 9 and 1: their geometric mean is 3.
    np.testing.assert_allclose(softmax(combine_views(logits, "logits"), 1), [[0.75, 0.25]])
