"""Which rows are learnt, which choose the epoch, and which are only predicted.

No label of a predicted row is looked at here: what chooses the epoch of a fold is cut from the rows
of the other folds alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.finetune.settings import Rows
from archiveprobe.task.balanced_folds import balanced_folds
from archiveprobe.task.config import nearest


@dataclass(frozen=True)
class Part:
    """One training run: places in the labelled rows, each sorted.

    `learn` are learnt, `select` choose the epoch (empty where nothing is held out), `report` are
    predicted out of fold (empty but with a fold). A row lies in at most one of the three.
    """

    name: str
    learn: np.ndarray
    select: np.ndarray
    report: np.ndarray


def by_split(dataset: Dataset, rows: Rows, readable: np.ndarray) -> Part:
    """Without a flag: the train split learns and validation selects; merged, all of them learn.

    `readable` (n,) says which rows have pixels; the others are neither learnt nor selected on.

    Raises:
        InputError: there is no validation row, or a class is missing on either side.
    """
    if rows.merged:
        return full(dataset, readable, name="merged")
    held = np.array([split == "validation" for split in dataset.splits])
    if not held.any():
        raise InputError(
            f"no row of split 'validation' in {_where(dataset)} to choose the epoch with: use "
            "--fold all, or give the table a split column"
        )
    part = _part("split", ~held & readable, held & readable, np.zeros_like(held))
    _check(dataset, part)
    return part


def by_fold(dataset: Dataset, fold: int, rows: Rows, readable: np.ndarray, *, seed: int) -> Part:
    """With `--fold`: the rows of a fold of the first repeat are predicted, the others learnt.

    Of the others one of `rows.inner` parts, stratified and in whole groups, chooses the epoch;
    none where `rows.merged`. Rows that are not readable are still predicted.

    Raises:
        InputError: too few groups for the inner parts, or a class is missing on either side.
    """
    report = dataset.fold[0] == fold
    outside = np.flatnonzero(~report)
    held = np.zeros_like(report)
    if not rows.merged:
        groups = dataset.groups[outside]
        if len(np.unique(groups)) < rows.inner:
            raise InputError(
                f"{len(np.unique(groups))} groups outside fold {fold} do not fill {rows.inner} "
                "inner parts: lower rows.inner in the recipe, or label more"
            )
        cut = balanced_folds(
            [dataset.classes[label] for label in dataset.labels[outside]],
            [f"{group:09}" for group in groups],
            [None] * len(outside),
            folds=rows.inner,
            repeats=1,
            seed=seed,
        )
        held[outside] = [places[0] == 0 for places in cut]
    part = _part(f"fold-{fold}", ~report & ~held & readable, held & readable, report)
    _check(dataset, part)
    return part


def full(dataset: Dataset, readable: np.ndarray, *, name: str = "full") -> Part:
    """With `--full`: all labelled rows are learnt, for as many epochs as `median_epoch` says.

    Raises:
        InputError: a class is missing.
    """
    none = np.zeros(len(dataset), bool)
    part = _part(name, np.array(readable, bool), none, none)
    _check(dataset, part)
    return part


def median_epoch(epochs: Sequence[int]) -> int:
    """The median of the folds' epochs (counted from 1); of two middle ones the earlier."""
    if not epochs:
        raise InputError("no fold was trained yet, so no epoch is known: run with --fold all first")
    return sorted(epochs)[(len(epochs) - 1) // 2]


def folds_asked(word: str, dataset: Dataset) -> list[int]:
    """The folds that `--fold` names: one, counted from 0 as in work/folds.csv, or `all`.

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


def _part(name: str, learn: np.ndarray, select: np.ndarray, report: np.ndarray) -> Part:
    return Part(name, *(np.flatnonzero(rows) for rows in (learn, select, report)))


def _check(dataset: Dataset, part: Part) -> None:
    sides = {"learn": part.learn}
    # Nothing is held out where no row was to be; where all of them are unreadable, some were.
    if part.name == "split" or len(part.select):
        sides["choose the epoch with"] = part.select
    for purpose, rows in sides.items():
        present = set(dataset.labels[rows].tolist())
        missing = [name for at, name in enumerate(dataset.classes) if at not in present]
        if missing:
            raise InputError(
                f"{part.name}: no readable row of {', '.join(map(repr, missing))} to {purpose}: "
                "use fewer folds, or label more"
            )


def _where(dataset: Dataset) -> str:
    return str(dataset.task.table or dataset.task.root)
