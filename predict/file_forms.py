"""Answers as the bytes of a file, in the form that its ending names; `read_table` reads them back.

Cells are text everywhere in this project. Forms that know numbers (Parquet, xlsx, JSON) get them
where nothing is lost by it: a column of probabilities, and one whose every cell is an integer
without leading zeros. Empty cells are null there.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from archiveprobe.base.errors import InputError

Cells = list[list[str]]

_MARKS = {"comma": ",", "semicolon": ";", "tab": "\t"}
# Within what JavaScript and spreadsheets, whose numbers are all float64, hold exactly.
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,14}")
_TEXT = (".csv", ".tsv", ".txt")
_MEMBER = "submission.csv"
_XLSX_ROWS = 2**20


@dataclass(frozen=True)
class FileForm:
    """Says how answers become a file: its ending, the mark between cells, the name inside a zip.

    `quoting` is csv's word for which cells of text stand in quotes.
    """

    ending: str
    mark: str
    member: str
    quoting: Literal[0, 1] = csv.QUOTE_MINIMAL

    @property
    def is_text(self) -> bool:
        """Return whether the file can be read in an editor, cell by cell."""
        return self.ending in _TEXT


def file_form(file: Path, template: Path | None = None, separator: str | None = None) -> FileForm:
    """Find the form that the ending of `file` names.

    A template gives the `separator` (comma, semicolon or tab) and, where it is text, the name of
    the one file inside a zip; `answers.csv.zip` names it itself.

    Raises:
        InputError: an ending that names no form.
    """
    ending = file.suffix.lower()
    if ending not in _FORMS:
        known = ", ".join(_FORMS)
        found = f"{ending!r} names no form of answers" if ending else "it has no ending"
        raise InputError(f"cannot write {file}: {found}: end it in one of {known}")
    shape = template.name if template and template.suffix.lower() in _TEXT else _MEMBER
    member = file.stem if Path(file.stem).suffix.lower() in _TEXT else shape
    text = Path(member) if ending == ".zip" else file
    is_tabbed = text.suffix.lower() == ".tsv" and Path(shape).suffix.lower() != ".tsv"
    return FileForm(ending, _MARKS["tab" if is_tabbed else separator or "comma"], member)


def is_table(file: Path) -> bool:
    """Return whether an output is a table: a file, or a name with an ending of letters.

    Raises:
        InputError: there is a folder of such a name.
    """
    if not file.suffix[1:].isalpha() and not file.is_file():
        return False
    if file.is_dir():
        raise InputError(f"{file} is a folder: name a file in it with -o")
    return True


def encode(form: FileForm, cells: Cells, numbers: Collection[str] = ()) -> bytes:
    """Write a header and lines in a form; the columns called `numbers` hold decimal numbers.

    Raises:
        InputError: the form cannot hold a cell, or needs a library that is not installed.
    """
    return _FORMS[form.ending](form, cells, numbers)


def values_of(cells: Cells, numbers: Collection[str]) -> list[list[Any]]:
    """Give the cells of every column as what they are: numbers, integers or text; None if empty."""
    header, *lines = cells
    return [
        _column([line[at] for line in lines], name in numbers) for at, name in enumerate(header)
    ]


def are_integers(cells: Iterable[str]) -> bool:
    """Return whether all cells that are not empty are integers, which every form holds exactly."""
    return all(_INTEGER.fullmatch(cell) for cell in cells if cell)


def _column(cells: Sequence[str], holds_numbers: bool) -> list[Any]:
    kind: Callable[[str], Any] = str
    if holds_numbers:
        kind = float
    elif are_integers(cells):
        kind = int
    return [kind(cell) if cell else None for cell in cells]


def _records(cells: Cells, numbers: Collection[str]) -> list[str]:
    lines = zip(*values_of(cells, numbers), strict=True)
    return [
        json.dumps(dict(zip(cells[0], line, strict=True)), ensure_ascii=False) for line in lines
    ]


def library(name: str) -> Any:
    """Import a library that a form of table needs. Raises InputError: it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        raise InputError(
            f"{name.split('.')[0]} is not installed, which this form of table needs: run "
            "`pip install 'archiveprobe[tables]'`, or write a .csv"
        ) from None


def _to_csv(form: FileForm, cells: Cells, _: Collection[str]) -> bytes:
    out = io.StringIO()
    lines = csv.writer(out, delimiter=form.mark, lineterminator="\n", quoting=form.quoting)
    lines.writerows(cells)
    return out.getvalue().encode()


def _to_zip(form: FileForm, cells: Cells, numbers: Collection[str]) -> bytes:
    out = io.BytesIO()
    # The same answers give the same bytes: a zip otherwise holds the time and the system.
    entry = zipfile.ZipInfo(form.member, (1980, 1, 1, 0, 0, 0))
    entry.compress_type, entry.create_system = zipfile.ZIP_DEFLATED, 3
    entry.external_attr = 0o100644 << 16
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(entry, _to_csv(form, cells, numbers))
    return out.getvalue()


def _to_parquet(_: FileForm, cells: Cells, numbers: Collection[str]) -> bytes:
    pa, parquet = library("pyarrow"), library("pyarrow.parquet")
    types = {float: pa.float64(), int: pa.int64()}
    columns = [
        pa.array(
            values, types.get(next((type(v) for v in values if v is not None), str), pa.string())
        )
        for values in values_of(cells, numbers)
    ]
    out = io.BytesIO()
    parquet.write_table(pa.table(columns, names=cells[0]), out)
    return out.getvalue()


def _to_xlsx(_: FileForm, cells: Cells, numbers: Collection[str]) -> bytes:
    openpyxl, parts = library("openpyxl"), library("openpyxl.cell.cell")
    if len(cells) > _XLSX_ROWS:
        raise InputError(
            f"no .xlsx can hold {len(cells) - 1} rows, {_XLSX_ROWS - 1} are the most: write a .csv "
            "or a .parquet"
        )
    illegal = parts.ILLEGAL_CHARACTERS_RE
    for cell in (cell for line in cells for cell in line):
        if illegal.search(cell):
            raise InputError(f"no .xlsx can hold the characters of {cell!r}: write a .csv")
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("answers")

    def made(value: Any) -> Any:
        cell = parts.WriteOnlyCell(sheet, value)
        if isinstance(value, str):
            # openpyxl takes "=..." for a formula and "#N/A" for an error.
            cell.data_type = "s"
        return cell

    for line in [cells[0], *zip(*values_of(cells, numbers), strict=True)]:
        sheet.append([made(value) for value in line])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def _to_json(_: FileForm, cells: Cells, numbers: Collection[str]) -> bytes:
    return ("[\n" + ",\n".join(_records(cells, numbers)) + "\n]\n").encode()


def _to_json_lines(_: FileForm, cells: Cells, numbers: Collection[str]) -> bytes:
    return "".join(f"{record}\n" for record in _records(cells, numbers)).encode()


_FORMS: Mapping[str, Callable[[FileForm, Cells, Collection[str]], bytes]] = {
    **dict.fromkeys(_TEXT, _to_csv),
    ".zip": _to_zip,
    ".parquet": _to_parquet,
    ".xlsx": _to_xlsx,
    ".json": _to_json,
    ".jsonl": _to_json_lines,
}
