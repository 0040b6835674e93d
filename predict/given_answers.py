"""Answers from a file, such as `finetune` without folds or a notebook writes, in a task's form."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of, quote_few
from archiveprobe.evaluate.dataset import unreadable_class
from archiveprobe.predict.columns import (
    Content,
    find_columns,
    probability_columns,
    read_answers,
)
from archiveprobe.predict.file_forms import Cells
from archiveprobe.predict.form import Form, wanted
from archiveprobe.predict.submission import label_shares, read_back
from archiveprobe.predict.tables import answer_target, write_answers
from archiveprobe.task.config import Task
from archiveprobe.task.row_ids import resolve_ids
from archiveprobe.task.rows import Row, read_corrected, refuse_repeated
from archiveprobe.task.tables.table import Table, read_table

# What three digits after the point leave.
_ROUNDING = 5e-3


@dataclass(frozen=True)
class Answered:
    """Holds what a file answers: a label for every row's id, and `proba` (n, K) where it has them.

    `notes` say what was made of it, a sentence each.
    """

    ids: list[str]
    labels: list[str]
    proba: np.ndarray | None
    notes: list[str]


def read_answered(task: Task, file: Path, rows: Mapping[str, Row]) -> Answered:
    """Read answers in any form of table: label names, what stands for them, or probabilities.

    Rows that `predict` says it could not read have the `unreadable` answer; probabilities alone
    are decided at 0.5, or for the likeliest of several labels.

    Raises:
        InputError: columns that can be read in two ways, unknown labels or ids, or cells without a
            number.
    """
    table = read_table(file)
    content = find_columns(task, table, rows)
    refuse_repeated(table, content.id)
    found = read_answers(task, content, table)
    proba, notes = _complete(task, content, found.proba, table), list(found.remarks)
    if content.label is None and proba is None:
        raise InputError(
            f"{file} has neither labels nor a probability for each of {', '.join(task.labels)}: "
            "add the columns"
        )
    labelled = [row.label for row in rows.values() if row.label and row.split != "test"]
    known = np.array([task.labels.index(label) for label in labelled], np.intp)
    labels = found.labels
    if content.label is None and proba is not None:
        labels, how = _decide(task, proba)
        notes.append(how)
    unread = labels.count("")
    if unread:
        answer = task.labels[unreadable_class(task, known)]
        labels = [label or answer for label in labels]
        notes.append(f"{unread} rows cannot be read and are answered {answer!r}")
    if proba is not None:
        proba, remarks = _filled(proba, label_shares(known, len(task.labels)))
        notes += [*remarks, *_swapped(task, labels, proba)]
    advice = "correct them, or name the task that they are of"
    ids, remarks = resolve_ids(task, file, found.ids, rows, advice)
    return Answered(ids, labels, proba, [*notes, *remarks])


def _swapped(task: Task, labels: Sequence[str], proba: np.ndarray) -> list[str]:
    """Warn where probabilities (n, K) contradict the labels beside them."""
    index = np.array([task.labels.index(label) for label in labels])
    agrees = proba.argmax(1) == index
    if agrees.mean() >= 0.5:
        return []
    return [
        f"in {(~agrees).sum()} of {len(agrees)} rows the label is not the likeliest of "
        f"{', '.join(probability_columns(task.labels))}: some of these columns have changed places"
    ]


def _complete(task: Task, content: Content, proba: np.ndarray, table: Table) -> np.ndarray | None:
    """Check that probabilities are there for every label; None where the file has no such columns.

    Raises:
        InputError: a row without them that has no label either, or with some of them only.
    """
    covered = set(content.proba.values())
    if not covered or (len(task.labels) > 2 and covered != set(task.labels)):
        return None
    count = np.isfinite(proba).sum(1)
    lacking = (count > 0) & (count < len(task.labels))
    if content.label is None:
        lacking |= count == 0
    if lacking.any():
        where = f"{table.file} {table.place(int(np.flatnonzero(lacking)[0]))}"
        raise InputError(f"{where}: a probability is missing: write a number from 0 to 1")
    return proba if count.any() else None


def _filled(proba: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Put the labels' shares (K,) into rows without probabilities (n, K), and say what is odd."""
    empty, notes = np.isnan(proba).any(1), []
    if empty.any():
        notes.append(
            f"{number_of(empty.sum(), 'row')} without a probability: the labels' shares of the "
            "labelled rows are taken"
        )
    odd = ~empty & (np.abs(proba.sum(1) - 1) > _ROUNDING)
    if odd.any():
        notes.append(f"the probabilities of {number_of(odd.sum(), 'row')} do not add up to 1")
    return np.where(empty[:, None], shares, proba), notes


