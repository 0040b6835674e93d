"""Tables that are no text: sheets of xlsx files (openpyxl) and Parquet files (pyarrow)."""

import importlib
import io
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import clipped, quote_few
from archiveprobe.task.tables.cells import CELL_LIMIT, Cells, as_texts, check_size, from_columns

SAVE = "open it in a spreadsheet program and save it as xlsx, or as CSV in UTF-8"
# A sheet of a million rows and ten columns has some 400 MB of XML.
_UNPACKED = 512 * 1024 * 1024
_SHEET_ROWS = 1_048_576
_PARTS = {
    "content.xml": f"is an OpenDocument file (.ods): {SAVE}",
    "Index/Document.iwa": "is a Numbers file: export it as Excel (xlsx), or as CSV in UTF-8",
    "Index.zip": "is a Numbers file: export it as Excel (xlsx), or as CSV in UTF-8",
    "xl/workbook.bin": f"is a binary Excel file (.xlsb): {SAVE}",
}
_ZEROS = re.compile("0{2,}")
_UNNAMED_INDEX = re.compile(r"__index_level_\d+__")


def read_xlsx(file: Path, content: bytes) -> Cells:
    """Read the values of a sheet: of the only one that has any, else of the first.

    Raises:
        InputError: damaged, too large, another kind of zip file, or no openpyxl.
    """
    _check_zip(file, content)
    openpyxl = _library("openpyxl", file, "an xlsx file")
    try:
        with warnings.catch_warnings():
            # openpyxl warns of validations and formats that it leaves out.
            warnings.simplefilter("ignore")
            return _read_workbook(file, openpyxl, content)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{file} cannot be read as xlsx ({type(error).__name__}: {clipped(str(error))}): "
            f"{SAVE} anew"
        ) from None


def _check_zip(file: Path, content: bytes) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        raise InputError(f"{file} is a damaged or cut zip or xlsx file: copy it again") from None
    names = {part.filename for part in parts}
    for name, what in _PARTS.items():
        if name in names:
            raise InputError(f"{file} {what}")
    if not any(name.startswith("xl/") for name in names):
        raise InputError(f"{file} is a zip file and no table: unpack it")
    size = sum(part.file_size for part in parts)
    if size > _UNPACKED:
        raise InputError(
            f"{file} would take {size} bytes unpacked, limit {_UNPACKED}: save the sheet alone, "
            "or as CSV in UTF-8"
        )


def _read_workbook(file: Path, openpyxl: Any, content: bytes) -> Cells:
    def load(*, computed: bool) -> Any:
        how = {"read_only": True, "data_only": computed, "keep_links": False}
        return openpyxl.load_workbook(io.BytesIO(content), **how)

    book = load(computed=False)
    names = [sheet.title for sheet in book.worksheets if sheet.sheet_state == "visible"]
    begins = {name: [*islice(_rows(file, book[name]), 2)] for name in names}
    filled = [name for name in names if begins[name]]
    if not filled:
        raise InputError(f"{file} is empty: it needs a sheet with column names in its first row")
    tables = [name for name in filled if _begins_a_table(begins[name])]
    name, remarks = (tables or filled)[0], []
    if len(names) > 1:
        others = [other for other in names if other != name]
        why = "the first with a table" if tables else "the first"
        if len(filled) == 1:
            why = "the only one with cells"
        elif len(tables) == 1:
            why = "the only one with a table"
        remarks.append(f"read from the sheet {name!r}, {why}; not read: {quote_few(others)}")
    values: dict[int, list[Any]] = {}
    formulas: list[tuple[int, int]] = []
    for number, cells in _rows(file, book[name]):
        values[number] = [_value(cell) for cell in cells]
        formulas += [(number, at) for at, cell in enumerate(cells) if cell.data_type == "f"]
    if formulas:
        remarks += _compute(file, values, formulas, load(computed=True)[name])
    header, *rows = _padded(file, values)
    columns = list(zip(*rows, strict=True)) or [()] * len(header)
    names = as_texts(header)
    texts = from_columns(file, names, columns)
    form = f"xlsx, sheet {name!r}"
    return Cells(names, texts, list(values)[1:], form, unit="line", remarks=remarks)


def _begins_a_table(rows: Sequence[tuple[int, Sequence[Any]]]) -> bool:
    """Return whether two rows of a sheet, both of several cells, may be a header and a row.

    A cover with a title, a date and notes does not begin so.
    """
    return len(rows) == 2 and all(len(cells) > 1 for _, cells in rows)


def _padded(file: Path, values: Mapping[int, list[Any]]) -> list[list[Any]]:
    width = max(map(len, values.values()))
    check_size(file, len(values), width)
    return [row + [None] * (width - len(row)) for row in values.values()]


