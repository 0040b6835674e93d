"""Answers from a file, such as `finetune` without folds or a notebook writes, in a task's form."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import quote_few
from archiveprobe.predict.submission import read_back
from archiveprobe.predict.tables import (
    Cells,
    Form,
    find_columns,
    output_files,
    probability_columns,
    wanted,
    write_answers,
    write_spreadsheet_copy,
)
from archiveprobe.task.config import Task, nearest
from archiveprobe.task.rows import read_rows, refuse_repeated
from archiveprobe.task.table import read_table


@dataclass(frozen=True)
class GivenAnswers:
    """A written submission of given answers: how many rows, and how many of every label."""

    file: Path
    answers: Path
    rows: int
    labels: Mapping[str, int]
    copy: Path | None = None

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        copy = None if self.copy is None else str(self.copy)
        named = {"file": str(self.file), "copy": copy, "answers": str(self.answers)}
        return {**named, "rows": self.rows, "labels": dict(self.labels)}

    def lines(self) -> list[dict[str, Any]]:
        """Return how many rows have each label, a line each, for people."""
        return [{"label": label, "rows": count} for label, count in self.labels.items()]

    def summary(self) -> str:
        """Return what was written, in a sentence."""
        return f"{self.rows} rows of {self.answers} in {self.file}, read back and in order"


def submit_answers(
    task: Task, answers: Path, file: Path, *, spreadsheet_safe: bool = False
) -> GivenAnswers:
    """Write the labels of a table (id, label and, if it has them, p_<label>) as a submission.

    `spreadsheet_safe` writes a second file, whose cells no spreadsheet takes for a formula.

    Raises:
        InputError: rows to predict without an answer, unknown or repeated ids, unknown labels, a
            template that does not fit, or a file that cannot be written.
    """
    if not answers.is_file():
        raise InputError(f"no file {answers}: name the table of answers")
    target, copy = output_files(task, file, spreadsheet_safe, read=[answers])
    rows = {row.id: row for row in read_rows(task)}
    form, ids = wanted(task, rows)
    table = read_table(answers)
    id_, label = find_columns(task, table, rows)
    refuse_repeated(table, id_)
    cells = {line[id_]: line for line in table.rows}
    unknown = [name for name in cells if name not in rows]
    if unknown:
        raise InputError(
            f"{answers}: {len(unknown)} of {len(cells)} ids are not in {task.place}: "
            f"{quote_few(unknown)}{nearest(unknown[0], rows)}: correct them"
        )
    missing = [name for name in ids if name not in cells]
    if missing:
        raise InputError(
            f"{answers} lacks {len(missing)} of the rows to predict: {quote_few(missing)}: add them"
        )
    for name in ids:
        _check_label(task, answers, name, cells[name][label])
    columns = [name for name in probability_columns(task.labels) if name in table.columns]
    lines = _lines(form, ids, label, columns, cells)

    def check(header: Sequence[str], found: Cells) -> None:
        read_back(task, form, ids, header, found)

    write_answers(target, form.columns, lines, check=check, separator=form.separator)
    write_spreadsheet_copy(copy, form.columns, lines, separator=form.separator)
    counts = Counter(cells[name][label] for name in ids)
    return GivenAnswers(
        target, answers, len(ids), {name: counts[name] for name in task.labels}, copy
    )


def _check_label(task: Task, answers: Path, id_: str, label: str) -> None:
    if label not in task.labels:
        hint = nearest(label, task.labels)
        raise InputError(
            f"{answers}: {label!r}, the answer for {id_!r}, is no label{hint}: use one of "
            f"{', '.join(task.labels)}"
        )


def _lines(
    form: Form,
    ids: Sequence[str],
    label: str,
    probabilities: Sequence[str],
    cells: Mapping[str, Mapping[str, str]],
) -> Cells:
    return [
        form.fill(id_, cells[id_][label], {name: cells[id_][name] for name in probabilities})
        for id_ in ids
    ]
