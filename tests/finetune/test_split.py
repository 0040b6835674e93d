"""Which rows are learnt, select and are reported, and that a reported label changes nothing."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.dataset import Rows as DataRows
from archiveprobe.finetune.recipe import Rows
from archiveprobe.finetune.split import by_fold, by_split, folds_asked, full, median_epoch
from archiveprobe.task.config import Task

N, FOLDS = 120, 5


class Where:
    place = "labels.csv"


def dataset_of(seed: int = 0, n: int = N) -> Dataset:
    rng = np.random.default_rng(seed)
    groups = np.arange(n) // 2
    rows = DataRows(np.arange(n).astype(np.str_), [None] * n, [None] * n)
    none = DataRows(np.array([], np.str_), [], [])
    fold = rng.permutation(groups.max() + 1)[groups] % FOLDS
    y = (rng.permutation(groups.max() + 1)[groups] % 3 == 0).astype(int)
    splits = tuple("validation" if row % 4 == 0 else "train" for row in range(n))
    task = cast(Task, Where())
    return Dataset(task, ("intact", "damaged"), 1, 0, rows, y, groups, fold[None], none, splits)


def everything(dataset: Dataset) -> np.ndarray:
    return np.ones(len(dataset), bool)


@given(st.integers(0, 50), st.integers(0, FOLDS - 1), st.integers(2, 6), st.integers(0, 9))
def test_a_fold_leaves_no_row_twice_and_no_group_on_two_sides(seed, fold, inner, own) -> None:
    dataset = dataset_of(seed)
    part = by_fold(dataset, fold, Rows(inner_folds=inner), everything(dataset), seed=own)
    together = np.concatenate([part.train, part.validation, part.held_out])
    assert sorted(together) == list(range(N))
    assert set(part.held_out) == set(np.flatnonzero(dataset.fold[0] == fold))
    for one, other in ((part.train, part.validation), (part.train, part.held_out)):
        assert not set(dataset.groups[one]) & set(dataset.groups[other])
    assert not set(dataset.groups[part.validation]) & set(dataset.groups[part.held_out])
    outside = len(part.train) + len(part.validation)
    assert abs(len(part.validation) - outside / inner) <= 4
    # Stratified: the share of the rarer class differs by no more than two groups.
    share = dataset.labels[np.concatenate([part.train, part.validation])].mean()
    assert abs(dataset.labels[part.validation].sum() - share * len(part.validation)) <= 4


@pytest.mark.parametrize("fold", range(FOLDS))
def test_labels_planted_in_the_reported_fold_change_nothing(fold) -> None:
    dataset = dataset_of()
    own = dataset.fold[0] == fold
    planted = replace(dataset, labels=np.where(own, 1 - dataset.labels, dataset.labels))
    for rows in (Rows(), Rows(merged=True)):
        before = by_fold(dataset, fold, rows, everything(dataset), seed=3)
        after = by_fold(planted, fold, rows, everything(dataset), seed=3)
        for name in ("train", "validation", "held_out"):
            np.testing.assert_array_equal(getattr(before, name), getattr(after, name))


def test_labels_outside_the_fold_do_move_the_inner_cut() -> None:
    dataset = dataset_of()
    planted = replace(dataset, labels=1 - dataset.labels[::-1])
    before, after = (
        by_fold(each, 0, Rows(), everything(dataset), seed=3) for each in (dataset, planted)
    )
    assert not np.array_equal(before.validation, after.validation)


def test_without_a_flag_train_learns_and_validation_selects() -> None:
    dataset = dataset_of()
    part = by_split(dataset, Rows(), everything(dataset))
    np.testing.assert_array_equal(part.validation, np.arange(0, N, 4))
    np.testing.assert_array_equal(part.train, np.setdiff1d(np.arange(N), part.validation))
    assert not len(part.held_out)


@pytest.mark.parametrize("of", [lambda d, r: by_split(d, Rows(merged=True), r), full])
def test_merged_and_full_learn_everything(of) -> None:
    dataset = dataset_of()
    part = of(dataset, everything(dataset))
    np.testing.assert_array_equal(part.train, np.arange(N))
    assert not len(part.validation)
    assert not len(part.held_out)


def test_a_merged_recipe_learns_all_outside_the_fold() -> None:
    dataset = dataset_of()
    part = by_fold(dataset, 2, Rows(merged=True), everything(dataset), seed=0)
    np.testing.assert_array_equal(part.train, np.flatnonzero(dataset.fold[0] != 2))
    assert not len(part.validation)


def test_unreadable_rows_are_reported_only() -> None:
    dataset = dataset_of()
    readable = np.arange(N) % 5 != 0
    lost = set(np.flatnonzero(~readable))
    fold = by_fold(dataset, 1, Rows(), readable, seed=0)
    for part in (fold, by_split(dataset, Rows(), readable), full(dataset, readable)):
        assert not lost & set(part.train)
        assert not lost & set(part.validation)
    np.testing.assert_array_equal(fold.held_out, np.flatnonzero(dataset.fold[0] == 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"splits": ("train",) * N}, ("--fold all", "labels.csv")),
        ({"labels": np.zeros(N, int)}, ("'damaged'", "learn")),
        ({"labels": (np.arange(N) % 2)}, ("'damaged'", "choose the epoch")),
    ],
)
def test_a_split_that_cannot_choose_is_told(change, words) -> None:
    dataset = replace(dataset_of(), **change)
    with pytest.raises(InputError) as caught:
        by_split(dataset, Rows(), everything(dataset))
    assert all(word in str(caught.value) for word in words)


def test_a_fold_without_one_class_or_with_too_few_groups_is_told() -> None:
    dataset = dataset_of()
    only = replace(dataset, labels=(dataset.fold[0] == 0).astype(int))
    with pytest.raises(InputError, match="fold-0: no readable row of 'damaged' to learn"):
        by_fold(only, 0, Rows(), everything(dataset), seed=0)
    with pytest.raises(InputError, match=r"cannot fill 60 inner parts: lower rows\.inner"):
        by_fold(dataset, 0, Rows(inner_folds=60), everything(dataset), seed=0)


@pytest.mark.parametrize(
    ("epochs", "median"), [([7], 7), ([9, 3, 4], 4), ([1, 2, 5, 9], 2), ([4, 4, 4, 30, 1], 4)]
)
def test_the_median_epoch(epochs, median) -> None:
    assert median_epoch(epochs) == median


def test_no_epoch_is_known_without_folds() -> None:
    with pytest.raises(InputError, match="--fold all"):
        median_epoch([])


def test_which_folds_are_asked_for() -> None:
    dataset = dataset_of()
    assert folds_asked("all", dataset) == [0, 1, 2, 3, 4]
    assert folds_asked("3", dataset) == [3]
    for word in ("5", "-1", "al", "x"):
        with pytest.raises(InputError, match="no fold"):
            folds_asked(word, dataset)
