"""A part: the answers of one unit, an immutable Parquet file with a row for every image.

Its name is the unit's number, and it is never written over: of two processes that answer one unit
the first to finish gives it its part, so that the folder never holds an image twice.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from archiveprobe.archive.units import Receipt, Unit
from archiveprobe.base import files
from archiveprobe.base.reading import read_ordinary
from archiveprobe.predict.columns import probability_columns

if TYPE_CHECKING:
    import pyarrow

LARGEST_PART = 1 << 30
# Columns with few different values; Parquet stores each value of them once.
_REPEATED = ("status", "label", "backbone", "system")


@dataclass(frozen=True)
class UnitAnswers:
    """Holds what a system says of the n images of a unit, in the unit's order.

    `digests` are SHA-256 in hex, "" where no bytes were read; `labels` are None and `proba`
    (n, K) is NaN where no image could be judged. `spread` (n,) is the standard deviation of the
    positive label's probability over the views, NaN where there is only one. `backbone` and
    `system` are short digests: of what made the embeddings, and of what judged them.
    """

    digests: Sequence[str]
    status: Sequence[str]
    labels: Sequence[str | None]
    classes: Sequence[str]
    proba: np.ndarray
    spread: np.ndarray
    backbone: str
    system: str


def part_name(first: int, units: int = 1) -> str:
    """Return the name of the part that holds `units` units from number `first` on."""
    last = "" if units == 1 else f"-{first + units - 1:08d}"
    return f"{first:08d}{last}.parquet"


@cache
def part_schema(classes: tuple[str, ...]) -> "pyarrow.Schema":
    """Return the columns of every part of a system with these labels."""
    import pyarrow as pa

    text = [(name, pa.string()) for name in ("id", "digest", "status", "label")]
    numbers = [(name, pa.float64()) for name in (*probability_columns(classes), "spread")]
    origin = [("backbone", pa.string()), ("system", pa.string())]
    return pa.schema([*text, *numbers, *origin])


def write_part(folder: Path, unit: Unit, answers: UnitAnswers) -> Receipt:
    """Write the answers of a unit into a folder of parts, durable on return.

    Where the unit has a part already, whole and of the same system, that one stays and is what the
    receipt is about.

    Raises:
        OSError: the disk refuses; nothing is half-written then.
        ValueError: there is not one answer for every image.
    """
    data = encode_part(unit, answers)
    path = folder / part_name(unit.number)
    if not files.write_new(path, data):
        found = read_part(path, unit, tuple(answers.classes), answers.system)
        if found is not None:
            return found
        files.write_whole(path, data)
    return _receipt(unit, data)


def encode_part(unit: Unit, answers: UnitAnswers) -> bytes:
    """Write the answers of a unit as a Parquet file in memory."""
    import pyarrow as pa

    schema, n = part_schema(tuple(answers.classes)), len(unit.references)
    proba = np.asarray(answers.proba, np.float64).reshape(n, len(answers.classes))
    columns: list[Any] = [
        # A file name may hold bytes that are no text.
        [_text(reference.id) for reference in unit.references],
        [digest or None for digest in answers.digests],
        answers.status,
        answers.labels,
        *proba.T,
        np.asarray(answers.spread, np.float64),
        [answers.backbone] * n,
        [answers.system] * n,
    ]
    if any(len(column) != n for column in columns):
        raise ValueError(f"unit {unit.number} of {n} images needs one answer for each")
    arrays = [
        pa.array(column, field.type, from_pandas=True)
        for column, field in zip(columns, schema, strict=True)
    ]
    out = io.BytesIO()
    with part_writer(out, schema) as writer:
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
    return out.getvalue()


def part_writer(where: Any, schema: "pyarrow.Schema") -> Any:
    """Open a Parquet writer in the form of every part."""
    import pyarrow.parquet as pq

    return pq.ParquetWriter(where, schema, compression="zstd", use_dictionary=list(_REPEATED))


def read_part(path: Path, unit: Unit, classes: tuple[str, ...], system: str) -> Receipt | None:
    """Return the receipt of a unit's part that no log names; None where it is not sound.

    Sound is a whole file with these columns, the images of the unit in its order, and answers of
    the system with that short digest.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = read_ordinary(path, LARGEST_PART)
        table = pq.read_table(io.BytesIO(data))
    except (OSError, pa.ArrowException):
        return None
    expected = [_text(reference.id) for reference in unit.references]
    sound = (
        table.schema.equals(part_schema(classes))
        and table["id"].to_pylist() == expected
        and set(table["system"].to_pylist()) == {system}
        and table["status"].null_count == 0
    )
    return _receipt(unit, data) if sound else None


def _receipt(unit: Unit, data: bytes) -> Receipt:
    sha256 = hashlib.sha256(data).hexdigest()
    name = part_name(unit.number)
    return Receipt(unit.number, name, len(unit.references), len(data), sha256)


def _text(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
