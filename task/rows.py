"""The rows of a task: from its table, or from one folder per label."""

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import collector_paused
from archiveprobe.base.progress import Notify
from archiveprobe.base.wording import quote_few
from archiveprobe.task.config import Task, nearest
from archiveprobe.task.corrections import CHANGE, Correction, Counts, corrections_file, lay_over
from archiveprobe.task.find_images import Found, find_images, printable
from archiveprobe.task.ids import ID_LIMIT, id_faults
from archiveprobe.task.ids import refuse_repeated as refuse_repeated
from archiveprobe.task.labels import UNLABELLED as UNLABELLED
from archiveprobe.task.labels import Column, read_folders, read_labels, read_splits, refuse
from archiveprobe.task.splits import SPLITS, is_form, say_splits, split_named, split_of_table
from archiveprobe.task.tables.table import Table, read_table

# What folds.group may say instead of a column.
_GROUPINGS = ("near-duplicates", "none")
# What images.split may say instead of a column: the first folder of a row's path is its split.
BY_FOLDERS = "folders"


class Row(NamedTuple):
    """One image of the task; `label` is None for a row to predict.

    `correction` is what a person decided of its label, with the label that the table has now.
    """

    id: str
    path: str
    label: str | None = None
    split: str | None = None
    group: str | None = None
    text: str | None = None
    correction: Correction | None = None

    @property
    def table_label(self) -> str | None:
        """Return the label without its correction; None for a row to predict."""
        return self.label if self.correction is None else self.correction.old_label or None


def read_rows(
    task: Task, *, test_labels: bool = False, notify: Notify = lambda _: None
) -> list[Row]:
    """Read the task's rows in the order of its tables (or of the sorted paths below its root).

    Labels of test rows are left out unless `test_labels` is true, which only scoring may ask for.
    `notify` is told how many rows every split has, where a folder or the name of a table says it,
    what else was guessed, and, where there is no table, of files below the root that are no images.

    Raises:
        InputError: a missing column, no row at all, or repeated ids, unknown labels and splits,
            of which one message names all that a table has.
    """
    rows, counts = read_corrected(task, test_labels=test_labels, notify=notify)
    for remark in counts.remarks():
        notify(remark)
    return rows


def read_corrected(
    task: Task, *, test_labels: bool = False, notify: Notify = lambda _: None
) -> tuple[list[Row], Counts]:
    """Read the task's rows, and count its corrections, of which `notify` is not told.

    Raises:
        InputError: see `read_rows`.
    """
    try:
        task.root.resolve()
    except (RuntimeError, OSError):
        raise InputError(
            f"images.root {task.root} is a link that leads back to itself: correct the link, or "
            f"images.root in {task.file}"
        ) from None
    read = partial(_from_tables, task, test_labels) if task.tables else partial(_from_folders, task)
    with collector_paused():
        rows = read(notify)
    if not rows:
        raise InputError(f"no image in {task.place}: add some, or name another folder or table")
    rows, counts = _corrected(task, rows, test_labels, notify)
    if not test_labels:
        rows = [row._replace(label=None) if row.split == "test" else row for row in rows]
    return rows, counts


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


def _from_tables(task: Task, test_labels: bool, notify: Notify) -> list[Row]:
    tables = {name: read_table(file) for name, file in task.tables.items()}
    splits = _splits_by_name(task, tables)
    _check_columns(task, tables)
    rows: list[Row] = []
    for name, table in tables.items():
        scored = test_labels and not is_form(name)
        folder = _folder_of_paths(task, name, table)
        rows += _from_table(task, table, folder, splits.get(name), scored, notify)
    if len(tables) > 1:
        _refuse_shared(task, list(tables.values()), rows)
    counts = {name: (split, len(tables[name].rows)) for name, split in splits.items()}
    counts |= _counts_by_folder(task, rows) | _counts_by_word(task, tables)
    if counts:
        notify(say_splits(counts, "row"))
    return rows


def _splits_by_name(task: Task, tables: Mapping[str, Table]) -> dict[str, str]:
    """Return the splits of those of several tables whose name says one and whose cells do not."""
    if isinstance(task.images.table, str):
        return {}
    names = [name for name, table in tables.items() if task.images.split not in table.columns]
    return {name: split for name in names if (split := split_of_table(name))}


