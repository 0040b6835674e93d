"""Figures of a submission where labels are known: the only place that sees the test labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import quote_few
from archiveprobe.evaluate.metrics import confusions, from_confusion
from archiveprobe.predict.columns import (
    id_column,
    read_label_column,
    words_in,
)
from archiveprobe.predict.given_answers import read_answered
from archiveprobe.task.config import Task
from archiveprobe.task.row_ids import find_rows
from archiveprobe.task.rows import Row, read_corrected, refuse_repeated
from archiveprobe.task.tables.table import read_table

# Figures further from chance than this many standard errors are no accident.
_ERRORS = 3.0


@dataclass(frozen=True)
class Score:
    """The organisers' figures of `n` rows; the matrix counts rows, truth down, answers across.

    `probabilities` are figures of the probabilities themselves, None where the file has none.
    `remarks` name what was made of the file and what looks wrong with it, a sentence each.
    """

    n: int
    figures: Mapping[str, float | None]
    labels: tuple[str, ...]
    matrix: np.ndarray
    probabilities: Mapping[str, float | None] | None = None
    remarks: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return the form that `--json` promises."""
        confusion = {"labels": list(self.labels), "matrix": self.matrix.tolist()}
        probabilities = None if self.probabilities is None else dict(self.probabilities)
        figures = {"n": self.n, **self.figures, "confusion": confusion}
        return {**figures, "probabilities": probabilities}

    def lines(self) -> list[dict[str, Any]]:
        """Return the figures, a line each, for people."""
        return [
            {"figure": name.replace("_", " "), "value": "-" if value is None else f"{value:.4f}"}
            for name, value in {**self.figures, **(self.probabilities or {})}.items()
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
    read, corrections = read_corrected(task, test_labels=truth is None)
    rows = {row.id: row for row in read}
    known, remarks = _labels(task, rows, truth)
    remarks = [*corrections.remarks(), *remarks]
    given = read_answered(task, file, rows)
    _check_ids(task, file, given.ids, rows, known, list(known) if truth else [])
    at = [at for at, name in enumerate(given.ids) if name in known]
    scored = [given.ids[place] for place in at]
    y = np.array([task.labels.index(known[name]) for name in scored])
    decision = np.array([task.labels.index(given.labels[place]) for place in at])
    confusion = confusions(y, decision, len(task.labels))[0].astype(np.int64)
    remarks += given.notes
    if lost := len(given.ids) - len(scored):
        remarks.append(f"{lost} of {len(given.ids)} rows have no known label and are left out")
    place = {name: at for at, name in enumerate(scored)}
    orders = {
        "table": y[[place[name] for name in rows if name in place]],
        "sorted ids": y[[place[name] for name in sorted(scored)]],
    }
    remarks += _out_of_order(y, orders, decision, len(task.labels))
    values = {name: float(value) for name, value in from_confusion(confusion).items()}
    of_proba = None if given.proba is None else _of_probabilities(task, y, given.proba[at])
    return Score(len(scored), values, task.labels, confusion, of_proba, remarks)


def _of_probabilities(task: Task, y: np.ndarray, proba: np.ndarray) -> dict[str, float | None]:
    """Compute figures of probabilities (n, K) that need no threshold; None where undefined.

    AUC and average precision are those of the positive label, or with several labels the mean of
    each against the rest. The Brier score is the mean square error of the positive label's
    probability, with several labels the mean of the sum over labels (Brier's own).
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    k = len(task.labels)
    truth = np.eye(k)[y]
    positive = task.labels.index(task.positive or task.labels[-1])
    which = [positive] if k == 2 else list(range(k))
    # Rankings of a label that no row, or every row, has are undefined.
    ranked = [label for label in which if 0 < truth[:, label].sum() < len(y)]
    is_defined = len(ranked) == len(which)

    def mean_of(figure: Callable[[np.ndarray, np.ndarray], float]) -> float | None:
        if not is_defined:
            return None
        return float(np.mean([figure(truth[:, label], proba[:, label]) for label in which]))

    # As Kaggle and scikit-learn do: no answer costs more than one of the smallest float.
    chosen = np.clip(proba[np.arange(len(y)), y], np.finfo(float).eps, 1)
    return {
        "auc": mean_of(roc_auc_score),
        "average_precision": mean_of(average_precision_score),
        "log_loss": float(-np.log(chosen).mean()),
        "brier": float(((proba - truth) ** 2)[:, which].sum(1).mean()),
    }


def _labels(
    task: Task, rows: Mapping[str, Row], truth: Path | None
) -> tuple[dict[str, str], list[str]]:
    """Read the known labels by id, and say what was guessed."""
    if not task.labels:
        raise InputError(f"labels is empty in {task.file}: name them")
    if truth is None:
        return {id_: row.label for id_, row in rows.items() if row.label is not None}, []
    table = read_table(truth)
    table.require(task.images.label)
    column = id_column(task, table, rows)
    refuse_repeated(table, column)
    ids = [line[column] for line in table.rows]
    found = find_rows(task.root, ids, rows)
    found.refuse_doubts(task, truth)
    words = words_in(task, table, task.images.label)
    labels, remarks = read_label_column(table, task.images.label, words, empty=True)
    of_row = (found.rows.get(id_, id_) for id_ in ids)
    known = {id_: label for id_, label in zip(of_row, labels, strict=True) if label}
    return known, [*table.remarks, *found.remarks(truth, len(ids)), *remarks]


def _check_ids(
    task: Task,
    file: Path,
    answered: Sequence[str],
    rows: Mapping[str, Row],
    known: Mapping[str, str],
    truth: Sequence[str],
) -> None:
    if not answered:
        raise InputError(f"{file} has no rows: nothing to score")
    tested = [id_ for id_, row in rows.items() if row.split == "test"]
    there = set(answered)
    missing = [id_ for id_ in tested or truth if id_ not in there]
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
            f"no label is known for the rows of {file}: write them into {task.place}, with the "
            "split test, or name a table of labels with --truth"
        )


def _recall(y: np.ndarray, decision: np.ndarray, k: int) -> tuple[float, float]:
    """Compute balanced accuracy and its standard error."""
    matrix = confusions(y, decision, k)[0]
    counts = matrix.sum(1)
    present = counts > 0
    recall = np.diag(matrix)[present] / counts[present]
    error = np.sqrt((recall * (1 - recall) / counts[present]).sum()) / present.sum()
    return float(from_confusion(matrix)["balanced_accuracy"]), float(error)


def _out_of_order(
    y: np.ndarray, orders: Mapping[str, np.ndarray], decision: np.ndarray, k: int
) -> list[str]:
    """Warn where answers (n,) are no better than chance, but would be in another order.

    `orders` are the true classes (n,) of the same rows in other orders, by what these follow.
    """
    value, error = _recall(y, decision, k)
    classes = len(np.unique(y))
    chance = 1 / classes
    if value - chance > _ERRORS * error or classes < 2:
        return []
    for what, other in orders.items():
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
