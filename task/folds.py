"""work/folds.csv: repeated, stratified, grouped folds, assigned once, the same for every system.

Folds are assigned once every image was decoded, since near-duplicates are only known then. New rows
extend the assignment; corrections of labels never move a row, so that scores stay comparable. A row
whose image is another than before joins the fold of the near-duplicates that it has now. Rows that
left the table keep their lines: should they or their copies come back, they belong there.
The file is not to be edited: every line bears the settings and a checksum of the whole.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import write_whole
from archiveprobe.base.reading import PRODUCT_BYTES, read_product
from archiveprobe.base.wording import number_of
from archiveprobe.task.balanced_folds import balanced_folds
from archiveprobe.task.config import Task
from archiveprobe.task.duplicates import join_groups, near_duplicate_groups, pairs_of_equal
from archiveprobe.task.manifest import Entry
from archiveprobe.task.rows import Row
from archiveprobe.task.tables.table_csv import long_cells, text_stream


@dataclass(frozen=True, slots=True)
class FoldAssignment:
    """Holds a row's group and its fold (from 0) in every repeat."""

    id: str
    digest: str
    group: str
    folds: tuple[int, ...]


@dataclass(frozen=True)
class FoldTable:
    """The placed rows by id, and how many groups of labelled rows lie in more than one fold.

    Such a group comes about when a new image links two others that have their folds already.
    """

    placed: dict[str, FoldAssignment]
    spanning: int = 0


def folds_file(task: Task) -> Path:
    """Return where the folds of a task lie."""
    return task.work / "folds.csv"


def ensure_folds(
    task: Task, rows: Sequence[Row], entries: Sequence[Entry], *, write: bool = True
) -> FoldTable:
    """Read the folds, assign or extend them for labelled rows that have none, and write them.

    With `write` false nothing is written: the folds of a part of the rows, for a first look.

    Raises:
        InputError: too few labelled rows or groups for the folds, one class only, a damaged file,
            or a file written under other settings.
    """
    labelled = [
        (row, entry) for row, entry in zip(rows, entries, strict=True) if row.label is not None
    ]
    old = _read(task)
    if old and all(_is_settled(task, old.get(row.id), entry) for row, entry in labelled):
        return FoldTable(old, _spanning(old, labelled))
    groups = _group_names(task, labelled)
    _check_enough(task, labelled, set(groups))
    table = _extend(task, labelled, groups, old)
    if write:
        _write(task, table)
    return table


def _is_settled(task: Task, place: FoldAssignment | None, entry: Entry) -> bool:
    """Return whether a row has its folds, and still the image that it got them for.

    Where groups come from a column or are not wanted, the image does not matter. An image that is
    gone for now keeps its place.
    """
    if place is None:
        return False
    by_image = task.folds.group == "near-duplicates"
    return not by_image or not entry.digest or place.digest == entry.digest


def _spanning(placed: Mapping[str, FoldAssignment], labelled: Sequence[tuple[Row, Entry]]) -> int:
    homes = {(placed[row.id].group, placed[row.id].folds) for row, _ in labelled}
    return len(homes) - len({group for group, _ in homes})


def regroup(
    task: Task, rows: Sequence[Row], entries: Sequence[Entry], groups: Sequence[int]
) -> bool:
    """Assign the folds again so that rows of one of `groups` (a number per row) stay together.

    What folds.group asks for stays together as well. Rows that left the table move with their
    group, where it is still there. False, and nothing written, where the groups are those of the
    folds already, and none of them lies in several.

    Raises:
        InputError: too few labelled rows or groups for the folds, or a damaged file.
    """
    known = ensure_folds(task, rows, entries)
    old = known.placed
    places = [at for at, row in enumerate(rows) if row.label is not None]
    labelled = [(rows[at], entries[at]) for at in places]
    joined = _join_groups(_group_names(task, labelled), [groups[at] for at in places])
    first: dict[int, str] = {}
    names = [first.setdefault(n, row.id) for n, (row, _) in zip(joined, labelled, strict=True)]
    before = [old[row.id].group for row, _ in labelled]
    same = len(set(zip(before, names, strict=True))) == len(set(before)) == len(set(names))
    if same and not known.spanning:
        return False
    _check_enough(task, labelled, set(names))
    new = _extend(task, labelled, names, {}).placed
    home = {old[id_].group: row for id_, row in new.items()}
    for row in old.values():
        anchor = home.get(row.group, row)
        new.setdefault(row.id, replace(row, group=anchor.group, folds=anchor.folds))
    _write(task, FoldTable(new))
    return True


