"""Files of answers, written whole in the form that their ending names, read back and checked."""

import contextlib
import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.predict.file_forms import Cells, FileForm, encode, file_form, values_of
from archiveprobe.task.config import Task
from archiveprobe.task.output import OutputFile, output_file, writing
from archiveprobe.task.own_answers import remember_answers
from archiveprobe.task.tables.table import read_table

# What spreadsheets take for the start of a formula (OWASP, "CSV injection"), also in full width.
_FORMULA = (*"=+-@", "\t", "\r", "\n", *"＝＋－＠")


@dataclass(frozen=True, kw_only=True)
class WrittenAnswers:
    """Holds what every written file of a system's answers is reported with.

    `unreadable` counts rows without an answer of their own, `copy` is the one for spreadsheets,
    `notes` say what was decided about the form, a sentence each.
    """

    file: Path
    system: str
    rows: int
    unreadable: int
    copy: Path | None
    seconds: float
    snapshot: str
    notes: list[str]

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
class Target:
    """Where answers go, in which form; and where their copy for spreadsheets goes, if there is one.

    `numbers` are the columns that hold probabilities, `work` is the task's folder of products, and
    `named` is the file as the user named it.
    """

    file: OutputFile
    form: FileForm
    work: Path
    named: Path
    copy: OutputFile | None = None
    numbers: frozenset[str] = frozenset()

    @property
    def named_copy(self) -> Path | None:
        """Return the copy as the user would name it: beside the file, or where its link leads."""
        if self.copy is None or self.named.is_symlink():
            return self.copy
        return self.named.with_name(self.copy.name)

    def in_form(
        self, template: Path | None, separator: str | None, numbers: Iterable[str]
    ) -> "Target":
        """Return this target in the form of a template, with columns of probabilities."""
        form = file_form(self.file, template, separator)
        return replace(self, form=form, numbers=frozenset(numbers))

    def form_of_copy(self) -> FileForm:
        """Return the form of the copy for spreadsheets."""
        text = self.form if self.form.is_text or self.copy is None else file_form(self.copy)
        # Where a spreadsheet takes another mark than ours, a cell without quotes becomes several.
        return replace(text, quoting=csv.QUOTE_ALL)

    def notes(self) -> list[str]:
        """Say what the ending led to, where the name alone does not say it."""
        return [f"the zip holds {self.form.member}"] if self.form.ending == ".zip" else []


def answer_target(
    task: Task, file: Path, spreadsheet_safe: bool, *, read: Sequence[Path] = ()
) -> Target:
    """Find where answers really go and in which form, and the copy for spreadsheets.

    The copy has the ending of the file where that is text, else `.csv`.

    Raises:
        InputError: one of the two must not be written, see `output_file`, or has no form.
    """
    target = output_file(task, file, read=read)
    form = file_form(target)
    ending = target.suffix if form.is_text else ".csv"
    copy = target.with_name(f"{target.stem}.spreadsheet{ending}")
    safe = output_file(task, copy, read=read) if spreadsheet_safe else None
    return Target(target, form, task.work, file, safe)


def write_answers(
    target: Target,
    columns: Sequence[str],
    rows: Cells,
    *,
    check: Callable[[Cells], None] = lambda _: None,
) -> None:
    """Write answers and, if there shall be one, their copy for spreadsheets.

    Each is written whole, read back, held against what was to be written, and only then given its
    name; after any fault the old file is there, or none. `check` sees what was read back, header
    first, before the answers have their name.

    Raises:
        InputError: the disk refuses, or the form cannot hold a cell.
    """
    cells = [list(columns), *rows]
    _write(target.file, target.form, cells, target.numbers, check)
    remember_answers(target.work, target.file)
    if target.copy is not None:
        text = target.form_of_copy()
        safe = [for_spreadsheets(line) for line in cells]
        _write(target.copy, text, safe, frozenset(), lambda _: None)
        remember_answers(target.work, target.copy)


def _write(
    file: OutputFile,
    form: FileForm,
    cells: Cells,
    numbers: frozenset[str],
    check: Callable[[Cells], None],
) -> None:
    with writing(file), draft_of(file) as draft:
        files.write_whole(draft, encode(form, cells, numbers))
        found = _read_back(draft)
        _check_same(file, cells, found, numbers)
        check(found)
        files.move_durable(draft, file)


def _check_same(file: Path, cells: Cells, found: Cells, numbers: frozenset[str]) -> None:
    """Check that a file which was read back holds these cells, numbers as the same numbers."""
    same = len(found) == len(cells) and all(
        len(line) == len(other) for line, other in zip(cells, found, strict=True)
    )
    if same and found[0] == cells[0]:
        now, then = values_of(found, numbers), values_of(cells, numbers)
        if now == then:
            return
        at = next(at for at, column in enumerate(then) if column != now[at])
        row = next(row for row, value in enumerate(then[at]) if value != now[at][row])
        other = ".parquet" if file_form(file).is_text else ".csv"
        raise InputError(
            f"{file.suffix} cannot hold {cells[row + 1][at]!r} in the column {cells[0][at]!r}, it "
            f"comes back as {found[row + 1][at]!r}: nothing was written, write a {other}"
        )
    raise InputError("the file read back is not what was to be written: run again")


@contextlib.contextmanager
def draft_of(target: Path) -> Iterator[Path]:
    """Yield a temporary beside an output, with its ending; it is removed where it is left."""
    draft = files.temporary_beside(target)
    draft = draft.with_name(f"{draft.name}{target.suffix}")
    try:
        yield draft
    finally:
        files.discard(draft)


def _read_back(file: Path) -> Cells:
    table = read_table(file)
    return [list(table.columns), *(list(cells.values()) for cells in table.rows)]


def for_spreadsheets(cells: Sequence[str]) -> list[str]:
    """Put an apostrophe before the cells that a spreadsheet would run as a formula."""
    return [f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells]
