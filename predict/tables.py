"""Files of answers: which columns they have, and writing them whole, read back and checked."""

import contextlib
import csv
import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.files import write_whole
from archiveprobe.base.wording import quote_few
from archiveprobe.task.config import Task, nearest
from archiveprobe.task.output import OutputFile, output_file
from archiveprobe.task.rows import Row, refuse_repeated
from archiveprobe.task.table import Table, read_table
from archiveprobe.task.table_csv import long_cells

_SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t"}
# What spreadsheets take for the start of a formula (OWASP, "CSV injection").
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
# What organisers call the column of the answers, where it is not called as in the table.
_LABELS = ("label", "prediction", "predicted", "answer", "class", "category", "target")

Cells = list[list[str]]


@dataclass(frozen=True, kw_only=True)
class WrittenAnswers:
    """Holds what every written file of a system's answers is reported with.

    `unreadable` counts rows without an answer of their own, `copy` is the one for spreadsheets.
    """

    file: Path
    system: str
    rows: int
    unreadable: int
    copy: Path | None
    seconds: float
    snapshot: str

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return {
            "file": str(self.file),
            "copy": None if self.copy is None else str(self.copy),
            "system": self.system,
            "snapshot": self.snapshot,
            "rows": self.rows,
            "unreadable": self.unreadable,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Form:
    """The columns of a file of answers, and which of them hold id and label.

    `given` are the template's rows by id, None where there is no template.
    """

    columns: tuple[str, ...]
    id: str
    label: str
    separator: str = "comma"
    given: Mapping[str, Mapping[str, str]] | None = None

    def fill(self, id_: str, label: str, proba: Mapping[str, str]) -> list[str]:
        """Fill one line: id, label, `p_<label>` columns, and what else the template has."""
        known = {**proba, self.id: id_, self.label: label}
        kept = self.given[id_] if self.given else {}
        return [known.get(column, kept.get(column, "")) for column in self.columns]


def probability_columns(labels: Sequence[str]) -> list[str]:
    """Return the columns of the labels' probabilities."""
    return [f"p_{label}" for label in labels]


def form_of(task: Task, known: Collection[str]) -> Form:
    """Find the form of a task's submission: its template's, or its submission.columns.

    Raises:
        InputError: a template whose columns say neither id nor label, or repeats an id.
    """
    if task.submission.template is not None:
        table = read_table(task.folder / task.submission.template)
        id_, label = find_columns(task, table, known)
        refuse_repeated(table, id_)
        given = {cells[id_]: cells for cells in table.rows}
        return Form(table.columns, id_, label, table.separator, given)
    columns = task.submission.columns
    if len(columns) < 2:
        raise InputError(f"submission.columns in {task.file}: name two, for ids and for labels")
    id_ = task.images.id if task.images.id in columns else columns[0]
    rest = [column for column in columns if column != id_]
    label = task.images.label if task.images.label in rest else rest[0]
    for column in rest:
        if column != label and column not in probability_columns(task.labels):
            hint = nearest(column, probability_columns(task.labels))
            raise InputError(
                f"nothing to put into the column {column!r} of submission.columns in {task.file}"
                f"{hint}: name p_<label>, or remove it"
            )
    return Form(columns, id_, label)


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
    unknown = [id_ for id_ in given if id_ not in table]
    if unknown:
        raise InputError(
            f"{file}: {len(unknown)} of {len(given)} ids are not in {task.place}: "
            f"{quote_few(unknown)}{nearest(unknown[0], table)}: correct them, or add the rows"
        )
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


def find_columns(task: Task, table: Table, known: Collection[str]) -> tuple[str, str]:
    """Find the columns of ids and of labels: by name, else by what is in them.

    Raises:
        InputError: there is none; or the two have changed places.
    """
    id_ = _id_column(task, table, known)
    rest = [column for column in table.columns if column != id_]
    label = _label_column(task, table, rest)
    if label is None:
        raise InputError(
            f"no column for the label in {table.file}, which has {', '.join(table.columns)}: call "
            f"it {task.images.label!r}"
        )
    named = _first(_id_names(task), table.columns)
    if named not in (None, id_) and _all_labels(task, table, str(named)):
        raise InputError(
            f"{table.file}: the column {named!r} holds labels and {id_!r} holds ids: they have "
            "changed places, put them right"
        )
    return id_, label


def _id_names(task: Task) -> tuple[str, ...]:
    return (task.images.id, task.submission.columns[0])


def _id_column(task: Task, table: Table, known: Collection[str]) -> str:
    """Find the column with most known ids; where none has one, by its name."""
    names = [name for name in dict.fromkeys(_id_names(task)) if name in table.columns]
    order = [*names, *(column for column in table.columns if column not in names)]
    hits = {column: sum(cells[column] in known for cells in table.rows) for column in order}
    best = max(order, key=lambda column: (bool(hits[column]) and column in names, hits[column]))
    if hits[best] or names:
        return best
    raise InputError(
        f"no column of {table.file} holds ids of {task.place}: it has "
        f"{', '.join(table.columns)}; call the one with the ids {task.images.id!r}"
    )


def _label_column(task: Task, table: Table, rest: Sequence[str]) -> str | None:
    named = _first((task.images.label, *task.submission.columns[1:2], *_LABELS), rest)
    plain = [column for column in rest if column not in probability_columns(task.labels)]
    if named is not None or len(plain) == 1:
        return named or plain[0]
    filled = [column for column in plain if _all_labels(task, table, column)]
    return filled[0] if len(filled) == 1 else None


def _all_labels(task: Task, table: Table, column: str) -> bool:
    return bool(table.rows) and all(cells[column] in task.labels for cells in table.rows)


def _first(names: Sequence[str], among: Sequence[str]) -> str | None:
    return next((name for name in names if name in among), None)


def output_files(
    task: Task, file: Path, spreadsheet_safe: bool, *, read: Sequence[Path] = ()
) -> tuple[OutputFile, OutputFile | None]:
    """Find where answers really go and, if there shall be one, their copy for spreadsheets.

    Raises:
        InputError: one of the two must not be written, see `output_file`.
    """
    target = output_file(task, file, read=read)
    copy = target.with_name(f"{target.stem}.spreadsheet{target.suffix}")
    return target, output_file(task, copy, read=read) if spreadsheet_safe else None


def write_answers(
    target: OutputFile,
    columns: Sequence[str],
    rows: Cells,
    *,
    check: Callable[[Sequence[str], Cells], None],
    separator: str = "comma",
) -> None:
    """Write a CSV file, read it back, `check` its header and rows, and only then give it its name.

    After any fault the old file is there, or none.

    Raises:
        InputError: the disk refuses.
    """
    mark = _SEPARATORS[separator]
    try:
        with _draft_of(target) as draft:
            write_whole(draft, _as_csv([list(columns), *rows], mark))
            header, *found = _read_back(draft, mark)
            check(header, found)
            files.move_durable(draft, target)
    except OSError as error:
        raise InputError(
            f"cannot write {target}: {error.strerror or error}: make space, correct the "
            "permissions, or name another file with -o"
        ) from None


def write_spreadsheet_copy(
    copy: OutputFile | None, columns: Sequence[str], rows: Cells, *, separator: str = "comma"
) -> None:
    """Write answers again, if they shall be, so that no spreadsheet takes a cell for a formula.

    Raises:
        InputError: the disk refuses.
    """
    if copy is None:
        return
    header, safe = _for_spreadsheets(columns), [_for_spreadsheets(row) for row in rows]
    check = same_cells(header, safe)
    write_answers(copy, header, safe, check=check, separator=separator)


def same_cells(columns: Sequence[str], rows: Cells) -> Callable[[Sequence[str], Cells], None]:
    """Make a check that a file which was read back holds these columns and rows."""

    def check(header: Sequence[str], found: Cells) -> None:
        if list(header) != list(columns) or found != rows:
            raise InputError("the file read back is not what was to be written: run again")

    return check


@contextlib.contextmanager
def _draft_of(target: Path) -> Iterator[Path]:
    draft = files.temporary_beside(target)
    try:
        yield draft
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)


def _as_csv(rows: Cells, mark: str) -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=mark, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def _read_back(file: Path, mark: str) -> Cells:
    with long_cells(), file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, strict=True, delimiter=mark))


def _for_spreadsheets(cells: Sequence[str]) -> list[str]:
    """Put an apostrophe before the cells that a spreadsheet would run as a formula."""
    return [f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells]
