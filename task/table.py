"""CSV tables read as text: ids, labels and captions come out exactly as they were written."""

import codecs
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from task.config import nearest
from task.errors import InputError

_FIELD_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True)
class Table:
    """The cells of a CSV file as text; `lines` holds the line each row starts at."""

    file: Path
    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]
    lines: tuple[int, ...]

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
    reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
    previous_limit = csv.field_size_limit(_FIELD_LIMIT)
    try:
        numbered = list(_numbered(reader))
    except csv.Error as error:
        raise InputError(f"{file} line {reader.line_num}: {error}: mend that line") from None
    finally:
        csv.field_size_limit(previous_limit)
    if not numbered:
        raise InputError(f"{file} is empty: it needs a header line with column names")
    columns = _header(file, numbered[0][1])
    for line, cells in numbered[1:]:
        if len(cells) != len(columns):
            raise InputError(
                f"{file} line {line}: {len(cells)} cells under {len(columns)} column names: "
                "quote cells that hold commas"
            )
    rows = tuple(dict(zip(columns, cells, strict=True)) for _, cells in numbered[1:])
    return Table(file, columns, rows, tuple(line for line, _ in numbered[1:]))


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    line = 1
    for cells in reader:
        if cells:
            yield line, cells
        line = reader.line_num + 1


def _header(file: Path, cells: list[str]) -> tuple[str, ...]:
    if len(set(cells)) != len(cells):
        raise InputError(f"{file}: a column name stands twice in the header: rename one")
    if not all(cell.strip() for cell in cells):
        raise InputError(f"{file}: a column has no name in the header: name it")
    return tuple(cells)


def _text(file: Path) -> str:
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise InputError(f"no table at {file}: correct its path in task.toml") from None
    except OSError as error:
        raise InputError(f"cannot read the table {file}: {error.strerror}") from None
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file} is not UTF-8 text (byte {error.start}): save the table as CSV in UTF-8"
        ) from None
