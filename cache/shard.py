"""One shard: an HDF5 file built in memory, and the checks that come before any byte is believed.

An HDF5 file can point at other files, claim any size and carry code-loading filters; a shard may
be the work of a fault or of a stranger. So the structure is compared with the one form that
`build` writes before the first read of data, and every chunk read is under a checksum.
"""

import contextlib
import hashlib
import io
import math
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from archiveprobe.base import files
from archiveprobe.base.errors import InputError

KEY_BYTES = 32
LIBVER = ("v110", "v110")  # The oldest form in which metadata is under checksums too.
_CHUNK_BYTES = 1 << 20
_VERSION = 1

Embeddings = NDArray[np.float16]

EMBED_AGAIN = "run `archiveprobe embed TASK`, which computes its rows again"
_VERIFY_FIRST = (
    "run `archiveprobe cache verify TASK --deep`, which sets it aside, then `archiveprobe embed "
    "TASK`, which computes its rows again"
)


class ShardError(InputError):
    """A shard is missing, damaged or not in our form; its rows have to be computed again."""

    def __init__(self, where: str, reason: str, advice: str = _VERIFY_FIRST) -> None:
        super().__init__(f"{where}: {reason}; {advice}")
        self.reason = reason


class Shard(NamedTuple):
    """The rows of one shard: key (n, 32), embeddings (n, views, *shape), norm and view_ok
    (n, views)."""

    key: NDArray[np.uint8]
    embeddings: Embeddings
    norm: NDArray[np.float32]
    view_ok: NDArray[np.bool_]


def build(
    keys: NDArray[np.uint8],
    embeddings: Embeddings | Sequence[Embeddings],
    norm: NDArray[np.float32],
    view_ok: NDArray[np.bool_],
) -> bytes:
    """Build the bytes of a shard; equal rows give equal bytes.

    keys (n, 32), embeddings (n, views, *shape) or their n rows, norm (L2, before the cast) and
    view_ok (n, views), n at least 1.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=LIBVER) as file:
        file.attrs.create("version", _VERSION, dtype="<u4")
        file.attrs.create("format", np.bytes_("archiveprobe shard"))
        parts: tuple[Any, ...] = (keys, embeddings, norm, view_ok)
        for name, rows in zip(Shard._fields, parts, strict=True):
            dataset = create_dataset(file, name, (len(rows), *rows[0].shape), rows[0].dtype)
            # Chunk by chunk, so that rows need not lie in memory a second time.
            step = dataset.chunks[0]
            for start in range(0, len(rows), step):
                dataset[start : start + step] = np.stack(rows[start : start + step])
    return buffer.getvalue()


def create_dataset(
    file: h5py.Group, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> h5py.Dataset:
    """Create a dataset in the form all our files use: chunks of about 1 MiB, Fletcher-32,
    uncompressed (float16 embeddings hardly shrink), no object times."""
    return file.create_dataset(
        name,
        shape,
        dtype,
        chunks=(_chunk_rows(shape, dtype), *shape[1:]),
        fletcher32=True,
        track_times=False,
    )


def _chunk_rows(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    row_bytes = max(1, math.prod(shape[1:]) * dtype.itemsize)
    return max(1, min(shape[0], _CHUNK_BYTES // row_bytes))


@contextlib.contextmanager
def open_checked(
    source: Path | bytes,
    row_shape: tuple[int, ...] | None,
    rows: int | None = None,
    where: Path | str = "shard",
) -> Iterator[h5py.File]:
    """Open an HDF5 file whose structure is that of a shard of rows of `row_shape`.

    `rows` is what the log declares. None in place of either takes what the file says, within its
    size. Whatever HDF5 raises inside the block leaves as ShardError, naming `where` (or the path);
    InputError when the file may not be read.
    """
    if isinstance(source, Path):
        where, size = source, _readable_size(source)
    else:
        size = len(source)
    handle = source if isinstance(source, Path) else io.BytesIO(source)
    try:
        # Shards never change, so HDF5's own locking would only get in a reader's way.
        with h5py.File(handle, "r", locking=False) as file:
            _check_members(file)
            _check_shapes(file, row_shape, rows, size)
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ShardError(str(where), f"damaged or not a shard ({reason})") from error


def size_of(path: Path) -> int | None:
    """Return the bytes of a shard file, None where it is missing.

    Raises ShardError where it is no plain file (a link, for example), InputError where the disk
    does not say.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; check the disk") from error
    if not stat.S_ISREG(status.st_mode):
        raise ShardError(str(path), "not a plain file")
    return status.st_size


def _readable_size(path: Path) -> int:
    size = size_of(path)
    if size is None:
        raise ShardError(str(path), "missing", EMBED_AGAIN)
    # A file that this user may not read is no damaged one, and must not be set aside.
    with files.explained(f"read {path}"), path.open("rb"):
        return size


def _check_members(file: h5py.File) -> None:
    version = h5py.h5a.open(file.id, b"version")
    if version.shape != () or version.dtype != np.dtype("<u4") or file.attrs["version"] != _VERSION:
        raise ValueError(f"its form is not version {_VERSION}")
    members = set(file.id)
    if members != {name.encode() for name in Shard._fields}:
        raise ValueError(f"unexpected members {sorted(members)[:8]!r}"[:200])
    for member in sorted(members):
        if file.id.links.get_info(member).type != h5py.h5l.TYPE_HARD:
            raise ValueError(f"{member.decode()} is a link to elsewhere")
        if not isinstance(h5py.h5o.open(file.id, member), h5py.h5d.DatasetID):
            raise ValueError(f"{member.decode()} is not a dataset")
        _check_storage(file[member])


