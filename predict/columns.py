"""What the columns of a table of answers hold: ids, labels or what stands for them, probabilities.

One reading serves templates, submissions and answers from elsewhere. Nothing is guessed about which
of two integers is which label: [submission.labels] says it, or the table is refused.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of, quote_few
from archiveprobe.task.config import Task
from archiveprobe.task.decoding import FLAGS
from archiveprobe.task.labels import Words, read_words, refuse
from archiveprobe.task.row_ids import find_id_column, id_names
from archiveprobe.task.rows import Row
from archiveprobe.task.tables.table import Table

# What organisers call the column of the answers, where it is not called as in the table.
_LABELS = ("label", "prediction", "predicted", "answer", "class", "category", "target")
# The statuses of images that were read.
USABLE = FLAGS | {"ok"}
STATUS = "status"


@dataclass(frozen=True)
class Content:
    """Says what a table's columns hold.

    `words` gives the cell that stands for a label in the column `label`; `proba` maps columns to
    the labels whose probabilities they hold.
    """

    id: str
    label: str | None
    words: Mapping[str, str]
    proba: Mapping[str, str]

    def record(self) -> dict[str, str]:
        """Return what each column holds, for `--json`."""
        label = {} if self.label is None else {self.label: self._of_label()}
        of_proba = {column: f"the probability of {label!r}" for column, label in self.proba.items()}
        return label | of_proba

    def sentences(self) -> list[str]:
        """Say what was decided about columns whose names alone do not say it."""
        plain = {*probability_columns(self.words), self.label if self._has_names() else None}
        return [
            f"the column {column!r} gets {what}"
            for column, what in self.record().items()
            if column not in plain
        ]

    def _has_names(self) -> bool:
        return all(label == word for label, word in self.words.items())

    def _of_label(self) -> str:
        if self._has_names():
            return "labels"
        return ", ".join(f"{word!r} for {label!r}" for label, word in self.words.items())


@dataclass(frozen=True)
class TableAnswers:
    """Holds what a table answers, in its order.

    `labels` are the cells of the label column as labels, "" where there is none; `proba` (n, K)
    has NaN where the table gives no probability. `remarks` say what was guessed.
    """

    ids: list[str]
    labels: list[str]
    proba: np.ndarray
    remarks: list[str]


def probability_columns(labels: Iterable[str]) -> list[str]:
    """Return the columns of the labels' probabilities."""
    return [f"p_{label}" for label in labels]


def probability(value: float) -> str:
    """Write a probability as text, exact to 1e-6 and empty where there is none."""
    return "" if math.isnan(value) else f"{value:.7f}"


def label_of(task: Task, column: str) -> str | None:
    """Find the label that a column of probabilities is called after: `p_<label>`, or the label."""
    if column in probability_columns(task.labels):
        return column.removeprefix("p_")
    if column in task.labels:
        return column
    alike = [label for label in task.labels if label.casefold() == column.strip().casefold()]
    return alike[0] if len(alike) == 1 else None


def words_of(task: Task) -> dict[str, str]:
    """Return the cell that stands for each label: [submission.labels], else the label itself."""
    return {label: str(task.submission.labels.get(label, label)) for label in task.labels}


def find_columns(task: Task, table: Table, rows: Mapping[str, Row]) -> Content:
    """Find what the columns hold: by name, else by what is in them; `rows` are the task's by id.

    Raises:
        InputError: no column for ids or answers, one that can be read in two ways; or ids and
            labels have changed places.
    """
    id_ = id_column(task, table, rows)
    rest = [column for column in table.columns if column != id_]
    proba = {column: label for column in rest if (label := _named_after(task, table, column))}
    label = _label_column(task, table, [c for c in rest if c not in proba], needed=not proba)
    if label is None and not proba:
        raise InputError(
            f"no column for the label in {table.file}, which has {', '.join(table.columns)}: call "
            f"it {task.images.label!r}"
        )
    named = _first(id_names(task), table.columns)
    if named not in (None, id_) and _all_labels(task, table, str(named)):
        raise InputError(
            f"{table.file}: the column {named!r} holds labels and {id_!r} holds ids: they have "
            "changed places, put them right"
        )
    words = {name: name for name in task.labels}
    if label is not None and _holds_numbers(task, table, label):
        return Content(id_, None, words, {**proba, label: _whose(task, table, label, proba)})
    if label is not None:
        words = words_in(task, table, label)
    return Content(id_, label, words, proba)


def id_column(task: Task, table: Table, rows: Mapping[str, Row]) -> str:
    """Find the column of ids by what its cells are, else by its name.

    Raises:
        InputError: there is none, or two name different rows.
    """
    column = find_id_column(task, table, rows)
    if column is None:
        example = next((id_ for id_, row in rows.items() if row.label is None), next(iter(rows)))
        raise InputError(
            f"no column of {table.file} holds ids of {task.place}, such as {example!r}: it has "
            f"{', '.join(table.columns)}; write the ids as they are there, or without their "
            "folder and extension"
        )
    return column


def _named_after(task: Task, table: Table, column: str) -> str | None:
    """Find the label whose probability a column holds by its name, unless its cells are labels."""
    label = label_of(task, column)
    if label is None or column in probability_columns(task.labels):
        return label
    cells = _filled(table, column)
    several = sum(label_of(task, other) is not None for other in table.columns) > 1
    if cells and not several and _are_words(words_of(task), cells):
        return None
    return label if all(map(_is_number, cells)) else None


