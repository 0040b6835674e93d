"""Images that are bytes in a Parquet file: read forwards, a few rows at a time."""

import os
import threading
from bisect import bisect_right
from itertools import accumulate
from typing import Any

from archiveprobe.archive.references import UnreadableError
from archiveprobe.archive.rows import bytes_field
from archiveprobe.archive.storage import open_place
from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import IMAGE_BYTES
from archiveprobe.base.wording import clipped
from archiveprobe.task.find_images import printable

_AT_ONCE = 16
# The file that a thread of a process reads now, and where it stands in it.
_OPEN = threading.local()


def read_row(place: str, column: str, row: int) -> bytes:
    """Read the bytes of a row, which costs little where it follows the row that was read last.

    Raises:
        UnreadableError: the row has no bytes, too many, or is damaged.
        InputError: the file is gone or has changed, or its store fails.
    """
    key = (os.getpid(), place, column)
    if getattr(_OPEN, "key", None) != key:
        _OPEN.key, _OPEN.cursor = None, None
        _OPEN.cursor = _Cursor(place, column)
        _OPEN.key = key
    try:
        value = _OPEN.cursor.read(row)
    except (InputError, UnreadableError):
        raise
    except Exception as error:
        _OPEN.key = None
        raise UnreadableError("unreadable_file", clipped(str(error), 120)) from None
    if value is None:
        raise UnreadableError("missing_file", "the row has no bytes")
    if len(value) > IMAGE_BYTES:
        raise UnreadableError.of_size(len(value))
    return bytes(value)


class _Cursor:
    """A place in one column of a Parquet file."""

    def __init__(self, place: str, column: str) -> None:
        import pyarrow.parquet as parquet

        self._place = place
        try:
            stream = open_place(place)
            self._file = parquet.ParquetFile(stream, pre_buffer=False, buffer_size=1 << 20)
            facts = self._file.metadata
            counts = [facts.row_group(at).num_rows for at in range(facts.num_row_groups)]
            self._field = bytes_field(self._file.schema_arrow.field(column)) or ""
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{printable(place)} cannot be read as Parquet ({clipped(str(error), 100)}): "
                "bring the old one back, or name another output"
            ) from None
        self._column = f"{column}.{self._field}" if self._field else column
        self._starts = [0, *accumulate(counts)]
        self._group = -1
        self._first, self._values = 0, []

    def read(self, row: int) -> Any:
        if not 0 <= row < self._starts[-1]:
            raise InputError(
                f"{printable(self._place)} has changed since it was listed (no row {row + 1}): "
                "bring the old one back, or name another output"
            )
        group = bisect_right(self._starts, row) - 1
        if group != self._group or row < self._first:
            self._batches = self._file.iter_batches(
                _AT_ONCE, row_groups=[group], columns=[self._column], use_threads=False
            )
            self._group, self._first, self._values = group, self._starts[group], []
        while row >= self._first + len(self._values):
            self._first += len(self._values)
            batch: Any = next(self._batches).column(0)
            self._values = batch.field(self._field) if self._field else batch
        return self._values[row - self._first].as_py()

    _values: Any
    _batches: Any
