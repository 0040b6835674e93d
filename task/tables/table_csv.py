"""CSV read as text, whatever spreadsheets and scripts make of it.

Cells are separated by commas, semicolons (spreadsheets write them where the comma is decimal) or
tabs: by what Excel's line `sep=;` names, else by whichever splits the header into the most names,
by commas where none does.
"""

import codecs
import contextlib
import csv
import io
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import clipped
from archiveprobe.task.tables.cells import Cells

_FIELD_LIMIT = 16 * 1024 * 1024
_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
# Excel's own first line, which no other program knows.
_SEPARATOR_LINE = re.compile('"?sep=([,;\t])"?\r?\n')
_NAMES = {"utf-8-sig": "UTF-8", "utf-16": "UTF-16", "cp1252": "cp1252"}


def read_csv(file: Path, content: bytes, encoding: str) -> Cells:
    """Read a CSV file in an encoding that `encoding_of` found.

    Raises:
        InputError: broken quotes, or a row whose number of cells differs from the header's.
    """
    with long_cells():
        mark, skipped = separator_of(content, encoding)
        form = f"CSV, {_NAMES[encoding]}, {_SEPARATORS[mark]}-separated"
        cells = Cells([], [], [], form, unit="line", separator=_SEPARATORS[mark])
        reader = csv.reader(text_stream(content, encoding), strict=True, delimiter=mark)
        try:
            for line, row in itertools.islice(rows_with_lines(reader), skipped, None):
                _add(file, cells, line, row)
        except csv.Error as error:
            raise InputError(f"{file} line {reader.line_num}: {error}: correct that line") from None
    if encoding == "cp1252":
        cells.remarks.append(_say_encoding(cells))
    return cells


def encoding_of(file: Path, content: bytes) -> str:
    """Find the encoding of a text: UTF-16 if it is marked, UTF-8, else what Excel writes, cp1252.

    Raises:
        InputError: it is text in none of them.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encodings = ["utf-16"]
    else:
        encodings = ["utf-8-sig"] if b"\0" in content else ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            content.decode(encoding)
        except UnicodeDecodeError as error:
            start = error.start
        else:
            return encoding
    names = " nor ".join(_NAMES[encoding] for encoding in encodings)
    raise InputError(f"{file} is not {names} text (byte {start}): save the table as CSV in UTF-8")


@contextlib.contextmanager
def long_cells() -> Iterator[None]:
    """Let csv, within this context, read cells of up to 16 Mi characters, else of up to 128 Ki."""
    previous_limit = csv.field_size_limit(_FIELD_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(previous_limit)


def separator_of(content: bytes, encoding: str) -> tuple[str, int]:
    """Find what separates the cells of a CSV, and how many lines at its beginning only say so."""
    named = _SEPARATOR_LINE.match(content[:32].decode(encoding, "ignore"))
    return (named[1], 1) if named else (_most_columns(content, encoding), 0)


def _most_columns(content: bytes, encoding: str) -> str:
    return max(_SEPARATORS, key=lambda mark: _columns_by(mark, content, encoding))


def _columns_by(separator: str, content: bytes, encoding: str) -> int:
    # Whoever reads the table says which of its bytes are no text.
    reader = csv.reader(text_stream(content, encoding, "replace"), delimiter=separator)
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


def rows_with_lines(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are no blank lines, each with the line it starts at."""
    line = 1
    for row in reader:
        if row:
            yield line, row
        line = reader.line_num + 1  # type: ignore[attr-defined]


def _add(file: Path, cells: Cells, line: int, row: list[str]) -> None:
    if not cells.columns:
        if any("\0" in name for name in row):
            raise InputError(f"{file}: the header holds NUL characters: save it as CSV in UTF-8")
        cells.columns = row
        return
    if len(row) != len(cells.columns):
        raise InputError(
            f"{file} line {line}: {len(row)} cells under {len(cells.columns)} column names: "
            f"quote cells that hold a {cells.separator}"
        )
    # A tuple of strings, unlike a list, is none of the garbage collector's business.
    cells.rows.append(tuple(row))
    cells.lines.append(line)


def _say_encoding(cells: Cells) -> str:
    texts = itertools.chain(cells.columns, *cells.rows)
    odd = [text for text in texts if not text.isascii()]
    return (
        f"not UTF-8, so read as cp1252, which Excel writes: {len(odd)} cells are not ASCII, for "
        f"example {clipped(odd[0])}"
    )
