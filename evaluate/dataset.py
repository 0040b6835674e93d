"""The rows of a task as every system sees them: labels, groups, folds and the keys of pictures."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from task.config import Task
from task.errors import InputError
from task.folds import ensure_folds
from task.manifest import Entry, read_manifest
from task.rows import Row, read_rows
from task.texts import text_key


@dataclass(frozen=True)
class Rows:
    """Rows with the keys (SHA-256, None where unreadable) of their pictures and captions."""

    ids: np.ndarray
    keys: list[bytes | None]
    captions: list[bytes | None]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over ids and pictures: answers for rows with another one are about others."""
        pictures = ["" if key is None else key.hex() for key in self.keys]
        return _digest(*self.ids, *pictures)


@dataclass(frozen=True)
class Dataset:
    """Labelled rows with their folds, and the rows to predict.

    labels (n,) are indices into `classes`; groups (n,) number the near-duplicate groups; fold
    (R, n) is the fold of every row in every repeat. `positive` and `unreadable` are indices too.
    `splits` has the split of every row as the table has it, None where it has none.
    """

    task: Task
    classes: tuple[str, ...]
    positive: int
    unreadable: int
    labelled: Rows
    labels: np.ndarray
    groups: np.ndarray
    fold: np.ndarray
    unlabelled: Rows
    splits: tuple[str | None, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def folds(self) -> int:
        """How many folds every repeat has."""
        return int(self.fold.max()) + 1

    @cached_property
    def folds_digest(self) -> str:
        """SHA-256 over ids and folds: systems with another one were held out elsewhere."""
        return _digest(*self.labelled.ids, *map(str, self.fold.ravel().tolist()))

    @cached_property
    def labels_digest(self) -> str:
        """SHA-256 over ids and labels: systems with another one learned other answers."""
        named = [self.classes[label] for label in self.labels]
        return _digest(*self.classes, *self.labelled.ids, *named)


def _digest(*words: str) -> str:
    total = hashlib.sha256()
    for word in words:
        total.update(f"{len(word)}:{word}".encode())
    return total.hexdigest()


def load_dataset(task: Task) -> Dataset:
    """Read the rows of a task, what embed saw of them, and their folds, which are cut if need be.

    Raises:
        InputError: nothing is embedded yet, a class is missing, or the folds cannot be cut.
    """
    rows = read_rows(task)
    known = {entry.id: entry for entry in read_manifest(task)}
    if not known:
        raise InputError(f"no manifest in {task.work}: run `archiveprobe embed {task.file}` first")
    entries = [known.get(row.id, Entry(row.id, row.path)) for row in rows]
    _check_classes(task, rows)
    placed = ensure_folds(task, rows, entries).placed
    labelled = [at for at, row in enumerate(rows) if row.label is not None]
    rest = [at for at, row in enumerate(rows) if row.label is None]
    labels = np.array([task.labels.index(rows[at].label or "") for at in labelled])
    groups = np.unique([placed[rows[at].id].group for at in labelled], return_inverse=True)[1]
    fold = np.array([placed[rows[at].id].folds for at in labelled]).T
    unreadable = task.submission.unreadable
    return Dataset(
        task=task,
        classes=task.labels,
        positive=_positive(task),
        unreadable=_majority(labels) if unreadable is None else task.labels.index(unreadable),
        labelled=_rows(rows, entries, labelled),
        labels=labels,
        groups=groups,
        fold=fold,
        unlabelled=_rows(rows, entries, rest),
        splits=tuple(rows[at].split for at in labelled),
    )


def _check_classes(task: Task, rows: list[Row]) -> None:
    present = {row.label for row in rows if row.label is not None}
    missing = [label for label in task.labels if label not in present]
    if missing:
        raise InputError(
            f"no labelled row of {', '.join(map(repr, missing))} in {task.table or task.root}: "
            f"label some, or take the label out of {task.file}"
        )


def _positive(task: Task) -> int:
    return len(task.labels) - 1 if task.positive is None else task.labels.index(task.positive)


def _majority(labels: np.ndarray) -> int:
    return int(np.bincount(labels).argmax())


def _rows(rows: list[Row], entries: list[Entry], which: list[int]) -> Rows:
    texts = [rows[at].text for at in which]
    return Rows(
        ids=np.array([rows[at].id for at in which], dtype=np.str_),
        keys=[bytes.fromhex(entries[at].digest) if entries[at].usable else None for at in which],
        captions=[text_key(text) if text and text.strip() else None for text in texts],
    )
