"""Embeddings for other tools: Parquet, Lance, or a bare array that numpy maps into memory.

Parquet holds a row's embedding as one cell of fixed-size binary: pyarrow writes lists of float16
several times slower (see docs/caches.md). Lance, whose readers search in them, has them as lists.
"""

import csv
import io
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.cache import spec
from archiveprobe.cache.reader import Reader

Columns = Mapping[str, Sequence[str]]
Keys = Sequence[bytes | None]
FORMS = {"hdf5": (".h5", ".hdf5"), "parquet": (".parquet",), "lance": (".lance",), "npy": (".npy",)}


def form_of(path: Path) -> str:
    """Return the form that the ending of a file asks for; hdf5 for any other."""
    return next((form for form, ends in FORMS.items() if path.suffix.lower() in ends), "hdf5")


def written_by(path: Path, form: str) -> list[Path]:
    """Return the files that an export to `path` writes: beside a bare array lies its table."""
    return [path, path.with_suffix(".csv")] if form == "npy" else [path]


def storable(text: str) -> str:
    """Return text that UTF-8 and HDF5 can hold; other characters become escapes."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def facts_of(name: str, reader: Reader) -> dict[str, str]:
    """Return what a reader of the file has to know about a backbone's embeddings."""
    return {
        "backbone": name,
        "fingerprint": reader.record.digest,
        "random_weights": json.dumps(bool(reader.fingerprint.get("random_weights"))),
        "views": json.dumps(reader.fingerprint.get("views")),
        "shape": json.dumps(reader.row_shape),
        "dtype": "<f2",
    }


def write_parquet(
    path: Path, columns: Columns, keys: Keys, readers: Mapping[str, Reader], rows: int
) -> None:
    """Write a Parquet file, `rows` at a time. Raises OSError, InputError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def cells(block: NDArray[np.float16]) -> Any:
        data = pa.py_buffer(np.ascontiguousarray(block, "<f2"))
        kind = pa.binary(block[0].nbytes)
        return pa.FixedSizeBinaryArray.from_buffers(kind, len(block), [None, data])

    schema = _schema(pa, columns, readers, lambda shape: pa.binary(2 * math.prod(shape)))
    with (
        files.replacing(path) as temporary,
        pq.ParquetWriter(
            temporary, schema, compression="none", use_dictionary=list(columns)
        ) as writer,
    ):
        for batch in _batches(pa, schema, columns, keys, readers, rows, cells):
            writer.write_batch(batch)


def write_lance(
    path: Path, columns: Columns, keys: Keys, readers: Mapping[str, Reader], rows: int
) -> None:
    """Write a Lance dataset, a folder, in one commit. Raises OSError, InputError."""
    try:
        import lance
    except ImportError:
        raise InputError("Lance needs another package: pip install 'archiveprobe[lance]'") from None
    import pyarrow as pa

    def cells(block: NDArray[np.float16]) -> Any:
        values = pa.array(np.ascontiguousarray(block).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(values, block[0].size)

    schema = _schema(pa, columns, readers, lambda shape: pa.list_(pa.float16(), math.prod(shape)))
    batches = _batches(pa, schema, columns, keys, readers, rows, cells)
    temporary = files.temporary_beside(path)
    try:
        lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches), str(temporary))
        for file in temporary.rglob("*"):
            files.fsync(file)
        files.move_durable(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_npy(
    path: Path, columns: Columns, keys: Keys, readers: Mapping[str, Reader], rows: int
) -> None:
    """Write the array (n, views, *shape) of one backbone, after a CSV file of its rows beside it.

    Raises OSError; InputError: several backbones.
    """
    if len(readers) != 1:
        raise InputError(f"{path} holds one backbone: name it with --backbone")
    ((_, reader),) = readers.items()
    table = io.StringIO(newline="")
    lines = csv.writer(table)
    lines.writerow(columns)
    lines.writerows(zip(*(map(storable, values) for values in columns.values()), strict=True))
    _, beside = written_by(path, "npy")
    files.write_whole(beside, table.getvalue().encode())
    form = {"descr": "<f2", "fortran_order": False, "shape": (len(keys), *(reader.row_shape or ()))}
    # Through a file rather than a map, which kills the process when the disk is full.
    with files.replacing(path) as temporary, files.HashedFile(temporary) as file:
        binary: IO[bytes] = file  # type: ignore[assignment]
        np.lib.format.write_array_header_1_0(binary, form)
        for start in range(0, len(keys), rows):
            file.write(np.ascontiguousarray(reader.read(keys[start : start + rows])[1], "<f2"))


def _schema(pa: Any, columns: Columns, readers: Mapping[str, Reader], kind: Any) -> Any:
    texts = [pa.field(name, pa.string()) for name in columns]
    return pa.schema(
        texts
        + [
            pa.field(_column(name), kind(reader.row_shape), metadata=facts_of(name, reader))
            for name, reader in readers.items()
        ]
    )


def _column(name: str) -> str:
    # Lance reads a point as the way into a structure.
    return f"embeddings/{spec.slug(name)}".replace(".", "_")


def _batches(
    pa: Any,
    schema: Any,
    columns: Columns,
    keys: Keys,
    readers: Mapping[str, Reader],
    rows: int,
    cells: Any,
) -> Iterator[Any]:
    for start in range(0, len(keys), rows):
        part = slice(start, start + rows)
        texts = [
            pa.array(list(map(storable, values[part])), pa.string()) for values in columns.values()
        ]
        embeddings = [cells(reader.read(keys[part])[1]) for reader in readers.values()]
        yield pa.record_batch(texts + embeddings, schema=schema)
