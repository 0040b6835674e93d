"""What the collectors of a page give: columns, keys of `meta`, the words of rows, and gaps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from archiveprobe.task.find_images import printable
from archiveprobe.task.manifest import Entry
from archiveprobe.task.rows import Row


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
    """The words of every row, put together when they are asked for.

    A digest is "" where there is no image.
    """

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
            "digest": entry.digest if entry.usable else "",
            "detail": seen.detail if seen else "",
            "format": seen.format if seen else "",
            "observed": seen._asdict() if seen else {},
        }
