"""CSV tables read as text: ids, labels and captions come out exactly as they were written.

Cells are separated by commas, semicolons (spreadsheets write them where the comma is decimal) or
tabs: by whichever splits the header into the most names, by commas where none does.
"""

import codecs
import contextlib
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import TABLE_BYTES, read_ordinary
from archiveprobe.task.config import nearest

_FIELD_LIMIT = 16 * 1024 * 1024
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}


@dataclass(frozen=True)
class Table:
    """The cells of a table as text; `lines` holds the line (or row, see `unit`) of each row.

    `separator` is the word for what stands between the cells of a CSV: comma, semicolon or tab.
    `form` says in a few words what the file is, `remarks` what was guessed, a sentence each.
    """

    file: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    lines: tuple[int, ...]
    separator: str = "comma"
    form: str = "CSV"
    remarks: tuple[str, ...] = ()
    unit: str = "line"

    def place(self, index: int) -> str:
        """Say where the row at an index stands: "line 12"."""
        return f"{self.unit} {self.lines[index]}"

    def require(self, *columns: str) -> None:
        """Check that the columns are there.

        Raises:
            InputError: one is missing; the message names the nearest one.
        """
        for column in columns:
            if column not in self.columns:
                hint = nearest(column, self.columns)
                has = ", ".join(self.columns)
                raise InputError(
                    f"no column {column!r} in {self.file}{hint}: it has {has}; "
                    "name the right column in task.toml"
                )


def read_table(file: Path) -> Table:
    """Read a CSV file in UTF-8 (with or without a byte-order mark) or marked UTF-16.

    Raises:
        InputError: missing, not text, a header with an empty or repeated name, or a row whose
            number of cells differs from the header's.
    """
    content, encoding = _content(file)
    with long_cells():
        separator = max(_SEPARATORS, key=lambda mark: _columns_by(mark, content, encoding))
        reader = csv.reader(text_stream(content, encoding), strict=True, delimiter=separator)
        try:
            return _read(file, reader, _SEPARATORS[separator])
        except csv.Error as error:
            raise InputError(f"{file} line {reader.line_num}: {error}: correct that line") from None


@contextlib.contextmanager
def long_cells() -> Iterator[None]:
    """Let csv, within this context, read cells of up to 16 Mi characters, else of up to 128 Ki."""
    previous_limit = csv.field_size_limit(_FIELD_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(previous_limit)


def _columns_by(separator: str, content: bytes, encoding: str) -> int:
    reader = csv.reader(text_stream(content, encoding), delimiter=separator)
    try:
        return len(next((cells for cells in reader if cells), ()))
    except csv.Error:
        return 0


def text_stream(
    content: bytes, encoding: str = "utf-8", errors: str = "strict"
) -> io.TextIOWrapper:
    """Open bytes as text for csv.

    StringIO would take four bytes for every character of a file that is nearly all ASCII.
    """
    return io.TextIOWrapper(io.BytesIO(content), encoding, errors, newline="")


def _read(file: Path, reader: Any, separator: str) -> Table:
    columns: tuple[str, ...] = ()
    rows, lines = [], []
    line = 1
    for cells in reader:
        if cells and not columns:
            columns = tuple(cells)
            if len(set(columns)) != len(columns):
                raise InputError(f"{file}: a column name stands twice in the header: rename one")
            if not all(column.strip() for column in columns):
                raise InputError(f"{file}: a column has no name in the header: name it")
        elif cells:
            if len(cells) != len(columns):
                raise InputError(
                    f"{file} line {line}: {len(cells)} cells under {len(columns)} column names: "
                    f"quote cells that hold a {separator}"
                )
            rows.append(dict(zip(columns, cells, strict=True)))
            lines.append(line)
        line = reader.line_num + 1
    if not columns:
        raise InputError(f"{file} is empty: it needs a header line with column names")
    return Table(file, columns, tuple(rows), tuple(lines), separator)


def _content(file: Path) -> tuple[bytes, str]:
    """Read the bytes of a table and the encoding in which they are text."""
    try:
        content = read_ordinary(file, TABLE_BYTES)
    except FileNotFoundError:
        raise InputError(f"no table at {file}: correct its path") from None
    except OSError as error:
        raise InputError(f"cannot read the table {file}: {error.strerror}") from None
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if wide else "utf-8-sig"
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file} is not UTF-8 text (byte {error.start}): save the table as CSV in UTF-8"
        ) from None
    return content, encoding
