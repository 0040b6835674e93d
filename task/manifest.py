"""work/manifest.csv: one line per row of the task, and what the decode saw of its image.

The last name of its header holds the SHA-256 of everything else in the file, which is compared
before anything is read: a plain table for people and notebooks that proves itself all the same.

Observations depend on a file's bytes only, so they are carried over by digest when names change.
Where a table writes a path in another way than the file's, the manifest has both: whoever reads it
without the images knows which file was meant.
Size, mtime and inode are kept as a hint that a file's digest is still the one recorded: see `scan`.
"""

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import write_whole
from archiveprobe.base.memory import collector_paused
from archiveprobe.base.reading import PRODUCT_BYTES, read_product
from archiveprobe.task.config import Task
from archiveprobe.task.decoding import (
    FLAGS,
    POLICY,
    REJECTIONS,
    Observation,
)
from archiveprobe.task.find_images import printable
from archiveprobe.task.rows import Row

_SEAL = "sha256="
_REMEDY = "run `archiveprobe embed`, which looks at every image again and writes it"
DECODER = f"pillow-{'.'.join(version('pillow').split('.')[:2])}/policy-{POLICY['version']}"


def decoder_of(task: Task) -> str:
    """Return the name of what looks at the images of a task: another may see other pixels."""
    return DECODER if task.embed.decode == "exact" else f"{DECODER}/{task.embed.decode}"


class Entry(NamedTuple):
    """A row's image: where it lies, the digest of its bytes, and what was observed.

    `written` is the path as the table has it, empty where that is `path`. `digest` is empty where
    no bytes could be read; `observed` is None before the first decode.
    """

    id: str
    path: str
    digest: str = ""
    observed: Observation | None = None
    mtime_ns: int | None = None
    inode: int | None = None
    written: str = ""

    @property
    def status(self) -> str:
        """Return the status, or `new` for an image that was never decoded."""
        return self.observed.status if self.observed else "new"

    @property
    def usable(self) -> bool:
        """Return whether the image was decoded and can have an embedding."""
        return self.observed is not None and self.observed.usable


_OBSERVED = [*Observation._fields]
_STATUSES = {"", "ok", *FLAGS, *REJECTIONS}
# Of Arrow, where $ is the very end.
_DIGESTS = {"digest": "^([0-9a-f]{64})?$", "phash": "^([0-9a-f]{16})?$"}
_COLUMNS = ["id", "path", "digest", *_OBSERVED, "mtime_ns", "inode", "decoder", "written"]
_UNSEEN = (None,) * len(_OBSERVED)
_WHOLE = {"bytes", "width", "height", "frames", "orientation", "exif", "mtime_ns", "inode"}
_REAL = {"border", "red", "green", "blue"}
# Lines that are read at a time, in bytes; one line is never longer.
_BLOCK = 1 << 24
_FEW_WORDS = {"status", "detail", "format", "decoder", "written"}


def manifest_file(task: Task) -> Path:
    """Return where the manifest of a task lies."""
    return task.work / "manifest.csv"


def read_manifest(task: Task) -> list[Entry]:
    """Read the manifest; empty where there is none.

    Raises:
        InputError: the file is not as it was written.
    """
    return read_manifest_with_digest(task)[0]


def read_manifest_with_digest(
    task: Task, *, decoder: str | None = None, file: Path | None = None
) -> tuple[list[Entry], str]:
    """Read the manifest, and the digest of its content; an empty list and "" where there is none.

    With `decoder` only what that decoder has seen counts, since another may see another image.
    `file` is where it lies, by default that of all rows.

    Raises:
        InputError: the file is not as it was written.
    """
    file = manifest_file(task) if file is None else file
    content = read_product(file, PRODUCT_BYTES, _REMEDY)
    if content is None:
        return [], ""
    first = content[: content.find(b"\r\n")]
    columns, _, seal = first.rpartition(b",")
    # What follows is most of the file: it is looked at, and not copied.
    rest = memoryview(content)[len(first) :]
    hashed = sha256(columns)
    hashed.update(rest)
    digest = hashed.hexdigest()
    if seal != f"{_SEAL}{digest}".encode():
        raise InputError(f"{file} is damaged or was edited: {_REMEDY}")
    try:
        with collector_paused():
            return _entries(columns.decode().split(","), rest[2:], decoder), digest
    except ValueError as error:
        raise InputError(f"{file} cannot be read ({error}): {_REMEDY}") from None


def write_manifest(task: Task, entries: Iterable[Entry], file: Path | None = None) -> str:
    """Write the manifest in one step, by default that of all rows; the digest of its content."""
    name = decoder_of(task)
    # StringIO would take four bytes for every character.
    content = io.BytesIO()
    out = io.TextIOWrapper(content, "utf-8", "surrogateescape", newline="")
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    # None comes out as an empty cell.
    writer.writerows(_cells(entry, name) for entry in entries)
    out.flush()
    with content.getbuffer() as plain:
        seal = sha256(plain).hexdigest()
        columns = len(",".join(_COLUMNS))
        whole = b"".join([plain[:columns], f",{_SEAL}{seal}".encode(), plain[columns:]])
    del out, content
    write_whole(manifest_file(task) if file is None else file, whole)
    return seal