def _join_groups(names: Sequence[str], groups: Sequence[int]) -> np.ndarray:
    """Join the groups of rows that share a name or a group, directly or over others."""
    place: dict[str, int] = {}
    number = np.array([place.setdefault(name, len(place)) for name in names])
    return join_groups(number, *pairs_of_equal(np.arange(len(names)), np.array(groups)))


def _check_enough(task: Task, labelled: Sequence[tuple[Row, Entry]], groups: set[str]) -> None:
    labels = {row.label for row, _ in labelled}
    count = task.folds.count
    if len(labels) < 2:
        only = f"only {next(iter(labels))!r}" if labels else "none"
        fault = f"folds need labelled rows of two classes, found {only}: label more"
    elif len(labelled) < count:
        fault = (
            f"{number_of(len(labelled), 'labelled row')} cannot fill {count} folds: label more, "
            "or lower folds.count"
        )
    elif len(groups) < count:
        fault = (
            f"{number_of(len(groups), 'group')} cannot fill {count} folds: lower folds.count, or "
            'set folds.group = "none"'
        )
    else:
        return
    raise InputError(f"no folds yet: {task.file}: {fault}")


def _group_names(task: Task, labelled: Sequence[tuple[Row, Entry]]) -> list[str]:
    ids = [row.id for row, _ in labelled]
    if task.folds.group == "none":
        return ids
    if task.folds.group != "near-duplicates":
        return [row.group or row.id for row, _ in labelled]
    numbers = near_duplicate_groups([entry for _, entry in labelled])
    first: dict[int, str] = {}
    return [first.setdefault(int(n), name) for n, name in zip(numbers, ids, strict=True)]


def _extend(
    task: Task,
    labelled: Sequence[tuple[Row, Entry]],
    groups: Sequence[str],
    old: dict[str, FoldAssignment],
) -> FoldTable:
    """Place the new rows: with their group or an equal file where that is placed, else balanced."""
    settled = {
        row.id: old[row.id]
        for row, entry in labelled
        if row.id in old and _is_settled(task, old[row.id], entry)
    }
    home = _find_anchors(labelled, groups, old, settled)
    fixed = [
        settled.get(row.id) or home.get(group)
        for (row, _), group in zip(labelled, groups, strict=True)
    ]
    assigned = balanced_folds(
        [row.label or "" for row, _ in labelled],
        groups,
        [place.folds if place else None for place in fixed],
        folds=task.folds.count,
        repeats=task.folds.repeats,
        seed=task.folds.seed,
    )
    table = dict(old)
    for (row, entry), group, folds in zip(labelled, groups, assigned, strict=True):
        # Near-duplicates bear one name even where their folds differ: that is how it is noticed.
        name = home[group].group if group in home else group
        digest = entry.digest or (old[row.id].digest if row.id in old else "")
        table[row.id] = FoldAssignment(row.id, digest, name, folds)
    return FoldTable(table, _spanning(table, labelled))


def _find_anchors(
    labelled: Sequence[tuple[Row, Entry]],
    groups: Sequence[str],
    old: Mapping[str, FoldAssignment],
    settled: Mapping[str, FoldAssignment],
) -> dict[str, FoldAssignment]:
    """Find the placed row that the new rows of each group join.

    First a settled row of the group; then a row of the file with equal bytes, as after renaming, or
    of the same name of a group; last the place that a row had for another image.
    """
    present = {row.id for row, _ in labelled}
    anchors = [place for place in old.values() if place.id not in present or place.id in settled]
    by_digest = {place.digest: place for place in anchors if place.digest}
    by_group = {place.group: place for place in anchors}
    home: dict[str, FoldAssignment] = {}
    for (row, _), group in zip(labelled, groups, strict=True):
        if row.id in settled:
            home.setdefault(group, settled[row.id])
    for (row, entry), group in zip(labelled, groups, strict=True):
        anchor = by_digest.get(entry.digest) or by_group.get(group) or old.get(row.id)
        if anchor:
            home.setdefault(group, anchor)
    return home


