"""The rows of a table or list, read from its beginning: millions of them in bounded memory.

CSV, Parquet and lists stream; other forms of tables are read whole, with the limits that tables of
a task have.
"""

import csv
import io
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archiveprobe.archive.storage import open_place
from archiveprobe.archive.store import protocol_of
from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import clipped, first_few
from archiveprobe.task.find_images import has_image_extension, printable
from archiveprobe.task.tables.table import read_table
from archiveprobe.task.tables.table_csv import long_cells, rows_with_lines, separator_of

PARQUET = b"PAR1"
_HEAD = 64 * 1024
_AT_ONCE = 4096
_LONGEST_LINE = 64 * 1024
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
LIST_COLUMN = "path"
_LIST_ENDINGS = (".txt", ".lst", ".list")


@dataclass(frozen=True)
class Rows:
    """A table: its columns, which of them hold bytes, and how many rows a Parquet file has.

    `read` yields the cells of the columns it is given, a tuple for each row.
    """

    place: str
    form: str
    columns: tuple[str, ...]
    read: Callable[[Sequence[str]], Iterator[tuple[Any, ...]]] = field(repr=False)
    binary: tuple[str, ...] = ()
    count: int = 0
    remarks: tuple[str, ...] = ()


def open_rows(place: str) -> Rows:
    """Open a table or a list of files.

    Raises:
        InputError: it is missing, empty or damaged, or its header has a name twice or is none.
    """
    with open_place(place) as stream:
        begin = stream.read(_HEAD)
    if not begin:
        raise InputError(f"{printable(place)} is empty: it needs a path in every line")
    if begin.startswith(PARQUET):
        rows = _of_parquet(place)
    elif begin.startswith(b"PK") or begin.lstrip()[:1] in (b"{", b"["):
        rows = _of_table(place)
    else:
        rows = _of_text(place, begin)
    twice = [name for name, count in Counter(rows.columns).items() if count > 1]
    if twice:
        listed = first_few(map(clipped, twice))
        raise InputError(
            f"{printable(place)}: a column name stands twice in the header: {listed}: rename one"
        )
    return rows


def _of_table(place: str) -> Rows:
    if protocol_of(place):
        raise InputError(f"{printable(place)}: a table in a store must be CSV or Parquet")
    table = read_table(Path(place))

    def read(columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        return (tuple(cells[name] for name in columns) for cells in table.rows)

    return Rows(place, table.form, table.columns, read, remarks=table.remarks)


def _of_parquet(place: str) -> Rows:
    import pyarrow.parquet as parquet

    def read(columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        with open_place(place) as stream, _parquet_faults(place):
            # Without these two a whole column chunk, of bytes of images perhaps, is in memory.
            opened = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20)
            batches = opened.iter_batches(_AT_ONCE, columns=list(columns), use_threads=False)
            for batch in batches:
                yield from zip(*(_values(batch, name) for name in columns), strict=True)

    with open_place(place) as stream, _parquet_faults(place):
        opened = parquet.ParquetFile(stream)
        schema, count = opened.schema_arrow, opened.metadata.num_rows
        binary = tuple(column.name for column in schema if bytes_field(column) is not None)
        inner = [
            f"{column.name}.path"
            for column in schema
            if column.name in binary and bytes_field(column) and "path" in _fields(column)
        ]
        return Rows(place, "Parquet", (*schema.names, *inner), read, binary, count)


def bytes_field(column: Any) -> str | None:
    """Return the field of a Parquet column that holds bytes: "" for itself, None for none.

    Hugging Face's `datasets` stores an image as {bytes, path}.
    """
    import pyarrow as arrow

    def is_binary(kind: Any) -> bool:
        return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))

    if is_binary(column.type):
        return ""
    fields = _fields(column)
    return "bytes" if "bytes" in fields and is_binary(fields["bytes"]) else None


