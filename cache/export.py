"""One ordinary HDF5 file for notebooks, in the order of the table."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.cache import shard, spec
from archiveprobe.cache.reader import Reader

_BLOCK_BYTES = 128 * 2**20


def export(
    path: Path,
    columns: Mapping[str, Sequence[str]],
    keys: Sequence[bytes | None],
    readers: Mapping[str, Reader],
    *,
    overwrite: bool = False,
    block_bytes: int = _BLOCK_BYTES,
) -> None:
    """Write `columns` as UTF-8 strings and, per backbone, `embeddings/<slug>`, at `path`.

    Every column and `keys` have one entry per row of the table (n); an embedding dataset is
    (n, views, *shape) float16, NaN where the key is None or unknown. Characters that HDF5 or
    UTF-8 cannot hold are written as escapes. Atomic, streamed in blocks of `block_bytes`. Raises
    InputError: the file is there, lengths differ, two names give one slug, a cache is damaged or
    empty, the disk is full.
    """
    _check(path, columns, keys, readers, overwrite)
    with files.explained(f"write {path}"), files.Staged(path) as staged:
        try:
            with h5py.File(staged, "w", libver=shard.LIBVER) as file:
                for name, values in columns.items():
                    _write_column(file, name, values)
                for name, reader in readers.items():
                    for _ in _write_embeddings(file, name, reader, keys, block_bytes):
                        staged.raise_failure()
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            # HDF5 stumbles over a disk that is full before it can say that it was.
            staged.raise_failure()
            raise InputError(f"cannot write {path}: {error}") from error
        staged.finish()


def _check(
    path: Path,
    columns: Mapping[str, Sequence[str]],
    keys: Sequence[bytes | None],
    readers: Mapping[str, Reader],
    overwrite: bool,
) -> None:
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already; name another file, or add --overwrite")
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


def _write_column(file: h5py.File, name: str, values: Sequence[str]) -> None:
    dataset = file.create_dataset(name, (len(values),), h5py.string_dtype("utf-8"))
    if values:
        dataset[...] = np.array([_storable(value) for value in values], object)


def _storable(text: str) -> bytes:
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace")


def _write_embeddings(
    file: h5py.File,
    name: str,
    reader: Reader,
    keys: Sequence[bytes | None],
    block_bytes: int,
) -> Iterator[None]:
    """Write block by block, and pause after each."""
    shape = reader.row_shape or ()
    dtype = np.dtype(np.float16)
    where = f"embeddings/{spec.slug(name)}"
    if keys:
        dataset = shard.write_checksummed(file, where, (len(keys), *shape), dtype)
    else:
        dataset = file.create_dataset(where, (0, *shape), dtype)
    dataset.attrs["backbone"] = name
    dataset.attrs["fingerprint"] = reader.record.digest
    dataset.attrs["random_weights"] = bool(reader.fingerprint.get("random_weights"))
    dataset.attrs["views"] = _views(reader.fingerprint)
    step = max(1, block_bytes // max(1, int(np.prod(shape)) * dtype.itemsize))
    if dataset.chunks and step > dataset.chunks[0]:
        step -= step % dataset.chunks[0]  # Whole chunks, so that each is written once.
    for start in range(0, len(keys), step):
        dataset[start : start + step] = reader.read(keys[start : start + step])[1]
        yield


def _views(fingerprint: Mapping[str, Any]) -> str:
    return json.dumps(fingerprint.get("views"))