def _rows(
    file: Path, sheet: Any, wanted: Collection[int] | None = None
) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield number and cells of the rows that have a value, or of the `wanted` rows.

    What a sheet says of its own size may be anything, so it is not believed.
    """
    sheet.reset_dimensions()
    count = 0
    for number, cells in enumerate(sheet.iter_rows(), 1):
        count += len(cells)
        if number > _SHEET_ROWS or count > CELL_LIMIT:
            raise InputError(
                f"{file}: the sheet {sheet.title!r} has more than {_SHEET_ROWS} rows or "
                f"{CELL_LIMIT} cells: save what is needed of it as CSV in UTF-8"
            )
        used = max((at for at, cell in enumerate(cells, 1) if cell.value is not None), default=0)
        if used if wanted is None else number in wanted:
            yield number, cells[: used if wanted is None else None]


def _value(cell: Any) -> Any:
    """Return the value of a cell; whole numbers keep the zeros that their format puts before."""
    if type(cell.value) is int and _ZEROS.fullmatch(cell.number_format):
        return str(cell.value).zfill(len(cell.number_format))
    return getattr(cell.value, "text", cell.value)


def _compute(
    file: Path, values: Mapping[int, list[Any]], formulas: Sequence[tuple[int, int]], sheet: Any
) -> list[str]:
    """Put computed values in place of formulas; those that have none stay, which is said."""
    computed = dict(_rows(file, sheet, {number for number, _ in formulas}))
    lost = []
    for number, at in formulas:
        value = _value(computed[number][at])
        if value is None:
            lost.append(str(values[number][at]))
        else:
            values[number][at] = value
    if not lost:
        return []
    return [f"{len(lost)} cells hold formulas without a value, taken as text: {quote_few(lost)}"]


def read_parquet(file: Path, content: bytes) -> Cells:
    """Read a Parquet file, the index of a DataFrame that is stored in it first.

    Raises:
        InputError: damaged, too large, nested or binary columns, or no pyarrow.
    """
    parquet = _library("pyarrow.parquet", file, "a Parquet file")
    try:
        return _read_parquet(file, parquet, content)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{file} cannot be read as Parquet ({type(error).__name__}: {clipped(str(error))}): "
            "write it anew, or as CSV in UTF-8"
        ) from None


def _read_parquet(file: Path, parquet: Any, content: bytes) -> Cells:
    arrow = _library("pyarrow", file, "a Parquet file")
    opened = parquet.ParquetFile(arrow.BufferReader(content))
    schema, metadata = opened.schema_arrow, opened.metadata
    check_size(file, metadata.num_rows, len(schema))
    is_a, strings = arrow.types, []
    scalars = (is_a.is_primitive, is_a.is_decimal, is_a.is_null)
    for column in schema:
        kind = column.type
        plain = kind.value_type if is_a.is_dictionary(kind) else kind
        if is_a.is_string(plain) or is_a.is_large_string(plain):
            strings.append(column.name)
        elif not any(of_kind(plain) for of_kind in scalars):
            raise InputError(
                f"{file}: the column {column.name!r} holds {plain}: keep only text and numbers "
                "in a table"
            )
    # A value that is repeated a million times stays one.
    opened = parquet.ParquetFile(arrow.BufferReader(content), read_dictionary=strings)
    columns: list[list[Any]] = [[] for _ in schema]
    for group in range(metadata.num_row_groups):
        for values, column in zip(columns, opened.read_row_group(group).columns, strict=True):
            for chunk in column.chunks:
                values += _values(arrow, chunk)
    index = (schema.pandas_metadata or {}).get("index_columns", [])
    order = sorted(range(len(schema)), key=lambda at: schema.names[at] not in index)
    names = [_UNNAMED_INDEX.sub("", schema.names[at]) for at in order]
    rows = from_columns(file, names, [columns[at] for at in order])
    return Cells(names, rows, list(range(1, len(rows) + 1)), "Parquet")


def _values(arrow: Any, chunk: Any) -> list[Any]:
    if arrow.types.is_dictionary(chunk.type):
        words = _values(arrow, chunk.dictionary)
        return [None if at is None else words[at] for at in chunk.indices.to_pylist()]
    if arrow.types.is_float16(chunk.type) or arrow.types.is_float32(chunk.type):
        # The shortest number that is the same in its own precision: 0.1, not 0.10000000149.
        numbers = chunk.to_numpy(zero_copy_only=False)
        return [float(str(number)) for number in numbers]
    values: list[Any] = chunk.to_pylist()
    return values


def _library(name: str, file: Path, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(
            f"{file} is {what}, which needs {name.split('.')[0]}: run "
            "`pip install 'archiveprobe[tables]'`"
        ) from None
