"""Tables of any form read as text: ids, labels and captions come out exactly as they were written.

What a file is, its bytes say and not its ending: CSV, xlsx, Parquet, JSON or JSON lines, or one
of them alone in a zip.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import TABLE_BYTES, read_ordinary
from archiveprobe.base.wording import clipped, first_few, number_of
from archiveprobe.task.config import nearest
from archiveprobe.task.tables.cells import Cells, check_size
from archiveprobe.task.tables.table_csv import encoding_of, read_csv
from archiveprobe.task.tables.table_forms import SAVE, read_parquet, read_xlsx
from archiveprobe.task.tables.table_json import read_json
from archiveprobe.task.tables.table_zip import unpacked

# Ending -> how the form of such a file begins.
_FORMS = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), "CSV"),
    **dict.fromkeys((".xlsx", ".xlsm"), "xlsx"),
    ".parquet": "Parquet",
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "JSON"),
}
# Endings of the files among which a table is looked for.
TABLE_ENDINGS = tuple(ending for ending in _FORMS if ending != ".txt")
_ZIP = (b"PK\3\4", b"PK\5\6")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_UNREADABLE = {
    _OLE: f"is an old Excel file (.xls): {SAVE}",
    b"\x1f\x8b": "is compressed (gzip): unpack it",
    b"BZh91AY&SY": "is compressed (bzip2): unpack it",
    b"\xfd7zXZ\0": "is compressed (xz): unpack it",
    b"\x28\xb5\x2f\xfd": "is compressed (zstd): unpack it",
    b"%PDF": "is a PDF file: save the table that it shows as xlsx, or as CSV in UTF-8",
    b"SQLite format 3\0": "is a database: write its table as CSV in UTF-8",
    b"ARROW1": "is a Feather file: write it as Parquet, or as CSV in UTF-8",
}
_PROTECTED = "is protected by a password: save it without one"
_SHOWN = 20
_MARKUP = ("<!doctype", "<html", "<?xml", "<table")


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

    def require(self, *columns: str, advice: str = "name the right column in task.toml") -> None:
        """Check that the columns are there.

        Raises:
            InputError: one is missing; the message names the nearest one, and ends with the advice.
        """
        for column in columns:
            if column not in self.columns:
                hint = nearest(column, self.columns)
                has = first_few(self.columns, _SHOWN)
                raise InputError(
                    f"no column {column!r} in {self.file}{hint}: it has {has}; {advice}"
                )


def read_table(file: Path) -> Table:
    """Read a table of any form, all cells as text.

    A CSV is in UTF-8 (with or without a byte-order mark), marked UTF-16 or, where it is neither,
    cp1252. Rows without any cell and pandas' nameless index are left out, which `remarks` say.

    Raises:
        InputError: missing, of no known form, damaged, too large, a header with an empty or
            repeated name, or a row whose number of cells differs from the header's.
    """
    cells = _read(file, _content(file))
    check_size(file, len(cells.rows), len(cells.columns))
    remarks = [*_doubt_ending(file, cells), *cells.remarks, *_leave_out(cells)]
    _check_header(file, cells)
    return Table(
        file,
        tuple(cells.columns),
        tuple(dict(zip(cells.columns, row, strict=True)) for row in cells.rows),
        tuple(cells.lines),
        cells.separator,
        cells.form,
        tuple(f"{file.name}: {remark}" for remark in remarks),
        cells.unit,
    )


def _content(file: Path) -> bytes:
    try:
        return read_ordinary(file, TABLE_BYTES)
    except FileNotFoundError:
        raise InputError(f"no table at {file}: correct its path") from None
    except OSError as error:
        raise InputError(f"cannot read the table {file}: {error.strerror}") from None


def _read(file: Path, content: bytes) -> Cells:
    if content.startswith(_ZIP):
        content = unpacked(file, content, _FORMS)
    if content.startswith(_ZIP):
        return read_xlsx(file, content)
    # Every Parquet file goes on with a number of four bytes in Thrift's compact form.
    if content.startswith(b"PAR1\x15"):
        return read_parquet(file, content)
    for start, what in _UNREADABLE.items():
        if content.startswith(start):
            protected = start == _OLE and "EncryptedPackage".encode("utf-16-le") in content
            raise InputError(f"{file} {_PROTECTED if protected else what}")
    encoding = encoding_of(file, content)
    begin = content[:256].decode(encoding, "ignore").lstrip().lower()
    if begin.startswith(_MARKUP):
        raise InputError(f"{file} holds HTML or XML: {SAVE}")
    if begin.startswith(("{", "[")) and encoding != "cp1252":
        try:
            return read_json(file, content.decode(encoding))
        except InputError:
            # The name of a CSV's first column may begin so.
            if _FORMS.get(file.suffix.lower()) != "CSV":
                raise
    return read_csv(file, content, encoding)


def _doubt_ending(file: Path, cells: Cells) -> list[str]:
    expected = _FORMS.get(file.suffix.lower())
    if expected is None or cells.form.startswith(expected):
        return []
    return [f"read as {cells.form}, which it is, though its name ends in {file.suffix}"]


def _leave_out(cells: Cells) -> Iterator[str]:
    """Leave out what holds nothing or only counts, and say so."""
    kept = [at for at, row in enumerate(cells.rows) if any(row)]
    if len(kept) < len(cells.rows):
        yield f"left out {number_of(len(cells.rows) - len(kept), 'row')} without any cell"
        cells.rows = [cells.rows[at] for at in kept]
        cells.lines = [cells.lines[at] for at in kept]
    while _has_index(cells):
        name = cells.columns[0].strip()
        which = repr(name) if name else "which has no name"
        yield f"the first column, {which}, counts from 0: taken for pandas' index and left out"
        _keep(cells, range(1, len(cells.columns)))
    empty = [at for at, name in enumerate(cells.columns) if not name.strip()]
    empty = [at for at in empty if cells.rows and not any(row[at] for row in cells.rows)]
    if empty:
        yield f"{len(empty)} columns without a name and without any cell are left out"
        _keep(cells, [at for at in range(len(cells.columns)) if at not in set(empty)])


def _has_index(cells: Cells) -> bool:
    if len(cells.columns) < 2 or cells.columns[0].strip() not in ("", "Unnamed: 0"):
        return False
    return bool(cells.rows) and all(row[0] == str(at) for at, row in enumerate(cells.rows))


def _keep(cells: Cells, columns: Iterable[int]) -> None:
    wanted = list(columns)
    cells.columns = [cells.columns[at] for at in wanted]
    cells.rows = [tuple([row[at] for at in wanted]) for row in cells.rows]


def _check_header(file: Path, cells: Cells) -> None:
    columns = cells.columns
    if not columns:
        raise InputError(f"{file} is empty: it needs a header line with column names")
    for at, name in enumerate(columns):
        if not name.strip():
            held = next((row[at] for row in cells.rows if row[at]), None)
            what = "" if held is None else f", but holds {clipped(held)}"
            raise InputError(
                f"{file}: a column has no name in the header{what}: name it, or remove what stands "
                "above the header (where it is pandas' index, write with index=False)"
            )
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        listed = first_few(map(clipped, twice))
        raise InputError(f"{file}: a column name stands twice in the header: {listed}: rename one")