def _cells(entry: Entry, name: str) -> tuple[Any, ...]:
    """Return what stands in the line of an entry whose observations a decoder `name` has made."""
    seen, decoder = (entry.observed, name) if entry.observed else (_UNSEEN, "")
    head, times = (entry.id, entry.path, entry.digest), (entry.mtime_ns, entry.inode)
    return (*head, *seen, *times, decoder, entry.written)


def _entries(names: list[str], lines: memoryview, decoder: str | None) -> list[Entry]:
    """Read the rows of a manifest. Raises ValueError: they are none of this version."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    # Manifests of earlier versions end before `written`.
    if names not in (_COLUMNS, _COLUMNS[:-1]):
        raise ValueError("not its header")
    if not lines:
        return []
    numbers = {name: pa.int64() for name in _WHOLE} | {name: pa.float64() for name in _REAL}
    # An inode may have all 64 bits.
    numbers["inode"] = pa.uint64()
    batches = arrow.open_csv(
        pa.BufferReader(pa.py_buffer(lines)),
        read_options=arrow.ReadOptions(column_names=names, block_size=_BLOCK),
        parse_options=arrow.ParseOptions(newlines_in_values=True),
        convert_options=arrow.ConvertOptions(
            column_types=dict.fromkeys(names, pa.binary()) | numbers,
            null_values=[""],
            strings_can_be_null=False,
        ),
    )
    return [entry for batch in batches for entry in _made(_columns(batch), decoder)]


def _columns(batch: Any) -> dict[str, list[Any]]:
    """Return the values of some rows by column. Raises ValueError."""
    columns: dict[str, list[Any]] = {"written": [""] * len(batch)}
    for name, cells in zip(batch.schema.names, batch.columns, strict=True):
        # Not by numpy: Arrow would import pandas first, which takes longer than most manifests.
        if name in _WHOLE | _REAL:
            columns[name] = cells.to_pylist()
        elif name in _FEW_WORDS:
            coded = cells.dictionary_encode()
            # One object for each word, since most are equal.
            words = _texts(coded.dictionary)
            columns[name] = list(map(words.__getitem__, coded.indices.to_pylist()))
        else:
            columns[name] = _texts(cells)
        _check(name, cells, columns[name])
    return columns


def _check(name: str, cells: Any, values: list[Any]) -> None:
    """Check what other code relies on. Raises ValueError."""
    import pyarrow.compute as pc

    if name == "status" and (unknown := set(values) - _STATUSES):
        raise ValueError(f"unknown status {unknown.pop()!r}")
    form = _DIGESTS.get(name)
    if form and pc.any(pc.invert(pc.match_substring_regex(cells, form))).as_py():
        raise ValueError("no digest")
    if name in _REAL and not all(map(math.isfinite, filter(None, values))):
        raise ValueError(f"a {name} measures nothing")


def _texts(cells: Any) -> list[str]:
    """Return texts; bytes that are no UTF-8, in names that are none, as Python keeps them."""
    import pyarrow as pa

    try:
        texts: list[str] = cells.cast(pa.string()).to_pylist()
    except pa.ArrowInvalid:
        return [cell.decode("utf-8", "surrogateescape") for cell in cells.to_pylist()]
    return texts


def _made(columns: Mapping[str, list[Any]], wanted: str | None) -> Iterator[Entry]:
    cells = zip(*(columns[name] for name in _OBSERVED), strict=True)
    observed = map(Observation._make, cells)
    others = ("id", "path", "digest", "mtime_ns", "inode", "written", "decoder")
    rows = zip(*(columns[name] for name in others), observed, strict=True)
    for id_, path, digest, mtime_ns, inode, written, decoder, seen in rows:
        known = seen if seen.status and wanted in (None, decoder) else None
        # One object where both are the same.
        path = id_ if path == id_ else path
        yield Entry(id_, path, digest, known, mtime_ns, inode, written)


def with_found_paths(rows: Sequence[Row], entries: Sequence[Entry]) -> list[Row]:
    """Return the rows with the paths of the files that were found for what their table writes."""
    return [
        row._replace(path=entry.path)
        if entry.written and entry.written == printable(row.path)
        else row
        for row, entry in zip(rows, entries, strict=True)
    ]


def with_observations(entries: Iterable[Entry], observed: Mapping[str, Observation]) -> list[Entry]:
    """Update entries with new observations, by digest."""
    return [
        entry._replace(observed=observed[entry.digest]) if entry.digest in observed else entry
        for entry in entries
    ]


def paths_by_digest(rows: Iterable[Row], entries: Iterable[Entry]) -> dict[str, str]:
    """Return one path per distinct image, as the file system knows it, in the order of the rows.

    An entry's own path is for reading: bytes of a name that are not UTF-8 are escaped in it.
    """
    paths: dict[str, str] = {}
    for row, entry in zip(rows, entries, strict=True):
        if entry.digest:
            paths.setdefault(entry.digest, row.path)
    return paths
