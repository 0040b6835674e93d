"""Figures of a submission where labels are known: the only place that sees the test labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import quote_few
from archiveprobe.evaluate.metrics import confusions, from_confusion
from archiveprobe.predict.tables import find_columns, probability_columns
from archiveprobe.task.config import Task, nearest
from archiveprobe.task.rows import Row, read_rows, refuse_repeated
from archiveprobe.task.table import Table, read_table

# Figures further from chance than this many standard errors are no accident.
_ERRORS = 3.0


@dataclass(frozen=True)
class Score:
    """The organisers' figures of `n` rows; the matrix counts rows, truth down, answers across.

    `remarks` name what looks wrong with the file, a sentence each.
    """

    n: int
    figures: Mapping[str, float | None]
    labels: tuple[str, ...]
    matrix: np.ndarray
    remarks: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return the form that `--json` promises."""
        confusion = {"labels": list(self.labels), "matrix": self.matrix.tolist()}
        return {"n": self.n, **self.figures, "confusion": confusion}

    def lines(self) -> list[dict[str, Any]]:
        """Return the figures, a line each, for people."""
        return [
            {"figure": name.replace("_", " "), "value": "-" if value is None else f"{value:.4f}"}
            for name, value in self.figures.items()
        ]

    def matrix_lines(self) -> list[dict[str, Any]]:
        """Return the confusion matrix, a line per true label, for people."""
        answered = [f"answered {label}" for label in self.labels]
        return [
            {"truth": name} | dict(zip(answered, map(int, row), strict=True))
            for name, row in zip(self.labels, self.matrix, strict=True)
        ]


def score(task: Task, file: Path, *, truth: Path | None = None) -> Score:
    """Hold a submission against the labels of the task's table, or of another table `truth`.

    Raises:
        InputError: rows that do not match (the first few are named), labels that are not the
            task's, ids and labels that have changed places, or no known label at all.
    """
    if not file.is_file():
        raise InputError(f"no file {file}: name the submission to score")
    rows = {row.id: row for row in read_rows(task, test_labels=truth is None)}
    known = _labels(task, rows, truth)
    table = read_table(file)
    id_, label = find_columns(task, table, rows)
    refuse_repeated(table, id_)
    answered = {cells[id_]: cells[label] for cells in table.rows}
    _check_ids(task, file, list(answered), rows, known, list(known) if truth else [])
    _check_labels(task, table, label)
    scored = [name for name in answered if name in known]
    y = np.array([task.labels.index(known[name]) for name in scored])
    decision = np.array([task.labels.index(answered[name]) for name in scored])
    confusion = confusions(y, decision, len(task.labels))[0].astype(np.int64)
    remarks = _left_out(len(answered), len(scored))
    known_ids = set(scored)
    in_table = [name for name in rows if name in known_ids]
    remarks += _out_of_order(task, scored, in_table, known, decision)
    remarks += _probabilities_swapped(task, table, label)
    values = {name: float(value) for name, value in from_confusion(confusion).items()}
    return Score(len(scored), values, task.labels, confusion, remarks)


def _labels(task: Task, rows: Mapping[str, Row], truth: Path | None) -> dict[str, str]:
    """Read the known labels by id."""
    if not task.labels:
        raise InputError(f"labels is empty in {task.file}: name them")
    if truth is None:
        return {id_: row.label for id_, row in rows.items() if row.label is not None}
    table = read_table(truth)
    table.require(task.images.id, task.images.label)
    refuse_repeated(table, task.images.id)
    _check_labels(task, table, task.images.label, empty=True)
    cells = [(line[task.images.id], line[task.images.label]) for line in table.rows]
    return {id_: label for id_, label in cells if label.strip()}


