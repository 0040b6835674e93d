"""The rows of a task as every system sees them: labels, groups, folds and the keys of images.

A dataset is loaded once by a command and pins one snapshot: nothing under work/ is read a second
time for it, and `snapshot_digest` names the state that all its results are about.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.task_state import State, read_state
from archiveprobe.task.config import Task
from archiveprobe.task.corrections import Counts
from archiveprobe.task.folds import FoldTable, ensure_folds
from archiveprobe.task.manifest import Entry
from archiveprobe.task.rows import Row
from archiveprobe.task.snapshot import Snapshot, digest_of_words, snapshot_digest
from archiveprobe.task.texts import text_key

PARTS = ("rows", "labels", "images", "folds", "groups")
"""The parts of a snapshot that a system learns from; if one of them differs, it is out of date."""


@dataclass(frozen=True)
class Rows:
    """Rows with the keys (SHA-256, None where unreadable) of their images and captions.

    `entries` say where every image lies and what was observed of it.
    """

    ids: np.ndarray
    keys: list[bytes | None]
    captions: list[bytes | None]
    entries: Sequence[Entry] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over ids and images: answers for rows with another one are about others."""
        images = ["" if key is None else key.hex() for key in self.keys]
        return digest_of_words(*self.ids.tolist(), *images)

    def select(self, places: Sequence[int] | np.ndarray) -> "Rows":
        """Select the rows at some places, in that order."""
        return Rows(
            self.ids[np.asarray(places, np.intp)],
            [self.keys[at] for at in places],
            [self.captions[at] for at in places],
            [self.entries[at] for at in places] if self.entries else (),
        )


