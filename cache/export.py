"""One ordinary file for notebooks and other tools, in the order of the table."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.cache import shard, spec
from archiveprobe.cache.export_forms import (
    form_of,
    storable,
    write_lance,
    write_npy,
    write_parquet,
    written_by,
)
from archiveprobe.cache.reader import Reader

_BLOCK_BYTES = 128 * 2**20
_DTYPE = np.dtype(np.float16)
# HDF5's own bytes: for the file, or for a dataset, whose last chunk is whole; and for a string.
_SPARE_BYTES, _STRING_BYTES = 2 << 20, 64


def export(
    path: Path,
    columns: Mapping[str, Sequence[str]],
    keys: Sequence[bytes | None],
    readers: Mapping[str, Reader],
    *,
    form: str | None = None,
    overwrite: bool = False,
    block_bytes: int = _BLOCK_BYTES,
) -> None:
    """Write `columns` as UTF-8 strings and, per backbone, `embeddings/<slug>`, at `path`.

    `form` is hdf5, parquet, lance or npy; None goes by the ending of `path`.

    Every column and `keys` have one entry per row of the table (n); an embedding dataset is
    (n, views, *shape) float16, NaN where the key is None or unknown. Characters that HDF5 or
    UTF-8 cannot hold are written as escapes. Atomic, streamed in blocks of `block_bytes`. Raises
    InputError: the file is there, lengths differ, two names give one slug, a cache is damaged or
    empty, the disk is full.
    """
    form = form or form_of(path)
    for file in written_by(path, form):
        if file.exists() and not (overwrite and file.is_file()):
            raise InputError(f"{file} exists already; name another file{_or_overwrite(file)}")
    _check(path, columns, keys, readers)
    with files.explained(f"write {path}"):
        try:
            write = _FORMS[form]
            # A block of embeddings is in memory of every backbone.
            row_bytes = sum(_row_bytes(reader) for reader in readers.values())
            write(path, columns, keys, readers, max(1, block_bytes // max(1, row_bytes)))
        except (RuntimeError, ValueError, KeyError) as error:
            raise InputError(f"cannot write {path}: {error}") from error


def _write_hdf5(
    path: Path,
    columns: Mapping[str, Sequence[str]],
    keys: Sequence[bytes | None],
    readers: Mapping[str, Reader],
    rows: int,
) -> None:
    texts = {name: [storable(text).encode() for text in values] for name, values in columns.items()}
    with (
        files.replacing(path) as temporary,
        h5py.File(temporary, "w", libver=shard.LIBVER, locking=False) as file,
    ):
        _reserve(temporary, texts, len(keys), readers)
        for name, values in texts.items():
            dataset = file.create_dataset(name, (len(values),), h5py.string_dtype("utf-8"))
            if values:
                dataset[...] = np.array(values, object)
        for name, reader in readers.items():
            _write_embeddings(file, name, reader, keys, rows)


_FORMS = {
    "hdf5": _write_hdf5,
    "parquet": write_parquet,
    "lance": write_lance,
    "npy": write_npy,
}


def _row_bytes(reader: Reader) -> int:
    return math.prod(reader.row_shape or ()) * _DTYPE.itemsize


def _or_overwrite(file: Path) -> str:
    return ", or remove this folder first" if file.is_dir() else ", or add --overwrite"


def _check(
    path: Path,
    columns: Mapping[str, Sequence[str]],
    keys: Sequence[bytes | None],
    readers: Mapping[str, Reader],
) -> None:
    for name, values in columns.items():
        if len(values) != len(keys):
            raise InputError(
                f"column {name!r} has {len(values)} values for {len(keys)} rows of the table"
            )
    slugs: dict[str, str] = {}
    for name, reader in readers.items():
        other = slugs.setdefault(spec.slug(name), name)
        if other != name:
            raise InputError(
                f"{name!r} and {other!r} would share the name {spec.slug(name)!r} in {path}; "
                "export them into two files"
            )
        if reader.row_shape is None:
            raise InputError(f"the cache {reader.folder} has no rows yet; run embed")


def _reserve(
    file: Path, texts: Mapping[str, Sequence[bytes]], rows: int, readers: Mapping[str, Reader]
) -> None:
    """Take the room on disk before it is written to. Raises OSError where the disk is too full.

    HDF5 crashes the process when a write fails for want of room. What was taken too much is given
    back when HDF5 closes the file.
    """
    size = _SPARE_BYTES
    size += sum(len(text) + _STRING_BYTES for column in texts.values() for text in column)
    for reader in readers.values():
        size += rows * _row_bytes(reader) + _SPARE_BYTES
    if hasattr(os, "posix_fallocate"):  # All but macOS.
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, size)


def _write_embeddings(
    file: h5py.File, name: str, reader: Reader, keys: Sequence[bytes | None], step: int
) -> None:
    shape = reader.row_shape or ()
    where = f"embeddings/{spec.slug(name)}"
    if keys:
        dataset = shard.create_dataset(file, where, (len(keys), *shape), _DTYPE)
    else:
        dataset = file.create_dataset(where, (0, *shape), _DTYPE)
    dataset.attrs["backbone"] = name
    dataset.attrs["fingerprint"] = reader.record.digest
    dataset.attrs["random_weights"] = bool(reader.fingerprint.get("random_weights"))
    dataset.attrs["views"] = json.dumps(reader.fingerprint.get("views"))
    if dataset.chunks and step > dataset.chunks[0]:
        step -= step % dataset.chunks[0]  # Whole chunks, so that each is written once.
    for start in range(0, len(keys), step):
        dataset[start : start + step] = reader.read(keys[start : start + step])[1]
