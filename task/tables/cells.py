"""Cells of a table as text, whatever they were: what every reader of a form hands over."""

import datetime
import decimal
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError

# A dictionary of a row takes more memory than its cells: 50 million of them take 4 to 8 GB.
CELL_LIMIT = 50_000_000
# Beyond that a float does not tell a whole number from its neighbours.
_EXACT = 2.0**53
_MIDNIGHT = datetime.time()


@dataclass
class Cells:
    """What a file holds as text: a header, rows of as many cells, and where each row stands.

    `form` says what the file is in a few words; see `Table` for the rest.
    """

    columns: list[str]
    rows: list[tuple[str, ...]]
    lines: list[int]
    form: str
    unit: str = "row"
    separator: str = "comma"
    remarks: list[str] = field(default_factory=list)


def check_size(file: Path, rows: int, columns: int) -> None:
    """Refuse a table of more cells than memory may hold.

    Raises:
        InputError: there are more than CELL_LIMIT.
    """
    if rows * columns > CELL_LIMIT:
        raise InputError(
            f"{file} has {rows} rows and {columns} columns, limit {CELL_LIMIT} cells: leave out "
            "columns, or cut the table into several"
        )


def from_columns(
    file: Path, names: Sequence[str], columns: Sequence[Sequence[Any]]
) -> list[tuple[str, ...]]:
    """Turn columns of values into rows of text.

    Raises:
        InputError: a value is no text, number, truth value, date or time.
    """
    texts = []
    for name, values in zip(names, columns, strict=True):
        try:
            texts.append(as_texts(values))
        except TypeError as error:
            raise InputError(
                f"{file}: the column {name!r} holds {error}: keep only text and numbers in a table"
            ) from None
    return list(zip(*texts, strict=True))


def as_texts(values: Sequence[Any]) -> list[str]:
    """Write the values of one column as pandas would in a CSV; what is missing becomes "".

    But whole numbers that are floats because others are missing are written without ".0". Dates
    and times are written as ISO 8601 has them, times of day only where a column has any.

    Raises:
        TypeError: a value is a list, an object or bytes; the message says which.
    """
    floats = [value for value in values if isinstance(value, float) and not math.isnan(value)]
    lacking = any(_is_missing(value) for value in values)
    whole = lacking and all(value.is_integer() and abs(value) < _EXACT for value in floats)
    times = [value for value in values if isinstance(value, datetime.datetime)]
    dates = all(value.time() == _MIDNIGHT for value in times)

    def of_float(value: float) -> str:
        return str(int(value)) if whole else repr(value)

    def of_time(value: datetime.datetime) -> str:
        return value.date().isoformat() if dates else value.isoformat(sep=" ")

    return [_text(value, of_float, of_time) for value in values]


def _text(
    value: Any,
    of_float: Callable[[float], str],
    of_time: Callable[[datetime.datetime], str],
) -> str:
    if isinstance(value, str):
        return value
    if _is_missing(value):
        return ""
    if isinstance(value, float):
        return of_float(value)
    if isinstance(value, datetime.datetime):
        return of_time(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, int | decimal.Decimal | datetime.timedelta):
        return str(value)
    raise TypeError(_NAMES.get(type(value), f"values of the type {type(value).__name__}"))


_NAMES: dict[type, str] = {list: "lists", tuple: "lists", dict: "objects", bytes: "bytes"}


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
