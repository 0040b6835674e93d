"""work/folds.csv: repeated, stratified, grouped folds, cut once and the same for every system.

New rows extend the cut; corrections of labels never move a row, so that figures stay comparable.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from task.config import Task
from task.duplicates import near_duplicate_groups
from task.errors import InputError
from task.files import write_whole
from task.manifest import Entry
from task.rows import Row


@dataclass(frozen=True)
class Placed:
    """A row's group and its fold (from 0) in every repeat."""

    id: str
    digest: str
    group: str
    folds: tuple[int, ...]


@dataclass(frozen=True)
class FoldTable:
    """The placed rows by id, and how many groups new rows have joined across folds."""

    placed: dict[str, Placed]
    spanning: int = 0


def folds_file(task: Task) -> Path:
    """Where the folds of a task lie."""
    return task.work / "folds.csv"


def ensure_folds(task: Task, rows: Sequence[Row], entries: Sequence[Entry]) -> FoldTable:
    """Read the folds, cut or extend them for labelled rows that have none, and write them.

    Raises:
        InputError: too few labelled rows or groups for the folds, one class only, a damaged file,
            or a file cut under other settings.
    """
    labelled = [
        (row, entry) for row, entry in zip(rows, entries, strict=True) if row.label is not None
    ]
    old = _read(task)
    if all(row.id in old for row, _ in labelled) and old:
        return FoldTable(old)
    _check_enough(task, [row for row, _ in labelled])
    groups = _group_names(task, labelled)
    _check_groups(task, set(groups))
    table = _extend(task, labelled, groups, old)
    _write(task, table)
    return table


def _check_enough(task: Task, rows: Sequence[Row]) -> None:
    labels = {row.label for row in rows}
    if len(labels) < 2:
        only = f"only {next(iter(labels))!r}" if labels else "none"
        raise InputError(f"{task.file}: folds need labelled rows of two classes, found {only}")
    if len(rows) < task.folds.count:
        raise InputError(
            f"{task.file}: {len(rows)} labelled rows do not fill {task.folds.count} folds: "
            "label more, or lower folds.count"
        )


def _check_groups(task: Task, groups: set[str]) -> None:
    if len(groups) < task.folds.count:
        raise InputError(
            f"{task.file}: {len(groups)} groups do not fill {task.folds.count} folds: "
            'lower folds.count, or set folds.group = "none"'
        )


def _group_names(task: Task, labelled: Sequence[tuple[Row, Entry]]) -> list[str]:
    ids = [row.id for row, _ in labelled]
    if task.folds.group == "none":
        return ids
    if task.folds.group == "near-duplicates":
        numbers = near_duplicate_groups([entry for _, entry in labelled])
        first: dict[int, str] = {}
        return [first.setdefault(int(n), name) for n, name in zip(numbers, ids, strict=True)]
    return [row.group or row.id for row, _ in labelled]


def _extend(
    task: Task,
    labelled: Sequence[tuple[Row, Entry]],
    groups: Sequence[str],
    old: dict[str, Placed],
) -> FoldTable:
    """Place the new rows: with their group or an equal file where that is placed, else balanced."""
    home, spanning = _homes(labelled, groups, old)
    fixed = [
        old.get(row.id) or home.get(group) for (row, _), group in zip(labelled, groups, strict=True)
    ]
    cut = balanced_cut(
        [row.label or "" for row, _ in labelled],
        groups,
        [place.folds if place else None for place in fixed],
        folds=task.folds.count,
        repeats=task.folds.repeats,
        seed=task.folds.seed,
    )
    table = dict(old)
    for (row, entry), group, place, folds in zip(labelled, groups, fixed, cut, strict=True):
        name = place.group if place else group
        table.setdefault(row.id, Placed(row.id, entry.digest, name, folds))
    return FoldTable(table, len(spanning))


def _homes(
    labelled: Sequence[tuple[Row, Entry]], groups: Sequence[str], old: dict[str, Placed]
) -> tuple[dict[str, Placed], set[str]]:
    """The placed row that each group joins, and the groups whose placed rows disagree."""
    by_digest = {row.digest: row for row in old.values() if row.digest}
    by_group = {row.group: row for row in old.values()}
    home: dict[str, Placed] = {}
    spanning = set()
    for (row, entry), group in zip(labelled, groups, strict=True):
        anchor = old.get(row.id) or by_digest.get(entry.digest) or by_group.get(group)
        if anchor and home.setdefault(group, anchor).folds != anchor.folds:
            spanning.add(group)
    return home, spanning


