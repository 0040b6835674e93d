"""The form of a submission: its columns, what they hold, its ids and their order."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import quote_few
from archiveprobe.predict.columns import (
    Content,
    example_of_labels,
    find_columns,
    label_of,
    probability_columns,
    words_of,
)
from archiveprobe.task.config import Task, nearest
from archiveprobe.task.labels import Words
from archiveprobe.task.row_ids import resolve_ids
from archiveprobe.task.rows import Row, refuse_repeated
from archiveprobe.task.tables.table import Table, read_table


@dataclass(frozen=True)
class Form:
    """The columns of a file of answers, and what they hold.

    `given` are the template's rows by the id of the task's row, None where there is no template;
    `remarks` say what was guessed in reading it.
    """

    columns: tuple[str, ...]
    content: Content
    separator: str | None = None
    given: Mapping[str, Mapping[str, str]] | None = None
    template: Path | None = None
    remarks: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """Say what was decided about the columns."""
        content = self.content
        kept = {*self.columns} - {content.id, content.label, *content.proba}
        listed = quote_few(name for name in self.columns if name in kept)
        of_kept = [f"kept as in the template: {listed}"] if kept else []
        return [*self.remarks, *content.sentences(), *of_kept]

    def own_id(self, id_: str) -> str:
        """Return what the file has for the id of a row."""
        return self.given[id_][self.content.id] if self.given else id_

    def fill(self, id_: str, label: str, proba: Mapping[str, str]) -> list[str]:
        """Fill a row's line: id, label, probabilities by label, and what else the template has."""
        content = self.content
        known = {column: proba[name] for column, name in content.proba.items()}
        if content.label is not None:
            known[content.label] = content.words[label]
        known[content.id] = self.own_id(id_)
        kept = self.given[id_] if self.given else {}
        return [known.get(column, kept.get(column, "")) for column in self.columns]


def form_of(task: Task, rows: Mapping[str, Row]) -> Form:
    """Find the form of a task's submission: its template's, or its submission.columns.

    Raises:
        InputError: a template whose columns say neither id nor answer, or can be read in two ways,
            or whose ids are repeated or of no row.
    """
    if task.submission.template is not None:
        table = read_table(task.folder / task.submission.template)
        content = find_columns(task, table, rows)
        refuse_repeated(table, content.id)
        _check_words(task, table, content)
        asked = [cells[content.id] for cells in table.rows]
        advice = "correct them, or add the rows"
        ids, remarks = resolve_ids(task, table.file, asked, rows, advice)
        given = dict(zip(ids, table.rows, strict=True))
        remarks = [*table.remarks, *remarks]
        return Form(table.columns, content, table.separator, given, table.file, tuple(remarks))
    columns = task.submission.columns
    if len(columns) < 2:
        raise InputError(f"submission.columns in {task.file}: name two, for ids and for labels")
    id_ = task.images.id if task.images.id in columns else columns[0]
    rest = [column for column in columns if column != id_]
    proba = {column: label for column in rest if (label := label_of(task, column))}
    others = [column for column in rest if column not in proba]
    label = task.images.label if task.images.label in others else next(iter(others), None)
    for column in others:
        if column != label or (proba and column != task.images.label):
            hint = nearest(column, probability_columns(task.labels))
            raise InputError(
                f"nothing to put into the column {column!r} of submission.columns in {task.file}"
                f"{hint}: name a label or p_<label>, or remove it"
            )
    return Form(columns, Content(id_, label, words_of(task), proba))


def _check_words(task: Task, table: Table, content: Content) -> None:
    """Refuse a template whose column for labels shows words that stand for none of them."""
    if content.label is None or all(word.isdecimal() for word in content.words.values()):
        return
    known = Words(content.words.values())
    for at, cells in enumerate(table.rows):
        cell = cells[content.label]
        if cell.strip() and known.meaning(cell) is None:
            raise InputError(
                f"{table.file} {table.place(at)}: {cell!r} in the column {content.label!r} "
                f"stands for no label{nearest(cell, content.words.values())}: empty it, or say "
                f"under [submission] in {task.file} what is to stand there, for example "
                f"{example_of_labels(task)}"
            )


def wanted(task: Task, table: Mapping[str, Row]) -> tuple[Form, list[str]]:
    """Find the form of a submission and its ids in order; `table` has the task's rows.

    Raises:
        InputError: nothing to predict, or a template with unknown, missing or labelled ids.
    """
    form = form_of(task, table)
    if form.given is not None:
        _check_template(task, form.given, table)
        return form, list(form.given)
    ids = [id_ for id_, row in table.items() if row.label is None]
    if not ids:
        raise InputError(
            f"nothing to predict in {task.place}: every row has a label; leave some "
            "labels empty, or give rows the split test"
        )
    return form, ids


def _check_template(
    task: Task, given: Mapping[str, Mapping[str, str]], table: Mapping[str, Row]
) -> None:
    file = task.folder / (task.submission.template or "")
    if not given:
        raise InputError(f"{file} has no rows: a template lists the ids to predict")
    labelled = [id_ for id_ in given if table[id_].label is not None]
    if labelled:
        raise InputError(
            f"{file}: {len(labelled)} of {len(given)} ids are labelled rows, which systems are "
            f"trained on: {quote_few(labelled)}: take them out"
        )
    missing = [id_ for id_ in expected_ids(table) if id_ not in given]
    if missing:
        raise InputError(
            f"{file} lacks {len(missing)} of the rows to predict: {quote_few(missing)}: add them, "
            f"or take them out of {task.place}"
        )


def expected_ids(table: Mapping[str, Row]) -> list[str]:
    """List the ids that a submission must answer: split test, else all without a label."""
    tested = [id_ for id_, row in table.items() if row.split == "test"]
    return tested or [id_ for id_, row in table.items() if row.label is None]
