"""One state of a task, read for one answer: its rows, what was seen of them, and its digest."""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.evaluate.dataset import Dataset, Rows, dataset_of, rows_of
from archiveprobe.evaluate.task_state import State, read_state
from archiveprobe.task.config import Task
from archiveprobe.task.manifest import Entry
from archiveprobe.task.rows import Row
from archiveprobe.task.snapshot import Snapshot, digest_of_words, snapshot_digest

# Frames of these are not what a user wrote: scikit-learn wraps the methods of its estimators.
_NOT_THE_USERS = (__name__.partition(".")[0], "sklearn")


@dataclass(frozen=True)
class Pinned:
    """Rows of a task in the order of its table, beside what `embed` left of them.

    `dataset` is None where folds cannot be assigned, as in an archive without labels; `fault` says
    why. `partial` says, where it is not None, how few of the rows these are; `digest` names the
    snapshot.
    """

    task: Task
    rows: Sequence[Row]
    entries: Sequence[Entry]
    snapshot: Snapshot
    digest: str
    dataset: Dataset | None
    fault: str
    partial: str | None

    @property
    def keyed(self) -> Rows:
        """Return the rows with the keys of their images and captions."""
        return rows_of(self.rows, self.entries)


def pin(task: Task, *, partial: bool = False, notify: Notify | None = None) -> Pinned:
    """Read a task as it is now; with `partial` without the rows that wait for `embed`.

    `notify` is told what else there is to know, and of corrected labels; by default the first is
    a warning, and the second silent.

    Raises:
        InputError: nothing is embedded yet, or embed was interrupted or rows came since, which
            `partial` allows; a file is damaged.
    """
    state = read_state(task)
    if not partial:
        state.check_complete()
    if notify is not None:
        for remark in state.corrections.remarks():
            notify(remark)
    notify = notify or warn
    dataset, fault = _dataset(state, partial, notify)
    if dataset is not None:
        kept = {row.id for row in dataset.rows}
        digest, used = dataset.snapshot_digest, dataset.partial
    else:
        left_out = state.waiting() | state.uncommitted() if partial else set()
        kept = {row.id for row in state.rows} - left_out
        used = f"partial: {len(kept)} of {len(state.rows)} rows" if left_out else None
        digest = _digest(state)
    pairs = zip(state.rows, state.entries, strict=True)
    chosen = [(row, entry) for row, entry in pairs if row.id in kept]
    if used is not None:
        notify(f"{used}, the others wait for embed")
    rows, entries = [row for row, _ in chosen], [entry for _, entry in chosen]
    return Pinned(task, rows, entries, state.snapshot, digest, dataset, fault, used)


def _dataset(state: State, partial: bool, notify: Notify) -> tuple[Dataset | None, str]:
    """Assign the folds as far as there are labels for them; or say why that is impossible."""
    if not any(row.label is not None for row in state.rows):
        return None, f"no labelled rows in {state.task.place}: label images of two classes or more"
    try:
        return dataset_of(state, partial=partial), ""
    except InputError as error:
        notify(f"no folds and no systems: {error}")
        return None, str(error)


def _digest(state: State) -> str:
    """Digest a state that nothing can be learned from: its rows, its manifest and its caches."""
    cells = [cell or "" for row in state.rows for cell in (row.id, row.path, row.label)]
    parts = {"rows": digest_of_words(*cells), "manifest": state.snapshot.manifest}
    return snapshot_digest(parts, state.snapshot.in_use)


def warn(message: str) -> None:
    """Warn as from the user's line that led here."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and _package(frame) in _NOT_THE_USERS:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _package(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__")).partition(".")[0]
