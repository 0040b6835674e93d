"""Which rows are trained on, which choose the epoch, and which are only predicted.

No label of a predicted row is looked at here: what chooses the epoch of a fold is taken from the
rows of the other folds alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.finetune.recipe import Rows
from archiveprobe.task.balanced_folds import balanced_folds
from archiveprobe.task.config import nearest

SPLIT, MERGED, FULL = "split", "merged", "full"
"""Names of the parts without a fold."""


def name_of_fold(fold: int) -> str:
    """Return the name of the part that holds a fold out."""
    return f"fold-{fold}"


def fold_of(part: str) -> int | None:
    """Return the fold that a part holds out, by its name; None where it is no fold's."""
    return int(part.removeprefix("fold-")) if part.startswith("fold-") else None


@dataclass(frozen=True)
class Part:
    """The rows of one training run, as sorted places in the labelled rows.

    `train` are trained on, `validation` choose the epoch (empty where nothing is held out),
    `held_out` are predicted out of fold (empty but with a fold). A row lies in at most one of them.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    held_out: np.ndarray


def with_selection(part: Part) -> Part:
    """Return a part that also trains on the rows that have chosen its epoch."""
    train = np.sort(np.concatenate([part.train, part.validation]))
    return replace(part, train=train, validation=part.validation[:0])


def by_split(dataset: Dataset, rows: Rows, readable: np.ndarray) -> Part:
    """Return the rows without a flag: the train split and the validation split; merged, all train.

    `readable` (n,) says which rows have pixels; the others are neither trained on nor validated.

    Raises:
        InputError: there is no validation row, or a class is missing on either side.
    """
    if rows.merged:
        return full(dataset, readable, name=MERGED)
    validation = np.array([split == "validation" for split in dataset.splits])
    if not validation.any():
        where = dataset.task.place
        raise InputError(
            f"no row of split 'validation' in {where} to choose the epoch with: use --fold all, or "
            "give the table a split column"
        )
    return _part(dataset, SPLIT, ~validation & readable, validation & readable)


def by_fold(dataset: Dataset, fold: int, rows: Rows, readable: np.ndarray, *, seed: int) -> Part:
    """Return the rows with `--fold`: a fold of the first repeat is predicted, the others train.

    Of the others one of `rows.inner_folds` parts, stratified and in whole groups, chooses the
    epoch; none where `rows.merged`. Rows that are not readable are still predicted.

    Raises:
        InputError: too few groups for the inner parts, or a class is missing on either side.
    """
    held_out = dataset.fold[0] == fold
    outside = np.flatnonzero(~held_out)
    validation = np.zeros_like(held_out)
    if not rows.merged:
        groups = dataset.groups[outside]
        count = len(np.unique(groups))
        if count < rows.inner_folds:
            raise InputError(
                f"{number_of(count, 'group')} outside fold {fold} cannot fill {rows.inner_folds} "
                "inner parts: lower rows.inner_folds in the recipe, or label more"
            )
        inner = balanced_folds(
            [dataset.classes[label] for label in dataset.labels[outside]],
            [f"{group:09}" for group in groups],
            [None] * len(outside),
            folds=rows.inner_folds,
            repeats=1,
            seed=seed,
        )
        validation[outside] = [places[0] == 0 for places in inner]
    train = ~held_out & ~validation & readable
    return _part(dataset, name_of_fold(fold), train, validation & readable, held_out)


def full(dataset: Dataset, readable: np.ndarray, *, name: str = FULL) -> Part:
    """Return the rows with `--full`: all labelled ones train, for `median_epoch` epochs.

    Raises:
        InputError: a class is missing.
    """
    return _part(dataset, name, np.array(readable, bool))


def median_epoch(epochs: Sequence[int]) -> int:
    """Return the median of the folds' epochs (counted from 1); of two middle ones the earlier."""
    if not epochs:
        raise InputError("no fold was trained yet, so no epoch is known: run with --fold all first")
    return sorted(epochs)[(len(epochs) - 1) // 2]


def folds_asked(word: str, dataset: Dataset) -> list[int]:
    """Return the folds that `--fold` names: one, counted from 0 as in work/folds.csv, or `all`.

    Raises:
        InputError: neither.
    """
    if word == "all":
        return list(range(dataset.folds))
    known = [str(fold) for fold in range(dataset.folds)]
    if word not in known:
        raise InputError(
            f"no fold {word!r}{nearest(word, ['all'])}: use all, or one of 0 to {known[-1]}"
        )
    return [int(word)]


def _part(
    dataset: Dataset,
    name: str,
    train: np.ndarray,
    validation: np.ndarray | None = None,
    held_out: np.ndarray | None = None,
) -> Part:
    """Make a part from masks (n,), and check that every class is on both sides."""
    places = [
        np.zeros(0, np.intp) if mask is None else np.flatnonzero(mask)
        for mask in (train, validation, held_out)
    ]
    part = Part(name, *places)
    sides = {"learn": part.train}
    # Only a split must have rows that choose the epoch: all of them unreadable is a fault.
    if name == SPLIT or len(part.validation):
        sides["choose the epoch with"] = part.validation
    for purpose, rows in sides.items():
        present = set(dataset.labels[rows].tolist())
        missing = [repr(label) for at, label in enumerate(dataset.classes) if at not in present]
        if missing:
            raise InputError(
                f"{name}: no readable row of {', '.join(missing)} to {purpose}: use fewer folds, "
                "or label more"
            )
    return part