def _check_ids(
    task: Task,
    file: Path,
    answered: Sequence[str],
    rows: Mapping[str, Row],
    known: Mapping[str, str],
    truth: Sequence[str],
) -> None:
    where = task.place
    if not answered:
        raise InputError(f"{file} has no rows: nothing to score")
    unknown = [id_ for id_ in answered if id_ not in rows]
    if unknown:
        raise InputError(
            f"{file}: {len(unknown)} of {len(answered)} ids are not in {where}: "
            f"{quote_few(unknown)}{nearest(unknown[0], rows)}: score it with its own task"
        )
    tested = [id_ for id_, row in rows.items() if row.split == "test"]
    missing = [id_ for id_ in tested or truth if id_ not in set(answered)]
    if missing:
        raise InputError(
            f"{file} lacks {len(missing)} of the rows to score: {quote_few(missing)}: submit again"
        )
    trained = [id_ for id_ in answered if tested and rows[id_].split != "test" and rows[id_].label]
    if trained:
        raise InputError(
            f"{file}: {len(trained)} of {len(answered)} ids are labelled rows, which systems are "
            f"trained on: {quote_few(trained)}: take them out"
        )
    if not any(id_ in known for id_ in answered):
        raise InputError(
            f"no label is known for the rows of {file}: write them into {where}, with the split "
            "test, or name a table of labels with --truth"
        )


def _check_labels(task: Task, table: Table, column: str, *, empty: bool = False) -> None:
    for line, cells in zip(table.lines, table.rows, strict=True):
        value = cells[column]
        if value not in task.labels and not (empty and not value.strip()):
            raise InputError(
                f"{table.file} line {line}: unknown label {value!r} in the column {column!r}"
                f"{nearest(value, task.labels)}: use {', '.join(task.labels)}"
            )


def _left_out(answered: int, scored: int) -> list[str]:
    if answered == scored:
        return []
    return [f"{answered - scored} of {answered} rows have no known label and are left out"]


def _recall(y: np.ndarray, decision: np.ndarray, k: int) -> tuple[float, float]:
    """Balanced accuracy and its standard error."""
    matrix = confusions(y, decision, k)[0]
    counts = matrix.sum(1)
    present = counts > 0
    recall = np.diag(matrix)[present] / counts[present]
    error = np.sqrt((recall * (1 - recall) / counts[present]).sum()) / present.sum()
    return float(from_confusion(matrix)["balanced_accuracy"]), float(error)


def _out_of_order(
    task: Task,
    scored: Sequence[str],
    in_table: Sequence[str],
    known: Mapping[str, str],
    decision: np.ndarray,
) -> list[str]:
    """Warn where answers are no better than chance, but would be in another order."""
    k = len(task.labels)
    y = np.array([task.labels.index(known[name]) for name in scored])
    value, error = _recall(y, decision, k)
    chance = 1 / max(1, len(np.unique(y)))
    if value - chance > _ERRORS * error or len(np.unique(y)) < 2:
        return []
    for what, names in (("table", in_table), ("sorted ids", sorted(scored))):
        other = np.array([task.labels.index(known[name]) for name in names])
        better, spread = _recall(other, decision, k)
        if better - chance > _ERRORS * spread and better - value > _ERRORS * (error + spread):
            return [
                f"the answers are out of order: read in the order of the {what} their balanced "
                f"accuracy would be {better:.3f} instead of {value:.3f}: submit again"
            ]
    if k == 2 and chance - value > _ERRORS * error:
        return [
            f"the two labels have changed places: exchanged, balanced accuracy would be "
            f"{1 - value:.3f} instead of {value:.3f}"
        ]
    return [
        f"the answers are no better than chance (balanced accuracy {value:.3f}): rows or labels "
        "may be out of order"
    ]


def _probabilities_swapped(task: Task, table: Table, label: str) -> list[str]:
    """Warn where the p_ columns contradict the label column."""
    columns = probability_columns(task.labels)
    if not set(columns) <= set(table.columns):
        return []
    agrees = []
    for cells in table.rows:
        try:
            p = [float(cells[column]) for column in columns]
        except ValueError:
            continue
        agrees.append(task.labels[int(np.argmax(p))] == cells[label])
    if not agrees or np.mean(agrees) >= 0.5:
        return []
    return [
        f"in {len(agrees) - sum(agrees)} of {len(agrees)} rows the column {label!r} is not the "
        f"likeliest of {', '.join(columns)}: some of these columns have changed places"
    ]
