"""A table or a list: of paths and URLs, or, in Parquet, of the very bytes of images."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from archiveprobe.archive.parquet_bytes import read_row
from archiveprobe.archive.references import Named, Reference, UnreadableError
from archiveprobe.archive.rows import Rows, open_rows
from archiveprobe.archive.several import common_folder, expand
from archiveprobe.archive.storage import check_folder, read_place
from archiveprobe.archive.store import STORES, protocol_of
from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.base.wording import clipped, first_few
from archiveprobe.task.config import nearest
from archiveprobe.task.find_images import printable

_SHOWN = 20


@dataclass(frozen=True)
class TableSource(Named):
    """The images that the rows of one table name or hold, or of several of the same columns.

    `place` is absolute and may be a pattern or folder. Relative paths begin at `base`, a folder or
    a URL. One of `path_column` and `bytes_column` is given.
    """

    place: str
    base: str
    path_column: str | None = None
    bytes_column: str | None = None
    id_column: str | None = None

    def identity(self) -> dict[str, Any]:
        """Return what makes it this source."""
        return {
            "kind": "table",
            "place": printable(self.place),
            "base": printable(self.base),
            "path_column": self.path_column,
            "bytes_column": self.bytes_column,
            "id_column": self.id_column,
        }

    def references(self, *, notify: Notify) -> Iterator[Reference]:
        """Yield an image for every row, in the order of the rows.

        Raises:
            InputError: a table is missing or damaged, or lacks a column.
        """
        tables = expand(self.place, (".parquet",))
        folder = common_folder(tables)
        for table in tables:
            rows = open_rows(table)
            before = printable(table[len(folder) :]) if len(tables) > 1 else ""
            for remark in rows.remarks:
                notify(f"{before or self.name}: {remark}")
            yield from self._of_table(rows, f"{before}/" if before else "")

    def _of_table(self, rows: Rows, before: str) -> Iterator[Reference]:
        require(rows, self.path_column or self.bytes_column or "")
        wanted = [name for name in (self.path_column, self.id_column) if name]
        for name in wanted:
            require(rows, name)
        if self.path_column:
            for at, (path, *more) in enumerate(rows.read(wanted)):
                name = _as_text(more[0] if more else path) or f"{before}row {at + 1}"
                yield Reference(printable(name), self._place_of(_as_text(path)))
            return
        # The bytes are left alone: the table knows how many rows it has.
        named = rows.read([self.id_column]) if self.id_column else repeat((None,), rows.count)
        for at, (cell,) in enumerate(named):
            name = _as_text(cell) or f"{before}row {at + 1}"
            yield Reference(printable(name), rows.place, at)

    def _place_of(self, path: str) -> str:
        if path.startswith("file:///"):
            return path.removeprefix("file://")
        if not path or path.startswith("/") or protocol_of(path):
            return path
        return f"{self.base.rstrip('/')}/{path}"

    def read(self, reference: Reference) -> bytes:
        """Return the bytes of an image.

        Raises:
            UnreadableError: the row names or holds no image, or it cannot be read.
            InputError: the table or the folder of the images is gone, or a store fails.
        """
        if self.bytes_column:
            return read_row(reference.place, self.bytes_column, reference.offset)
        if not reference.place:
            raise UnreadableError("missing_file", "the row names no file")
        if protocol_of(reference.place) not in STORES | {None}:
            detail = "an address of the web is not fetched: download it first"
            raise UnreadableError("unreadable_file", detail)
        try:
            return read_place(reference.place)
        except UnreadableError as error:
            if not protocol_of(reference.place) and reference.place.startswith(self.base):
                check_folder(Path(self.base), error)
            raise


def require(rows: Rows, column: str) -> None:
    """Check that a table has a column.

    Raises:
        InputError: it has not; the message names the nearest one.
    """
    if column not in rows.columns:
        has = first_few(map(clipped, rows.columns), _SHOWN)
        raise InputError(
            f"no column {column!r} in {printable(rows.place)}{nearest(column, rows.columns)}: it "
            f"has {has}; name the right one"
        )


def _as_text(cell: Any) -> str:
    return "" if cell is None else str(cell)
