"""The rows of a task: from its table, or from one folder per label."""

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from task.config import Task, nearest
from task.errors import InputError
from task.table import Table, read_table

SPLITS = ("train", "validation", "test")
UNLABELLED = "unlabelled"
# Companions that exports put beside the photographs; anything else is judged by its content.
SIDECARS = frozenset(
    ".csv .db .h5 .hdf5 .html .ini .ipynb .json .jsonl .log .md .npy .npz .parquet .pt .py "
    ".safetensors .sh .toml .tsv .txt .xml .yaml .yml".split()
)


@dataclass(frozen=True)
class Row:
    """One photograph of the task; `label` is None for a row to predict."""

    id: str
    path: str
    label: str | None = None
    split: str | None = None
    group: str | None = None
    text: str | None = None


def read_rows(task: Task, *, test_labels: bool = False) -> list[Row]:
    """Read the task's rows in the order of its table (or of the sorted paths below its root).

    Labels of test rows are left out unless `test_labels` is true, which only scoring may ask for.

    Raises:
        InputError: a missing column, a repeated id, an unknown label or split, or no row at all.
    """
    rows = _from_table(task, test_labels) if task.table else _from_folders(task)
    if not rows:
        where = task.table or task.root
        raise InputError(f"no photograph in {where}: add some, or correct [images] in task.toml")
    rows = _corrected(task, rows)
    if test_labels:
        return rows
    return [replace(row, label=None) if row.split == "test" else row for row in rows]


def readable(path: str) -> str:
    """The path as text: bytes that are not UTF-8 come out as `\\xNN`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def locate(root: Path, path: str) -> Path:
    """The file of a row; falls back on the other Unicode normal form, as macOS writes names."""
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
    group = task.folds.group if task.folds.group not in ("near-duplicates", "none") else None
    has_labels = images.label in table.columns or bool(task.labels)
    optional = (images.path, images.split, images.text, group)
    table.require(images.id, *(column for column in optional if column))
    if has_labels:
        table.require(images.label)
    _refuse_repeated(table, images.id)
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


def _refuse_repeated(table: Table, column: str) -> None:
    first: dict[str, int] = {}
    for line, cells in zip(table.lines, table.rows, strict=True):
        value = cells[column]
        if not value.strip():
            raise InputError(f"{table.file} line {line}: the id is empty: give every row an id")
        if value in first:
            raise InputError(
                f"{table.file} line {line}: id {value!r} stands on line {first[value]} already: "
                "keep one of the two"
            )
        first[value] = line


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
    return value


def _split(value: str, where: str) -> str | None:
    if not value.strip():
        return None
    if value not in SPLITS:
        hint = nearest(value, SPLITS)
        raise InputError(f"{where}: unknown split {value!r}{hint}: use train, validation or test")
    return value


def _from_folders(task: Task) -> list[Row]:
    if task.folds.group not in ("near-duplicates", "none"):
        raise InputError(
            f"folds.group names the column {task.folds.group!r} in {task.file}, but there is no "
            'table: set images.table, or group = "near-duplicates"'
        )
    if not task.root.is_dir():
        raise InputError(f"no folder {task.root}: correct images.root in {task.file}")
    return [_from_path(task, path) for path in sorted(_paths(task))]


def _from_path(task: Task, path: str) -> Row:
    name = readable(path)
    folders = name.split("/")[:-1]
    split = folders.pop(0) if folders and folders[0] in SPLITS else None
    named = folders[0] if folders else UNLABELLED
    if named == UNLABELLED or not task.labels:
        return Row(name, path, split=split)
    if split == "test" and named not in task.labels:
        return Row(name, path, split=split)
    return Row(name, path, label=_label(task, named, f"folder of {name!r}"), split=split)


def _paths(task: Task) -> Iterator[str]:
    """Paths below the root that may be photographs, with bytes that are not UTF-8 escaped."""
    root, home = task.root.resolve(), task.folder.resolve()
    own = {home / task.file.name, home / task.work.name}

    def refuse(error: OSError) -> None:
        place = readable(str(error.filename))
        raise InputError(f"cannot list {place}: {error.strerror}: correct its permissions")

    for folder, subfolders, files in os.walk(root, onerror=refuse):
        here = Path(folder)
        subfolders[:] = [
            name for name in subfolders if not name.startswith(".") and here / name not in own
        ]
        links = [name for name in subfolders if (here / name).is_symlink()]
        for name in [*files, *links]:
            path = here / name
            if name.startswith(".") or path.suffix.lower() in SIDECARS or path in own:
                continue
            yield path.relative_to(root).as_posix()


def _corrected(task: Task, rows: list[Row]) -> list[Row]:
    if task.corrections is None:
        return rows
    table = read_table(task.folder / task.corrections)
    table.require("id", "label")
    _refuse_repeated(table, "id")
    known = {row.id for row in rows}
    corrected = {}
    for line, cells in zip(table.lines, table.rows, strict=True):
        where = f"{table.file} line {line}"
        if cells["id"] not in known:
            raise InputError(f"{where}: no row has the id {cells['id']!r}: correct or remove it")
        corrected[cells["id"]] = _label(task, cells["label"], where)
    return [replace(row, label=corrected[row.id]) if row.id in corrected else row for row in rows]