def _check_columns(task: Task, tables: Mapping[str, Table]) -> None:
    """Check that tables have their columns; of several, one with labels and splits is enough."""
    images = task.images
    for table in tables.values():
        table.require(images.id, *(column for column in (images.path, images.text) if column))
    by_folders = images.split == BY_FOLDERS
    wanted = [images.label if task.labels else None, None if by_folders else images.split]
    for column in wanted:
        if column and not any(column in table.columns for table in tables.values()):
            next(iter(tables.values())).require(column)


def _from_table(
    task: Task,
    table: Table,
    folder: str,
    table_split: str | None,
    test_labels: bool,
    notify: Notify,
) -> list[Row]:
    images = task.images
    has_labels = images.label in table.columns
    group = _group_column(task, table, needed=has_labels)
    paths = [folder + cells[images.path or images.id] for cells in table.rows]
    splits = _splits(task, table, table_split, paths)
    is_read = [has_labels and (test_labels or split != "test") for split in splits.meanings]
    labels = read_labels(task, table, images.label, is_read)
    refuse(table.file, [*id_faults(table, images.id), *splits.faults, *labels.faults])
    for remark in (*table.remarks, *labels.remarks):
        notify(remark)
    return [
        Row(
            id=cells[images.id] if images.path else path,
            path=path,
            label=label,
            split=split,
            group=cells[group] if group else None,
            text=cells[images.text] if images.text else None,
        )
        for cells, path, split, label in zip(
            table.rows, paths, splits.meanings, labels.meanings, strict=True
        )
    ]


def _splits(task: Task, table: Table, table_split: str | None, paths: Sequence[str]) -> Column:
    column = task.images.split
    if column in table.columns:
        return read_splits(table, str(column))
    if column == BY_FOLDERS:
        return Column([_split_of_path(path) for path in paths])
    return Column([table_split] * len(paths))


def _folder_of_paths(task: Task, name: str, table: Table) -> str:
    """Return what goes before every path of a table so that it begins at the root."""
    places = task.images.relative_to
    if places == "root":
        return ""
    if isinstance(places, tuple):
        folder = places[[*task.tables].index(name)].rstrip("/")
        return f"{folder}/" if folder not in ("", ".") else ""
    below = os.path.relpath(table.file.parent.resolve(), task.root.resolve())
    if below.split("/")[0] == "..":
        raise InputError(
            f'{table.file} is not below {task.root}, but images.relative_to = "table" in '
            f"{task.file}: correct images.root"
        )
    return "" if below == "." else f"{below}/"


def _split_of_path(path: str) -> str | None:
    folder, _, inside = path.replace("\\", "/").removeprefix("./").partition("/")
    return split_named(folder) if inside else None


def _refuse_shared(task: Task, tables: Sequence[Table], rows: Sequence[Row]) -> None:
    """Refuse ids that stand in several tables, with counts."""
    sources = [table for table in tables for _ in table.rows]
    first: dict[str, Table] = {}
    shared: dict[tuple[Path, Path], list[str]] = {}
    for row, table in zip(rows, sources, strict=True):
        other = first.setdefault(row.id, table)
        if other is not table:
            shared.setdefault((other.file, table.file), []).append(row.id)
    for (former, latter), ids in shared.items():
        raise InputError(
            f"{len(ids)} ids of {former} stand in {latter} too: {quote_few(ids)}: keep each row in "
            "one table, name each table's folder of images in images.relative_to, or leave a table "
            f"out of images.table in {task.file}"
        )


def _counts_by_folder(task: Task, rows: Sequence[Row]) -> dict[str, tuple[str, int]]:
    if task.images.split != BY_FOLDERS:
        return {}
    counts = Counter((row.path.partition("/")[0], row.split) for row in rows if row.split)
    return {f"{top}/": (split, count) for (top, split), count in counts.items() if split}


def _counts_by_word(task: Task, tables: Mapping[str, Table]) -> dict[str, tuple[str, int]]:
    """Count the cells that mean a split without being its name."""
    column = task.images.split
    cells = [table for table in tables.values() if column in table.columns]
    words = Counter(row[column] for table in cells for row in table.rows if column)
    meanings = {word: (split_named(word), count) for word, count in words.items()}
    return {
        repr(word): (split, count)
        for word, (split, count) in meanings.items()
        if split and word != split
    }


