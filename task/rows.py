"""The rows of a task: from its table, or from one folder per label."""

import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import Task, nearest
from archiveprobe.task.find_images import find_images, printable
from archiveprobe.task.ids import ID_LIMIT, id_faults, unknown_ids
from archiveprobe.task.ids import refuse_repeated as refuse_repeated
from archiveprobe.task.labels import SPLITS as SPLITS
from archiveprobe.task.labels import UNLABELLED as UNLABELLED
from archiveprobe.task.labels import read_folders, read_labels, read_splits, refuse
from archiveprobe.task.table import Table, read_table

# What folds.group may say instead of a column.
_GROUPINGS = ("near-duplicates", "none")


@dataclass(frozen=True, slots=True)
class Row:
    """One image of the task; `label` is None for a row to predict."""

    id: str
    path: str
    label: str | None = None
    split: str | None = None
    group: str | None = None
    text: str | None = None


def read_rows(
    task: Task, *, test_labels: bool = False, notify: Callable[[str], None] = lambda _: None
) -> list[Row]:
    """Read the task's rows in the order of its table (or of the sorted paths below its root).

    Labels of test rows are left out unless `test_labels` is true, which only scoring may ask for.
    `notify` is told what was guessed, and of files below the root that are no images, where there
    is no table.

    Raises:
        InputError: a missing column, no row at all, or repeated ids, unknown labels and splits,
            of which one message names all that a table has.
    """
    try:
        task.root.resolve()
    except (RuntimeError, OSError):
        raise InputError(
            f"images.root {task.root} is a link that leads back to itself: correct the link, or "
            f"images.root in {task.file}"
        ) from None
    rows = _from_table(task, test_labels, notify) if task.table else _from_folders(task, notify)
    if not rows:
        where = task.table or task.root
        raise InputError(f"no image in {where}: add some, or name another folder or table")
    rows = _corrected(task, rows, notify)
    if test_labels:
        return rows
    return [replace(row, label=None) if row.split == "test" else row for row in rows]


def locate(root: Path, path: str) -> Path:
    """Find the file of a row, also in the other Unicode normal form, as macOS writes names."""
    wanted = root / path
    if wanted.is_symlink() or wanted.exists():
        return wanted
    for form in ("NFC", "NFD"):
        twin = root / unicodedata.normalize(form, path)
        if twin.exists():
            return twin
    return wanted


def _from_table(task: Task, test_labels: bool, notify: Callable[[str], None]) -> list[Row]:
    assert task.table is not None
    table = read_table(task.table)
    images = task.images
    has_labels = images.label in table.columns or bool(task.labels)
    optional = (images.path, images.split, images.text)
    table.require(images.id, *(column for column in optional if column))
    group = _group_column(task, table)
    if has_labels:
        table.require(images.label)
    splits = read_splits(table, images.split)
    is_read = [has_labels and (test_labels or split != "test") for split in splits.meanings]
    labels = read_labels(task, table, images.label, is_read)
    refuse(table.file, [*id_faults(table, images.id), *splits.faults, *labels.faults])
    for remark in (*table.remarks, *splits.remarks, *labels.remarks):
        notify(remark)
    return [
        Row(
            id=cells[images.id],
            path=cells[images.path or images.id],
            label=label,
            split=split,
            group=cells[group] if group else None,
            text=cells[images.text] if images.text else None,
        )
        for cells, split, label in zip(table.rows, splits.meanings, labels.meanings, strict=True)
    ]


def _group_column(task: Task, table: Table) -> str | None:
    group = task.folds.group
    if group in _GROUPINGS:
        return None
    if group not in table.columns:
        hint = nearest(group, (*table.columns, *_GROUPINGS))
        raise InputError(
            f"no column {group!r} in {table.file}{hint}: correct folds.group in {task.file} "
            f"({', '.join(_GROUPINGS)}, or a column: {', '.join(table.columns)})"
        )
    return group


def _from_folders(task: Task, notify: Callable[[str], None]) -> list[Row]:
    if task.folds.group not in _GROUPINGS:
        hint = nearest(task.folds.group, _GROUPINGS)
        raise InputError(
            f"folds.group names the column {task.folds.group!r}{hint} in {task.file}, but there "
            'is no table: set images.table, or group = "near-duplicates"'
        )
    if not os.path.isdir(task.root):  # noqa: PTH112 - also for what is longer than any name
        raise InputError(f"no folder {task.root}: correct images.root in {task.file}")
    home = task.folder.resolve()
    own = [task.file.name, task.work.name, task.corrections, task.submission.template]
    found = find_images(task.root.resolve(), [home / name for name in own if name])
    for remark in found.remarks():
        notify(remark)
    rows = _from_paths(task, sorted(found.paths), notify)
    _refuse_twins(rows)
    return rows


def _from_paths(task: Task, paths: Sequence[str], notify: Callable[[str], None]) -> list[Row]:
    names = [printable(path) for path in paths]
    long = [len(name) for name in names if len(name) > ID_LIMIT]
    if long:
        raise InputError(
            f"{task.root}: {len(long)} paths have more than {ID_LIMIT} characters (the first "
            f"{long[0]}): shorten them"
        )
    places = [_split_and_folder(name) for name in names]
    labels = read_folders(task, places, names)
    refuse(task.root, labels.faults)
    for remark in labels.remarks:
        notify(remark)
    return [
        Row(name, path, label=label, split=split)
        for name, path, (split, _), label in zip(names, paths, places, labels.meanings, strict=True)
    ]


def _split_and_folder(name: str) -> tuple[str | None, str | None]:
    """Return the split and the label's folder that an image's path names."""
    folders = name.split("/")[:-1]
    split = folders.pop(0) if folders and folders[0] in SPLITS else None
    return split, folders[0] if folders else None


def _refuse_twins(rows: Sequence[Row]) -> None:
    """Refuse two names that read the same: one not UTF-8, the other spelling its bytes out."""
    if all(row.id == row.path for row in rows):
        return
    first: dict[str, Row] = {}
    for row in rows:
        twin = first.setdefault(row.id, row)
        if twin is not row:
            names = " and ".join(repr(os.fsencode(one.path)) for one in (twin, row))
            raise InputError(f"the files {names} would both have the id {row.id!r}: rename one")


def _corrected(task: Task, rows: list[Row], notify: Callable[[str], None]) -> list[Row]:
    if task.corrections is None:
        return rows
    table = read_table(task.folder / task.corrections)
    table.require("id", "label")
    labels = read_labels(task, table, "label")
    known = {row.id for row in rows}
    unknown = unknown_ids(table, "id", known)
    refuse(table.file, [*id_faults(table, "id"), *unknown, *labels.faults])
    for remark in (*table.remarks, *labels.remarks):
        notify(remark)
    ids = (cells["id"] for cells in table.rows)
    corrected = dict(zip(ids, labels.meanings, strict=True))
    return [replace(row, label=corrected[row.id]) if row.id in corrected else row for row in rows]
