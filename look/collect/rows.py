"""What the table and the decoding of the images say of every row."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from archiveprobe.api.state import Pinned
from archiveprobe.look.collect.parts import Part
from archiveprobe.task.manifest import Entry
from archiveprobe.task.splits import SPLITS

_SIZES: dict[str, DTypeLike] = {"width": np.int32, "height": np.int32, "bytes": np.float64}


def collect_rows(pinned: Pinned) -> Part:
    """Collect labels, splits, statuses, folds and sizes, -1 where there is none."""
    rows, entries, task = pinned.rows, pinned.entries, pinned.task
    label = _numbers([row.label for row in rows], task.labels, np.int8)
    splits = [name for name in SPLITS if any(row.split == name for row in rows)]
    statuses = sorted({entry.status for entry in entries}, key=lambda name: (name != "ok", name))
    columns = {
        "label": label,
        "table_label": _numbers([row.table_label for row in rows], task.labels, np.int8),
        "split": _numbers([row.split for row in rows], splits, np.int8),
        "status": _numbers([entry.status for entry in entries], statuses, np.int16),
        "fold": _folds(pinned, label),
    }
    for name, kind in _SIZES.items():
        columns[name] = _observed(entries, name, kind)
    meta = {
        "labels": list(task.labels),
        "positive": _place(task.labels, task.positive, len(task.labels) - 1),
        "unreadable": _place(task.labels, task.submission.unreadable, -1),
        "count": len(rows),
        "labelled": int((label >= 0).sum()),
        "to_predict": int((label < 0).sum()),
        "splits": splits,
        "statuses": statuses,
    }
    if pinned.dataset is not None:
        meta |= {"positive": pinned.dataset.positive, "unreadable": pinned.dataset.unreadable}
    return Part(columns, meta)


def _place(labels: Sequence[str], label: str | None, otherwise: int) -> int:
    return otherwise if label is None else labels.index(label)


def _numbers(values: Sequence[str | None], names: Sequence[str], kind: DTypeLike) -> np.ndarray:
    place = {name: at for at, name in enumerate(names)}
    return np.array([-1 if value is None else place[value] for value in values], kind)


def _folds(pinned: Pinned, label: np.ndarray) -> np.ndarray:
    fold = np.full(len(label), -1, np.int16)
    if pinned.dataset is not None:
        fold[label >= 0] = pinned.dataset.fold[0]
    return fold


def _observed(entries: Sequence[Entry], name: str, kind: DTypeLike) -> np.ndarray:
    values = (getattr(entry.observed, name, None) for entry in entries)
    return np.array([-1 if value is None else value for value in values], kind)
