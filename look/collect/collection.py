"""What a page shows of one snapshot: numbers in columns, words in rows, the rest in `meta`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FORM = 1
TYPES = {"int8": "i1", "int16": "i2", "int32": "i4", "float32": "f4", "float64": "f8"}
"""How a column's type is named in the page, by its name in numpy."""


@dataclass(frozen=True)
class Collection:
    """Holds n rows in the order of the table.

    columns: arrays by name, one value per row or, row by row, as many for each; of one of `TYPES`.
    rows: the words of every row: id, path, text, digest, detail and so on, "" where there are none.
    meta: what is no matter of one row, as JSON.
    """

    meta: Mapping[str, Any]
    columns: Mapping[str, np.ndarray]
    rows: Sequence[Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def types(self) -> dict[str, str]:
        """Return the type of every column, as the page names it."""
        return {name: TYPES[column.dtype.name] for name, column in self.columns.items()}


def little_endian(column: np.ndarray) -> bytes:
    """Return the bytes of a column as the page reads them, row by row."""
    return np.ascontiguousarray(column, column.dtype.newbyteorder("<")).tobytes()