def _group_column(task: Task, table: Table, *, needed: bool) -> str | None:
    group = task.folds.group
    if group in _GROUPINGS or (group not in table.columns and not needed):
        return None
    if group not in table.columns:
        hint = nearest(group, (*table.columns, *_GROUPINGS))
        raise InputError(
            f"no column {group!r} in {table.file}{hint}: correct folds.group in {task.file} "
            f"({', '.join(_GROUPINGS)}, or a column: {', '.join(table.columns)})"
        )
    return group


def _from_folders(task: Task, notify: Notify) -> list[Row]:
    if task.folds.group not in _GROUPINGS:
        hint = nearest(task.folds.group, _GROUPINGS)
        raise InputError(
            f"folds.group names the column {task.folds.group!r}{hint} in {task.file}, but there "
            'is no table: set images.table, or group = "near-duplicates"'
        )
    if not os.path.isdir(task.root):  # noqa: PTH112 - also for what is longer than any name
        raise InputError(f"no folder {task.root}: correct images.root in {task.file}")
    found = images_below(task)
    for remark in found.remarks():
        notify(remark)
    folders = split_folders(found.paths, task.labels)
    rows = _from_paths(task, sorted(found.paths), folders, notify)
    counts = Counter(row.path.partition("/")[0] for row in rows if row.split)
    if counts and task.labels:
        in_order = sorted(counts, key=lambda top: (SPLITS.index(folders[top]), top))
        said = {f"{printable(top)}/": (folders[top], counts[top]) for top in in_order}
        notify(say_splits(said, "image"))
    _refuse_twins(rows)
    return rows


def images_below(task: Task) -> Found:
    """Find the files below the root that may be images, but for the task's own.

    Raises:
        InputError: a folder cannot be listed.
    """
    home = task.folder.resolve()
    own = [task.file.name, task.work.name, task.submission.template]
    paths = [home / name for name in own if name]
    return find_images(task.root.resolve(), [*paths, corrections_file(task).resolve()])


def split_folders(paths: Iterable[str], labels: Collection[str]) -> dict[str, str]:
    """Return the split of every top folder of `paths` that is named like one.

    A folder that bears the name of a label is one, as long as others at the top are no splits.
    """
    tops = {path.partition("/")[0] for path in paths if "/" in path}
    splits = {top: split for top in tops if (split := split_named(top))}
    if len(splits) < len(tops):
        splits = {top: split for top, split in splits.items() if top not in labels}
    return splits


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


def _from_paths(
    task: Task, paths: Sequence[str], splits: Mapping[str, str], notify: Notify
) -> list[Row]:
    names = [printable(path) for path in paths]
    long = [len(name) for name in names if len(name) > ID_LIMIT]
    if long:
        raise InputError(
            f"{task.root}: {len(long)} paths have more than {ID_LIMIT} characters (the first "
            f"{long[0]}): shorten them"
        )
    places = [_split_and_folder(path, splits) for path in paths]
    labels = read_folders(task, places, names)
    refuse(task.root, labels.faults)
    for remark in labels.remarks:
        notify(remark)
    return [
        Row(name, path, label=label, split=split)
        for name, path, (split, _), label in zip(names, paths, places, labels.meanings, strict=True)
    ]


def _split_and_folder(path: str, splits: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the split of an image's path, and the folder that may be its label."""
    folders = path.split("/")[:-1]
    split = splits.get(folders[0]) if folders else None
    if split:
        folders.pop(0)
    return split, printable(folders[0]) if folders else None


def _corrected(
    task: Task, rows: list[Row], test_labels: bool, notify: Notify
) -> tuple[list[Row], Counts]:
    labels = ((row.id, row.label, row.split == "test" and not test_labels) for row in rows)
    laid, counts = lay_over(task, labels, notify)
    return [_with(row, laid[row.id]) if row.id in laid else row for row in rows], counts


def _with(row: Row, correction: Correction) -> Row:
    label = correction.label or None if correction.decision == CHANGE else row.label
    return row._replace(label=label, correction=correction)