def _decide(task: Task, proba: np.ndarray) -> tuple[list[str], str]:
    """Take the positive label above 0.5, of several the likeliest, and say so."""
    if len(task.labels) == 2:
        positive = task.labels.index(task.positive or task.labels[-1])
        at = np.where(proba[:, positive] > 0.5, positive, 1 - positive)
        how = f"{task.labels[positive]!r} is taken above 0.5"
    else:
        at, how = proba.argmax(1), "the likeliest label is taken"
    return [task.labels[index] for index in at], f"a probability decides nothing: {how}"


@dataclass(frozen=True)
class GivenAnswers:
    """A written submission of given answers: how many rows, and how many of every label."""

    file: Path
    answers: Path
    rows: int
    labels: Mapping[str, int]
    columns: Mapping[str, str]
    notes: list[str]
    copy: Path | None = None

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        copy = None if self.copy is None else str(self.copy)
        named = {"file": str(self.file), "copy": copy, "answers": str(self.answers)}
        counts = {"labels": dict(self.labels), "columns": dict(self.columns)}
        return {**named, "rows": self.rows, **counts}

    def lines(self) -> list[dict[str, Any]]:
        """Return how many rows have each label, a line each, for people."""
        return [{"label": label, "rows": count} for label, count in self.labels.items()]

    def summary(self) -> str:
        """Return what was written, in a sentence."""
        return f"{self.rows} rows of {self.answers} in {self.file}, read back and in order"


def submit_answers(
    task: Task, answers: Path, file: Path, *, spreadsheet_safe: bool = False
) -> GivenAnswers:
    """Write the answers of a table (ids with labels, probabilities or both) as a submission.

    `spreadsheet_safe` writes a second file, whose cells no spreadsheet takes for a formula.

    Raises:
        InputError: rows to predict without an answer, unknown or repeated ids, unknown labels, no
            probabilities where the form asks for them, a template that does not fit, or a file
            that cannot be written.
    """
    if not answers.is_file():
        raise InputError(f"no file {answers}: name the table of answers")
    target = answer_target(task, file, spreadsheet_safe, read=[answers])
    read, corrections = read_corrected(task)
    rows = {row.id: row for row in read}
    form, ids = wanted(task, rows)
    given = read_answered(task, answers, rows)
    place = {id_: at for at, id_ in enumerate(given.ids)}
    missing = [name for name in ids if name not in place]
    if missing:
        raise InputError(
            f"{answers} lacks {len(missing)} of the rows to predict: {quote_few(missing)}: add them"
        )
    lines = _lines(task, form, answers, given, [place[id_] for id_ in ids])
    target = target.in_form(form.template, form.separator, form.content.proba)

    def check(cells: Cells) -> None:
        read_back(task, form, ids, cells)

    write_answers(target, form.columns, lines, check=check)
    counts = Counter(given.labels[place[id_]] for id_ in ids)
    return GivenAnswers(
        target.named,
        answers,
        len(ids),
        {name: counts[name] for name in task.labels},
        form.content.record(),
        [*corrections.remarks(), *given.notes, *form.notes(), *target.notes()],
        target.named_copy,
    )


def _lines(task: Task, form: Form, answers: Path, given: Answered, order: Sequence[int]) -> Cells:
    if form.content.proba and given.proba is None:
        raise InputError(
            f"{answers} does not have every label's probability, which "
            f"{quote_few(form.content.proba)} of the submission needs: add the columns "
            f"{', '.join(probability_columns(task.labels))}"
        )
    proba = (
        np.full((len(given.ids), len(task.labels)), np.nan) if given.proba is None else given.proba
    )
    return [
        form.fill(
            given.ids[at],
            given.labels[at],
            dict(zip(task.labels, map(_number, proba[at]), strict=True)),
        )
        for at in order
    ]


def _number(value: float) -> str:
    """Write a number as it was given, with all its digits and without an exponent."""
    return np.format_float_positional(value, trim="0")
