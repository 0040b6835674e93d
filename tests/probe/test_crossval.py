"""Cross-validation: nothing about a row's fold is learned from its own labels."""

from typing import cast

import numpy as np
import pytest
from scipy.special import softmax

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import Dataset, Rows
from archiveprobe.evaluate.system import assemble
from archiveprobe.probe.choice import Choice
from archiveprobe.probe.crossval import combine_views, cross_validate, fold_weights
from archiveprobe.probe.features import Features
from archiveprobe.probe.lda import LDA
from archiveprobe.probe.linear import Logistic, Ridge
from archiveprobe.probe.table import PROBES
from archiveprobe.task.config import Task

FOLDS, REPEATS, WIDTH = 4, 2, 6


def small() -> Logistic:
    return Logistic(Cs=(1e-4, 1e-3, 1e-2, 1e-1))


MAKES = {
    "logistic": small,
    "ridge": lambda: Ridge(alphas=(0.1, 10.0, 1e3)),
    "lda": lambda: LDA(shrinkages=(0.05, 0.5, "ledoit-wolf")),
}


def with_own_labels_turned(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Which rows lie in fold 1 of repeat 0, and labels that are turned round there."""
    own = dataset.fold[0] == 1
    return own, np.where(own, 1 - dataset.labels, dataset.labels)


@pytest.mark.parametrize("views", ["mean", "rows", "logits"])
def test_a_folds_own_labels_move_no_logit_of_a_single_candidate(views, make_data) -> None:
    features, dataset = make_data(views)
    own, labels = with_own_labels_turned(dataset)
    single = {"logistic": lambda: Logistic(Cs=(0.01,))}
    before = cross_validate(single, features, dataset)["logistic"].logits[0]
    after = cross_validate(single, *make_data(views, labels))["logistic"].logits[0]
    np.testing.assert_array_equal(after[own], before[own])
    assert not np.array_equal(after[~own], before[~own])


def test_candidates_are_weighed_by_the_rows_outside_a_fold(make_data) -> None:
    _, dataset = make_data()
    labels = with_own_labels_turned(dataset)[1]
    path = np.random.default_rng(3).normal(size=(4, REPEATS, 48, 2))
    before = fold_weights(path, dataset.labels, dataset.fold, FOLDS)
    after = fold_weights(path, labels, dataset.fold, FOLDS)
    np.testing.assert_array_equal(after[0, 1], before[0, 1])
    assert not np.array_equal(after, before)


def test_held_out_logits_are_those_of_a_probe_without_the_fold(make_data) -> None:
    features, dataset = make_data()
    result = cross_validate({"logistic": lambda: Logistic(Cs=(0.01,))}, features, dataset)[
        "logistic"
    ]
    x = features.labelled[:, 0]
    for repeat in range(REPEATS):
        for fold in range(FOLDS):
            own = dataset.fold[repeat] == fold
            model = Logistic(Cs=(0.01,)).fit(x[~own], dataset.labels[~own])
            wanted = model.decision_logits(x[own])
            np.testing.assert_allclose(result.logits[repeat, own], wanted, atol=1e-6)
    whole = Logistic(Cs=(0.01,)).fit(x, dataset.labels)
    wanted = whole.decision_logits(features.unlabelled[:, 0])
    np.testing.assert_allclose(result.unlabelled, wanted, atol=1e-9)
    np.testing.assert_allclose(result.model.predict_proba(x), whole.predict_proba(x), atol=1e-9)


def test_every_part_is_fitted_once_and_reported_once(make_data) -> None:
    fitted, advanced = [], []

    class Counting(Logistic):
        def _fit_path(self, x: np.ndarray, y: np.ndarray) -> None:
            fitted.append(len(x))
            super()._fit_path(x, y)

    features, dataset = make_data("rows")
    cross_validate(
        {"logistic": lambda: Counting(Cs=(0.01, 0.1))}, features, dataset,
        advance=lambda: advanced.append(1),
    )  # fmt: skip
    assert sorted(fitted) == [36 * 3] * (FOLDS * REPEATS) + [48 * 3]
    assert len(advanced) == FOLDS * REPEATS + 1


def test_the_number_of_workers_changes_nothing(make_data) -> None:
    features, dataset = make_data()
    single = cross_validate(MAKES, features, dataset, workers=1)
    three = cross_validate(MAKES, features, dataset, workers=3)
    for name in MAKES:
        np.testing.assert_array_equal(single[name].logits, three[name].logits)
        np.testing.assert_array_equal(single[name].unlabelled, three[name].unlabelled)


def test_every_fold_and_the_final_model_have_weights(make_data) -> None:
    result = cross_validate(MAKES, *make_data())
    for name, make in MAKES.items():
        count = len(make().candidates())
        assert result[name].weights.shape == (REPEATS, FOLDS, count)
        assert (result[name].weights >= 0).all() and (result[name].weights > 0).any(2).all()
        np.testing.assert_array_equal(result[name].model.weights_, result[name].final)
        assert result[name].seconds > 0


@pytest.mark.parametrize("name", PROBES)
def test_labels_that_mean_nothing_give_chance(name, build) -> None:
    """Nested figures are honest: nothing that a row's own label touched decides about it."""
    rng = np.random.default_rng(1)
    n = 200
    x = rng.normal(size=(n, 1, 12)).astype(np.float32)
    ids = np.arange(n).astype(np.str_)
    rows, none = Rows(ids, [None] * n, [None] * n), Rows(ids[:0], [], [])
    fold = np.stack([rng.permutation(n) % 5 for _ in range(2)])
    task = cast(Task, None)
    y = rng.permutation(np.arange(n) % 2)
    dataset = Dataset(task, ("intact", "damaged"), 1, 0, rows, y, np.arange(n), fold, none)
    features = Features(Choice(("a",)), x, x[:0], {})
    result = cross_validate({name: lambda: build(name)}, features, dataset)[name]
    done = assemble(dataset, result.logits, result.unlabelled, {"system": name})
    # Five standard errors of a coin on 200 rows.
    assert abs((done.predictions.decision == y).mean() - 0.5) < 0.18


def test_rows_without_an_embedding_teach_nothing_and_stay_unknown(make_data) -> None:
    features, dataset = make_data()
    features.labelled[[3, 17]] = np.nan
    features.unlabelled[2] = np.nan
    result = cross_validate({"logistic": small}, features, dataset)["logistic"]
    unknown = np.isnan(result.logits).any((0, 2))
    assert np.flatnonzero(unknown).tolist() == [3, 17]
    assert np.flatnonzero(np.isnan(result.unlabelled).any(1)).tolist() == [2]


def test_no_row_to_predict_is_no_trouble(make_data) -> None:
    features, dataset = make_data()
    none = Features(features.choice, features.labelled, features.unlabelled[:0], {})
    assert cross_validate({"logistic": small}, none, dataset)["logistic"].unlabelled.shape == (0, 2)


def test_all_images_of_a_fold_unreadable(make_data) -> None:
    features, dataset = make_data()
    for fold in (0, FOLDS - 1):
        damaged = features.labelled.copy()
        own = dataset.fold[0] == fold
        damaged[own] = np.nan
        done = Features(features.choice, damaged, features.unlabelled, {})
        result = cross_validate({"logistic": small}, done, dataset)["logistic"]
        assert np.isnan(result.logits[:, own]).all()
        assert np.isfinite(result.logits[:, ~own]).all()
        assert result.weights.shape == (REPEATS, FOLDS, 4)


def test_no_image_is_readable(make_data) -> None:
    features, dataset = make_data()
    features.labelled[:] = np.nan
    with pytest.raises(InputError, match="no readable row of 'intact'") as caught:
        cross_validate({"logistic": small}, features, dataset)
    assert "\n" not in str(caught.value)


def test_a_class_missing_outside_a_fold_is_one_line(make_data) -> None:
    dataset = make_data()[1]
    labels = (dataset.fold[1] == 2).astype(np.int64)
    with pytest.raises(
        InputError, match="no readable row of 'damaged' lies outside fold 2 of repe"
    ):
        cross_validate({"logistic": small}, *make_data(labels=labels))


@pytest.mark.parametrize("views", ["rows", "logits"])
def test_views_are_rows_of_training_and_averaged_again(views, make_data) -> None:
    features, dataset = make_data(views)
    result = cross_validate({"logistic": lambda: Logistic(Cs=(0.01,))}, features, dataset)[
        "logistic"
    ]
    assert result.views.shape == (REPEATS, 48, 3, 2)
    assert result.unlabelled_views.shape == (5, 3, 2)
    own = dataset.fold[0] == 0
    rows = features.labelled[~own].reshape(-1, WIDTH)
    model = Logistic(Cs=(0.01,)).fit(rows, np.repeat(dataset.labels[~own], 3))
    logits = model.decision_logits(features.labelled[own].reshape(-1, WIDTH)).reshape(-1, 3, 2)
    wanted = softmax(logits.mean(1), 1) if views == "logits" else softmax(logits, 2).mean(1)
    np.testing.assert_allclose(softmax(result.logits[0, own], 1), wanted, atol=1e-6)


def test_one_view_has_no_views_of_its_own(make_data) -> None:
    result = cross_validate({"logistic": small}, *make_data())["logistic"]
    assert result.views is None and result.unlabelled_views is None


def test_views_by_hand() -> None:
    logits = np.log(np.array([[[0.9, 0.1], [0.5, 0.5]]]))
    np.testing.assert_allclose(np.exp(combine_views(logits, "rows")), [[0.7, 0.3]])
    # Odds of 9 and 1: their geometric mean is 3.
    np.testing.assert_allclose(softmax(combine_views(logits, "logits"), 1), [[0.75, 0.25]])