def _check_storage(dataset: h5py.Dataset) -> None:
    settings = dataset.id.get_create_plist()
    if settings.get_external_count():
        raise ValueError(f"{dataset.name} is stored in another file")
    if settings.get_layout() != h5py.h5d.CHUNKED:
        raise ValueError(f"{dataset.name} is not chunked")
    filters = [settings.get_filter(i)[0] for i in range(settings.get_nfilters())]
    if filters != [h5py.h5z.FILTER_FLETCHER32]:
        raise ValueError(f"{dataset.name} has other filters than a checksum")


def _check_shapes(
    file: h5py.File, row_shape: tuple[int, ...] | None, rows: int | None, size: int
) -> None:
    n, *own_shape = file["embeddings"].shape or (0,)
    n = n if rows is None else rows
    row_shape = tuple(own_shape) if row_shape is None else row_shape
    views = row_shape[:1]
    wanted: dict[str, tuple[tuple[int, ...], Any]] = {
        "key": ((n, KEY_BYTES), np.uint8),
        "embeddings": ((n, *row_shape), np.float16),
        "norm": ((n, *views), np.float32),
        "view_ok": ((n, *views), np.bool_),
    }
    if n < 1:
        raise ValueError("it has no rows")
    for name, (right, dtype) in wanted.items():
        dataset = file[name]
        if dataset.shape != right or dataset.maxshape != right or dataset.dtype != dtype:
            raise ValueError(
                f"{name} is {dataset.dtype}{dataset.shape}, not {np.dtype(dtype)}{right}"
            )
        # Chunks that were never written read as zeros; chunks that share bytes, as a bomb.
        if not dataset.nbytes <= dataset.id.get_storage_size() <= size:
            raise ValueError(f"{name} claims more bytes than the file holds")
        if dataset.chunks != (_chunk_rows(right, dataset.dtype), *right[1:]):
            raise ValueError(f"{name} has foreign chunks")


def read_proved(path: Path, sha256: str) -> bytes:
    """Read the bytes of a shard file that have the log's digest.

    HDF5's checksums tell neither chunks that changed places nor 0xFFFF from 0. Raises ShardError.
    """
    _readable_size(path)
    with files.explained(f"read {path}"):
        data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ShardError(str(path), "its SHA-256 is not the log's")
    return data


def read_keys(path: Path, row_shape: tuple[int, ...], rows: int | None = None) -> list[bytes]:
    """Read the row keys of a shard, in order. Raises ShardError."""
    with open_checked(path, row_shape, rows) as file:
        return [key.tobytes() for key in file["key"][...]]


def find_rows(file: h5py.File, keys: NDArray[np.bytes_]) -> NDArray[np.intp]:
    """Return the rows of `keys` (m,), of 32 bytes each, in a shard. Raises KeyError for others."""
    own = np.ascontiguousarray(file["key"][...]).view(keys.dtype)[:, 0]
    order = np.argsort(own, kind="stable")
    at = np.searchsorted(own, keys, sorter=order)
    rows = order[np.minimum(at, len(order) - 1)]
    if not (own[rows] == keys).all():
        raise KeyError("it lacks a key that the index names: remove the folder index beside it")
    return rows


def read(
    source: Path | bytes,
    row_shape: tuple[int, ...] | None,
    rows: int | None = None,
    where: Path | str = "shard",
) -> Shard:
    """Read all of a shard, every checksum checked. Raises ShardError."""
    with open_checked(source, row_shape, rows, where) as file:
        return Shard(**{name: file[name][...] for name in Shard._fields})


def fault(shard: Shard) -> str | None:
    """Return what is wrong with the rows of a shard that reads well; None when nothing is."""
    if not shard.view_ok.all():
        return "a view is marked as not ok"
    if len(np.unique(shard.key, axis=0)) != len(shard.key):
        return "a key occurs twice"
    step = _chunk_rows(shard.embeddings.shape, shard.embeddings.dtype)
    starts = range(0, len(shard.key), step)
    # Block by block, since norms are computed in numbers of four times the size.
    faults = (_fault(shard.embeddings[at : at + step], shard.norm[at : at + step]) for at in starts)
    return next((reason for reason in faults if reason), None)


def _fault(embeddings: Embeddings, norms: NDArray[np.float32]) -> str | None:
    if not np.isfinite(embeddings).all():
        return "an embedding is not finite"
    norm = row_norms(embeddings)
    width = math.prod(embeddings.shape[2:])
    # Half a unit in the last place of float16, for normal and for subnormal values, doubled.
    tolerance = 2.0**-10 * norm + 2.0**-24 * math.sqrt(width)
    if not (np.abs(norm - norms) <= tolerance).all():
        return "a norm does not agree with its embedding"
    if not (norm > 0).all():
        return "an embedding is zero"
    return None


def row_norms(embeddings: NDArray[Any]) -> NDArray[np.float32]:
    """Compute L2 norms over all axes behind the first two: (n, views, *shape) -> (n, views)."""
    exact = embeddings.reshape(*embeddings.shape[:2], -1).astype(np.float64)
    return np.asarray(np.sqrt(np.vecdot(exact, exact)), np.float32)