def _fields(column: Any) -> dict[str, Any]:
    import pyarrow as arrow

    return {f.name: f.type for f in column.type} if arrow.types.is_struct(column.type) else {}


def _values(batch: Any, name: str) -> list[Any]:
    import pyarrow.compute as compute

    if name in batch.schema.names:
        return list(batch.column(name).to_pylist())
    outer, _, inner = name.rpartition(".")
    return list(compute.struct_field(batch.column(outer), inner).to_pylist())


@contextmanager
def _parquet_faults(place: str) -> Iterator[None]:
    """Say in one line that a Parquet file is damaged, whatever pyarrow raises."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = clipped(str(error), 100)
        raise InputError(
            f"{printable(place)} cannot be read as Parquet ({reason}): copy it again"
        ) from None


def _of_text(place: str, begin: bytes) -> Rows:
    encoding = _encoding_of(place, begin)
    mark, skipped = separator_of(begin, encoding)
    text = io.StringIO(begin.decode(encoding, "replace"), newline="")
    first = next(
        itertools.islice(filter(None, csv.reader(text, delimiter=mark)), skipped, None), []
    )
    if _is_list(place, first):
        # Names of files may be any bytes.
        marked = "utf-16" if encoding == "utf-16" else "utf-8-sig"
        return Rows(place, "a list of files", (LIST_COLUMN,), lambda _: _lines(place, marked))
    if any(has_image_extension(cell) for cell in first):
        raise InputError(
            f"{printable(place)} has no header, its first line is {first_few(map(clipped, first))}"
            ": write a line of column names above it"
        )

    def read(columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        wanted = [first.index(name) for name in columns]
        for cells in _csv_rows(place, encoding, mark, skipped, len(first)):
            yield tuple([cells[at] for at in wanted])

    odd = "not UTF-8, so read as cp1252, which Excel writes"
    return Rows(place, "CSV", tuple(first), read, remarks=(odd,) if encoding == "cp1252" else ())


def _encoding_of(place: str, begin: bytes) -> str:
    if begin.startswith(_UTF16):
        return "utf-16"
    if b"\0" in begin:
        raise InputError(f"{printable(place)} is no table, list or tar that is known: see the docs")
    with open_place(place) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig")
        try:
            while text.read(1 << 20):
                pass
        except UnicodeDecodeError:
            return "cp1252"
    return "utf-8-sig"


def _is_list(place: str, first: Sequence[str]) -> bool:
    """Return whether a text is a list of files: its first line is a path, and no column's name."""
    if len(first) != 1:
        return place.lower().endswith(_LIST_ENDINGS) and has_image_extension(first[-1])
    return has_image_extension(first[0]) or "/" in first[0]


def _lines(place: str, encoding: str) -> Iterator[tuple[str]]:
    with open_place(place) as stream:
        text = io.TextIOWrapper(stream, encoding, "surrogateescape", newline="\n")
        while line := text.readline(_LONGEST_LINE):
            if len(line) == _LONGEST_LINE:
                raise InputError(
                    f"{printable(place)} has a line of more than {_LONGEST_LINE} "
                    "characters: write one path in every line"
                )
            path = line.rstrip("\r\n")
            if path:
                yield (path,)


def _csv_rows(
    place: str, encoding: str, mark: str, skipped: int, width: int
) -> Iterator[list[str]]:
    with long_cells(), open_place(place) as stream:
        text = io.TextIOWrapper(stream, encoding, newline="")
        reader = csv.reader(text, strict=True, delimiter=mark)
        rows = itertools.islice(rows_with_lines(reader), skipped + 1, None)
        try:
            for line, cells in rows:
                if len(cells) != width:
                    raise InputError(
                        f"{printable(place)} line {line}: {len(cells)} cells under {width} column "
                        "names: quote cells that hold a separator"
                    )
                yield cells
        except (csv.Error, UnicodeDecodeError) as error:
            where = f"{printable(place)} line {reader.line_num}"
            raise InputError(f"{where}: {error}: correct that line") from None
