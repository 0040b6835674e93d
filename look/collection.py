"""What a page shows: numbers in columns, words in rows, and what is known of all of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, overload

import numpy as np

from archiveprobe.task.find_images import printable
from archiveprobe.task.manifest import Entry
from archiveprobe.task.rows import Row

Notify = Callable[[str], None]
TYPES = {"int8": "i1", "int16": "i2", "int32": "i4", "float32": "f4", "float64": "f8"}
"""The types that a column may have, by numpy's names, as the scripts of the page name them."""


@dataclass(frozen=True)
class Missing:
    """Something that the page cannot show, and the command that brings it; "" where none does."""

    what: str
    command: str


@dataclass
class Part:
    """What one collector gives: columns, keys of `meta`, and what it could not find."""

    columns: dict[str, np.ndarray] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    missing: list[Missing] = field(default_factory=list)

    def add(self, other: "Part") -> None:
        """Add the columns, keys and gaps of another part."""
        self.columns |= other.columns
        self.meta |= other.meta
        self.missing += other.missing


class RowWords(Sequence[Mapping[str, Any]]):
    """The words of every row, put together when they are asked for."""

    def __init__(self, rows: Sequence[Row], entries: Sequence[Entry]) -> None:
        self._rows, self._entries = rows, entries

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> Mapping[str, Any]: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Mapping[str, Any]]: ...

    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return RowWords(self._rows[at], self._entries[at])
        row, entry = self._rows[at], self._entries[at]
        seen = entry.observed
        return {
            "id": row.id,
            "path": printable(row.path),
            "text": row.text or "",
            "digest": entry.digest,
            "detail": seen.detail if seen else "",
            "format": seen.format if seen else "",
            "observed": asdict(seen) if seen else {},
        }


@dataclass(frozen=True)
class Collection:
    """What a page shows of n rows, in the order of the table.

    `meta` can be written as JSON. `columns` are flat little-endian arrays: n numbers, or n times as
    many where a row has several, row after row. `digests` (n,) are "" where there is no image.
    """

    meta: dict[str, Any]
    columns: dict[str, np.ndarray]
    rows: Sequence[Mapping[str, Any]]
    digests: Sequence[str]

    def __post_init__(self) -> None:
        count = len(self.rows)
        for name, column in self.columns.items():
            whole = column.ndim == 1 and (len(column) % count == 0 if count else not len(column))
            if not whole or column.dtype.name not in TYPES:
                raise ValueError(f"column {name} is {column.dtype} {column.shape} of {count} rows")

    @property
    def types(self) -> dict[str, str]:
        """Return the type of every column."""
        return {name: TYPES[column.dtype.name] for name, column in self.columns.items()}