@dataclass(frozen=True)
class Dataset:
    """Labelled rows with their folds, and the rows to predict.

    labels (n,) are indices into `classes`; groups (n,) number the near-duplicate groups; fold
    (R, n) is the fold of every row in every repeat. `positive` and `unreadable` are indices too.
    `splits` has the split of every row as the table has it, None where it has none; `rows` are all
    rows in the order of the table. `spanning` counts the groups that lie in more than one fold.
    `partial` says, where it is not None, how few of the rows these are.

    `table_labels` (n,) are the labels without corrections, -1 where the table has none; no digest
    is over them. `corrections` counts the corrections of all rows.
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
    rows: tuple[Row, ...] = ()
    snapshot: Snapshot = field(default_factory=lambda: Snapshot(""))
    spanning: int = 0
    partial: str | None = None
    table_labels: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    corrections: Counts = field(default_factory=Counts)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def folds(self) -> int:
        """Count the folds of a repeat."""
        return int(self.fold.max()) + 1

    @cached_property
    def parts(self) -> dict[str, str]:
        """SHA-256 of every part of the state, by name; systems learn from `PARTS`."""
        ids = self.labelled.ids.tolist()
        labels = [self.classes[label] for label in self.labels]
        # Numbers of groups say nothing by themselves; which rows share one does: the first of them.
        _, first, members = np.unique(self.groups, return_index=True, return_inverse=True)
        homes = map(str, first[members].tolist())
        captions = ["" if key is None else key.hex() for key in self.labelled.captions]
        prompts = [
            word for label, words in sorted(self.task.prompts.items()) for word in (label, *words)
        ]
        return {
            "rows": digest_of_words(*ids),
            "labels": digest_of_words(*self.classes, *ids, *labels),
            "images": self.labelled.digest,
            "folds": digest_of_words(*ids, *map(str, self.fold.ravel().tolist())),
            "groups": digest_of_words(*ids, *homes),
            "texts": digest_of_words(*captions, *prompts),
            "to predict": self.unlabelled.digest,
        }

    @cached_property
    def snapshot_digest(self) -> str:
        """Digest the state that this dataset pins: its parts and the caches in use."""
        return snapshot_digest(self.parts, self.snapshot.in_use)


def load_dataset(task: Task, *, partial: bool = False) -> Dataset:
    """Read the rows of a task, what embed saw of them, and their folds.

    With `partial`, rows that wait for `embed` are left out; their folds are not written.

    Raises:
        InputError: nothing is embedded yet, `embed` was interrupted or rows came since (which
            `partial` allows), a class is missing, or the folds cannot be assigned.
    """
    return dataset_of(read_state(task), partial=partial)


def dataset_of(state: State, *, partial: bool = False) -> Dataset:
    """Assign folds to the rows of a state. See `load_dataset`."""
    if not partial:
        state.check_complete()
    left_out = state.waiting() | state.uncommitted() if partial else set()
    dataset = _of_state(state, left_out, write=not left_out)
    if left_out or (partial and not state.snapshot.finished):
        used = f"{len(dataset.rows)} of {len(state.rows)} rows"
        dataset = replace(dataset, partial=f"partial: {used}")
    return dataset


def survey_dataset(task: Task) -> Dataset:
    """Read all rows of a task, also those that wait for `embed`, to compare systems with.

    Nothing is fitted on it, and nothing is written.

    Raises:
        InputError: nothing is embedded yet, a file is damaged, or the folds cannot be assigned.
    """
    return _of_state(read_state(task), set(), write=False)


def _of_state(state: State, left_out: set[str], *, write: bool) -> Dataset:
    """Assign folds to the rows that are not left out, and put all of it together."""
    task = state.task
    pairs = zip(state.rows, state.entries, strict=True)
    used = [(row, entry) for row, entry in pairs if row.id not in left_out]
    rows, entries = [row for row, _ in used], [entry for _, entry in used]
    present = {row.label for row in rows}
    missing = [label for label in task.labels if label not in present]
    if missing:
        raise InputError(
            f"no labelled row of {', '.join(map(repr, missing))} in {task.place}: "
            f"label some, or take the label out of {task.file}"
        )
    table = ensure_folds(task, rows, entries, write=write)
    dataset = make_dataset(task, rows, entries, table, state.snapshot)
    return replace(dataset, corrections=state.corrections)


def rows_of(rows: Sequence[Row], entries: Sequence[Entry]) -> Rows:
    """Return the ids of rows with the keys of their images and captions."""
    return Rows(
        ids=np.array([row.id for row in rows], dtype=np.str_),
        keys=[bytes.fromhex(entry.digest) if entry.usable else None for entry in entries],
        captions=[text_key(row.text) if row.text and row.text.strip() else None for row in rows],
        entries=entries,
    )


def make_dataset(
    task: Task,
    rows: Sequence[Row],
    entries: Sequence[Entry],
    folds: FoldTable,
    snapshot: Snapshot,
) -> Dataset:
    """Put rows, what was observed of them and their folds together."""
    every = rows_of(rows, entries)
    index = {label: at for at, label in enumerate(task.labels)}
    labelled = [at for at, row in enumerate(rows) if row.label is not None]
    unlabelled = [at for at, row in enumerate(rows) if row.label is None]
    labels = np.array([index[rows[at].label or ""] for at in labelled])
    placed = [folds.placed[rows[at].id] for at in labelled]
    return Dataset(
        task=task,
        classes=task.labels,
        positive=len(index) - 1 if task.positive is None else index[task.positive],
        unreadable=unreadable_class(task, labels),
        labelled=every.select(labelled),
        labels=labels,
        groups=np.unique([place.group for place in placed], return_inverse=True)[1],
        fold=np.array([place.folds for place in placed]).T,
        unlabelled=every.select(unlabelled),
        splits=tuple(rows[at].split for at in labelled),
        rows=tuple(rows),
        snapshot=snapshot,
        spanning=folds.spanning,
        table_labels=np.array([index.get(rows[at].table_label or "", -1) for at in labelled]),
    )


def unreadable_class(task: Task, labels: np.ndarray) -> int:
    """Return the class that answers for unreadable images: by default the majority of `labels`."""
    if task.submission.unreadable is not None:
        return task.labels.index(task.submission.unreadable)
    return int(np.bincount(labels, minlength=1).argmax())