def balanced_cut(
    labels: Sequence[str],
    groups: Sequence[str],
    fixed: Sequence[tuple[int, ...] | None],
    *,
    folds: int,
    repeats: int,
    seed: int,
) -> list[tuple[int, ...]]:
    """Deal whole groups to folds so that every fold gets its share of every label.

    Groups go in random order, larger ones first, each to the fold where it adds least to the sum of
    squared label counts, weighted by the labels' rarity. Rows with `fixed` folds stay there and
    count.

    Returns:
        For every row its fold in every repeat.
    """
    classes, label_of = np.unique(np.asarray(labels), return_inverse=True)
    names, group_of = np.unique(np.asarray(groups), return_inverse=True)
    loose = np.array([given is None for given in fixed])
    counts = np.zeros((len(names), len(classes)))
    np.add.at(counts, (group_of[loose], label_of[loose]), 1)
    weight = 1 / np.bincount(label_of, minlength=len(classes))
    cut = np.zeros((len(labels), repeats), np.int64)
    for repeat in range(repeats):
        have = np.zeros((folds, len(classes)))
        for at, place in enumerate(fixed):
            if place is not None:
                cut[at, repeat] = place[repeat]
                have[place[repeat], label_of[at]] += 1
        placed = _deal(counts, have, weight, np.random.default_rng([seed, repeat]))
        cut[loose, repeat] = placed[group_of[loose]]
    return [tuple(int(fold) for fold in row) for row in cut]


def _deal(
    counts: np.ndarray, have: np.ndarray, weight: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The fold of every group; `counts` (groups, classes), `have` (folds, classes) is updated."""
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    tie = rng.permutation(len(have))
    placed = np.full(len(counts), -1)
    for group in order:
        gain = counts[group]
        if not gain.any():
            continue
        cost = ((2 * have + gain) * gain * weight).sum(1)
        best = np.lexsort((tie, have.sum(1), cost.round(9)))[0]
        placed[group] = best
        have[best] += gain
    return placed


def _settings(task: Task) -> str:
    folds = task.folds
    return f"{folds.count} folds, {folds.repeats} repeats, seed {folds.seed}, group {folds.group}"


def _read(task: Task) -> dict[str, Placed]:
    file = folds_file(task)
    try:
        content = file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise InputError(f"{file} is damaged: restore it from a copy, or delete it") from None
    placed: dict[str, Placed] = {}
    reader = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    try:
        for cells in reader:
            row = _parse(task, cells)
            if placed.setdefault(row.id, row) is not row:
                raise ValueError(f"id {row.id!r} stands there twice")
        if not placed:
            raise ValueError("no rows")
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{file} line {reader.line_num} is damaged ({error}): restore it from a copy, "
            "or delete it and run every system again"
        ) from None
    return placed


def _parse(task: Task, cells: Mapping[Any, Any]) -> Placed:
    if None in cells or None in cells.values():
        raise ValueError("cells too many or too few")
    if cells["cut"] != _settings(task):
        raise InputError(
            f"{folds_file(task)} was cut with {cells['cut']}, task.toml says {_settings(task)}: "
            "restore [folds], or delete the file and run every system again"
        )
    folds = tuple(int(cells[f"repeat{repeat}"]) for repeat in range(task.folds.repeats))
    if not all(0 <= fold < task.folds.count for fold in folds):
        raise ValueError("no such fold")
    return Placed(cells["id"], cells["digest"], cells["group"], folds)


def _write(task: Task, table: FoldTable) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    repeats = range(task.folds.repeats)
    writer.writerow(["id", "digest", "group", *(f"repeat{repeat}" for repeat in repeats), "cut"])
    for row in table.placed.values():
        writer.writerow([row.id, row.digest, row.group, *row.folds, _settings(task)])
    write_whole(folds_file(task), out.getvalue().encode())
