"""The rows of a task: from its table, or from one folder per label."""

import os
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import Task, nearest
from archiveprobe.task.find_images import UNSAFE_IN_IDS, find_images, printable
from archiveprobe.task.table import Table, read_table

SPLITS = ("train", "validation", "test")
UNLABELLED = "unlabelled"
# Ids become arrays in which every one takes the room of the longest.
ID_LIMIT = 1024
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
    `notify` is told of files below the root that are no images, where there is no table.

    Raises:
        InputError: a missing column, a repeated id, an unknown label or split, or no row at all.
    """
    try:
        task.root.resolve()
    except (RuntimeError, OSError):
        raise InputError(
            f"images.root {task.root} is a link that leads back to itself: correct the link, or "
            f"images.root in {task.file}"
        ) from None
    rows = _from_table(task, test_labels) if task.table else _from_folders(task, notify)
    if not rows:
        where = task.table or task.root
        raise InputError(f"no image in {where}: add some, or name another folder or table")
    rows = _corrected(task, rows)
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


def _from_table(task: Task, test_labels: bool) -> list[Row]:
    assert task.table is not None
    table = read_table(task.table)
    images = task.images
    has_labels = images.label in table.columns or bool(task.labels)
    optional = (images.path, images.split, images.text)
    table.require(images.id, *(column for column in optional if column))
    group = _group_column(task, table)
    if has_labels:
        table.require(images.label)
    refuse_repeated(table, images.id)
    rows = []
    for line, cells in zip(table.lines, table.rows, strict=True):
        where = f"{table.file} line {line}"
        split = _split(cells[images.split], where) if images.split else None
        is_read = has_labels and (test_labels or split != "test")
        rows.append(
            Row(
                id=cells[images.id],
                path=cells[images.path or images.id],
                label=_label(task, cells[images.label], where) if is_read else None,
                split=split,
                group=cells[group] if group else None,
                text=cells[images.text] if images.text else None,
            )
        )
    return rows


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


def refuse_repeated(table: Table, column: str) -> None:
    """Check that every row has an id, and another one.

    Raises:
        InputError: one is empty, or stands twice; both lines are named.
    """
    first: dict[str, int] = {}
    for line, cells in zip(table.lines, table.rows, strict=True):
        value, where = cells[column], f"{table.file} line {line}"
        if not value.strip():
            raise InputError(f"{where}: the id is empty: give every row an id")
        _check_short(value, where)
        if UNSAFE_IN_IDS.search(value):
            raise InputError(
                f"{where}: the id {value!r} holds a NUL or a lone carriage return, which no "
                "CSV gives back: take it out"
            )
        if value in first:
            raise InputError(
                f"{where}: id {value!r} stands on line {first[value]} already: keep one of the two"
            )
        first[value] = line


def _check_short(value: str, where: str) -> None:
    if len(value) > ID_LIMIT:
        raise InputError(
            f"{where}: an id of {len(value)} characters, limit {ID_LIMIT}: shorten it, or correct "
            "the quotes around it"
        )


def _label(task: Task, value: str, where: str) -> str | None:
    if not value.strip():
        return None
    if value not in task.labels:
        hint = nearest(value, task.labels)
        known = ", ".join(task.labels) or "none"
        raise InputError(
            f"{where}: unknown label {value!r}{hint}: correct it, "
            f"or add it to labels in task.toml (now {known})"
        )
    # One object for all rows of a label.
    return sys.intern(value)


def _split(value: str, where: str) -> str | None:
    if not value.strip():
        return None
    if value not in SPLITS:
        hint = nearest(value, SPLITS)
        raise InputError(f"{where}: unknown split {value!r}{hint}: use train, validation or test")
    return value


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
    rows = [_from_path(task, path) for path in sorted(found.paths)]
    _refuse_twins(rows)
    return rows


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


def _from_path(task: Task, path: str) -> Row:
    name = printable(path)
    _check_short(name, str(task.root))
    folders = name.split("/")[:-1]
    split = folders.pop(0) if folders and folders[0] in SPLITS else None
    named = folders[0] if folders else UNLABELLED
    if named == UNLABELLED or not task.labels:
        return Row(name, path, split=split)
    if named in task.labels:
        return Row(name, path, label=sys.intern(named), split=split)
    if split == "test":
        return Row(name, path, split=split)
    hint = nearest(named, (*task.labels, UNLABELLED))
    raise InputError(
        f"folder of {name!r}: unknown label {named!r}{hint}: rename the folder, add it to labels "
        f"in task.toml (now {', '.join(task.labels)}), or move it out of images.root"
    )


def _corrected(task: Task, rows: list[Row]) -> list[Row]:
    if task.corrections is None:
        return rows
    table = read_table(task.folder / task.corrections)
    table.require("id", "label")
    refuse_repeated(table, "id")
    known = {row.id for row in rows}
    corrected = {}
    for line, cells in zip(table.lines, table.rows, strict=True):
        where = f"{table.file} line {line}"
        if cells["id"] not in known:
            raise InputError(f"{where}: no row has the id {cells['id']!r}: correct or remove it")
        corrected[cells["id"]] = _label(task, cells["label"], where)
    return [replace(row, label=corrected[row.id]) if row.id in corrected else row for row in rows]