_REMEDY = "restore it from a copy, or delete it and run every system again"
_SETTINGS = re.compile(r"(\d+) folds, (\d+) repeats, seed (\d+), group (.*)", re.DOTALL)


def _settings(task: Task) -> str:
    folds = task.folds
    return f"{folds.count} folds, {folds.repeats} repeats, seed {folds.seed}, group {folds.group}"


def _checksum(placed: Iterable[FoldAssignment]) -> str:
    """Compute a checksum that tells a file which lost lines from a whole one."""
    total = hashlib.sha256()
    for row in placed:
        total.update(json.dumps([row.id, row.digest, row.group, *row.folds]).encode())
    return total.hexdigest()[:16]


def _columns(task: Task) -> list[str]:
    repeats = (f"repeat{repeat}" for repeat in range(task.folds.repeats))
    return ["id", "digest", "group", *repeats, "settings", "check"]


def _read(task: Task) -> dict[str, FoldAssignment]:
    file = folds_file(task)
    content = read_product(file, PRODUCT_BYTES, _REMEDY)
    if content is None:
        return {}
    reader = csv.reader(text_stream(content), strict=True)
    placed: dict[str, FoldAssignment] = {}
    checks = set()
    try:
        with long_cells():
            # Folds of before November 2026 call the column "cut", and stay comparable.
            columns = ["settings" if name == "cut" else name for name in next(reader, [])]
            for cells in filter(None, reader):
                if not placed:
                    _check_settings(task, dict(zip(columns, cells, strict=False)))
                    _check_columns(task, columns)
                row = _parse(task, cells)
                if placed.setdefault(row.id, row) is not row:
                    raise ValueError(f"id {row.id!r} stands there twice")
                checks.add(cells[-1])
        if checks != {_checksum(placed.values())}:
            raise ValueError("lines were lost or changed")
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} is damaged or was edited (read up to line {reader.line_num}: {error}): "
            f"{_REMEDY}"
        ) from None
    return placed


def _check_settings(task: Task, cells: Mapping[str, str]) -> None:
    found = _SETTINGS.fullmatch(cells["settings"])
    if not found:
        raise ValueError("no settings in the column 'settings'")
    then = dict(zip(("count", "repeats", "seed", "group"), found.groups(), strict=True))
    now = {key: str(value) for key, value in task.folds.model_dump().items()}
    changed = [key for key in then if then[key] != now[key]]
    if changed:
        old, new = (", ".join(f"{key} = {of[key]}" for key in changed) for of in (then, now))
        raise InputError(
            f"{folds_file(task)} was written with {old}, but [folds] in {task.file} says {new}: "
            "set it back, or delete that file and run every system again"
        )


def _check_columns(task: Task, columns: Sequence[str]) -> None:
    if columns != _columns(task):
        raise ValueError("other columns than it was written with")


def _parse(task: Task, cells: Sequence[str]) -> FoldAssignment:
    id_, digest, group, *numbers, settings, _ = cells
    folds = tuple(map(int, numbers))
    if len(folds) != task.folds.repeats:
        raise ValueError("cells too many or too few")
    if settings != _settings(task) or not 0 <= min(folds) <= max(folds) < task.folds.count:
        raise ValueError("no such fold")
    return FoldAssignment(id_, digest, group, folds)


def _write(task: Task, table: FoldTable) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_columns(task))
    ends = [_settings(task), _checksum(table.placed.values())]
    for row in table.placed.values():
        writer.writerow([row.id, row.digest, row.group, *row.folds, *ends])
    write_whole(folds_file(task), out.getvalue().encode())