def _label_column(task: Task, table: Table, rest: Sequence[str], *, needed: bool) -> str | None:
    named = _first((task.images.label, *task.submission.columns[1:2], *_LABELS), rest)
    if named is not None or (needed and len(rest) == 1):
        return named or rest[0]
    filled = [column for column in rest if _all_labels(task, table, column)]
    return filled[0] if len(filled) == 1 else None


def _all_labels(task: Task, table: Table, column: str) -> bool:
    return bool(table.rows) and all(cells[column] in task.labels for cells in table.rows)


def _first(names: Sequence[str], among: Sequence[str]) -> str | None:
    return next((name for name in names if name in among), None)


def _filled(table: Table, column: str) -> set[str]:
    return {cells[column] for cells in table.rows if cells[column].strip()}


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _is_integer(cell: str) -> bool:
    return cell.strip().lstrip("+-").isdecimal()


def _are_words(words: Mapping[str, str], cells: Iterable[str]) -> bool:
    """Return whether every cell stands for a label; 1.0, as pandas writes integers, is 1."""
    return all(map(Words(words.values()).meaning, cells))


def _holds_numbers(task: Task, table: Table, column: str) -> bool:
    """Return whether a column holds decimal numbers, such as 0.5, and not integers or labels."""
    cells = _filled(table, column)
    if not cells or not all(map(_is_number, cells)) or all(map(_is_integer, cells)):
        return False
    return not _are_words(words_of(task), cells)


def _whose(task: Task, table: Table, column: str, proba: Mapping[str, str]) -> str:
    """Find the label whose probability a column has that is called after none."""
    if len(task.labels) == 2 and not proba:
        return task.positive or task.labels[-1]
    raise InputError(
        f"{table.file}: the column {column!r} holds numbers, but of which label? Call columns of "
        f"probabilities after the labels: {', '.join(task.labels)}"
    )


def words_in(task: Task, table: Table, column: str) -> dict[str, str]:
    """Find what stands for the labels in a column, by its cells.

    Raises:
        InputError: integers, and nobody has said which of them is which label.
    """
    cells, words = _filled(table, column), words_of(task)
    names = {label: label for label in task.labels}
    if cells and _are_words(names, cells):
        return names
    is_of_integers = bool(cells) and all(map(_is_integer, cells))
    if is_of_integers and not all(map(_is_integer, words.values())):
        raise InputError(
            f"{table.file}: the column {column!r} holds integers ({quote_few(sorted(cells))}), "
            f"and nothing says which label is which: say it under [submission] in {task.file}, "
            f"for example {example_of_labels(task)}"
        )
    return words


def example_of_labels(task: Task) -> str:
    """Write the key of [submission] that a user can copy and correct."""
    positive = task.positive or task.labels[-1]
    order = sorted(task.labels, key=lambda label: label == positive)
    # JSON's strings are TOML's.
    pairs = (f"{json.dumps(label, ensure_ascii=False)} = {at}" for at, label in enumerate(order))
    return f"labels = {{ {', '.join(pairs)} }}"


def read_answers(task: Task, content: Content, table: Table) -> TableAnswers:
    """Read the answers of a table by what its columns hold.

    Raises:
        InputError: cells are no labels, or no probabilities; lines and nearest labels are named.
    """
    labels, remarks = [""] * len(table.rows), list(table.remarks)
    if content.label is not None:
        labels, guesses = read_label_column(table, content.label, content.words)
        remarks += guesses
    proba = np.full((len(table.rows), len(task.labels)), np.nan)
    for at, cells in enumerate(table.rows):
        for column, label in content.proba.items():
            if cells[column].strip():
                where = f"{table.file} {table.place(at)}"
                proba[at, task.labels.index(label)] = _probability(cells[column], column, where)
    if len(task.labels) == 2:
        # Of two labels one probability says both.
        proba = np.where(np.isnan(proba), 1 - proba[:, ::-1], proba)
    return TableAnswers([cells[content.id] for cells in table.rows], labels, proba, remarks)


def read_label_column(
    table: Table, column: str, words: Mapping[str, str], *, empty: bool = False
) -> tuple[list[str], list[str]]:
    """Read the labels that cells stand for, "" where there is none, and what was guessed.

    Cells may be empty where `predict` says that an image could not be read, else only if `empty`.

    Raises:
        InputError: unknown or missing labels, all of them in one message.
    """
    of_word = {word: label for label, word in words.items()}
    reading = read_words((cells[column] for cells in table.rows), Words(of_word).meaning)
    use, faults = f"use {', '.join(of_word)}", []
    if reading.unknown:
        listed = reading.listed(of_word, table.place)
        count = reading.unknown.total()
        where = f"{number_of(count, 'row')} of the column {column!r}"
        faults.append(f"unknown labels in {where}: {listed}: {use}")
    blank = [
        at
        for at, cells in enumerate(table.rows)
        if not empty and not cells[column].strip() and cells.get(STATUS, "ok") in USABLE
    ]
    if blank:
        first = table.place(blank[0])
        faults.append(
            f"no label in {number_of(len(blank), 'row')} of the column {column!r} "
            f"(first {first}): {use}"
        )
    refuse(table.file, faults)
    begin = f"{table.file.name}: labels that differ by case, blanks or a .0 only are recognized"
    return [of_word.get(word or "", "") for word in reading.meanings], reading.remarks(begin)


def _probability(cell: str, column: str, where: str) -> float:
    value = float(cell) if _is_number(cell) else math.nan
    if not 0 <= value <= 1:
        raise InputError(
            f"{where}: {cell!r} in the column {column!r} is no probability: write a number from "
            "0 to 1"
        )
    return value
