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
import operator
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import write_whole
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
from archiveprobe.task.tables.table_csv import long_cells, text_stream

_SEAL = "sha256="
_REMEDY = "run `archiveprobe embed`, which looks at every image again and writes it"
DECODER = f"pillow-{'.'.join(version('pillow').split('.')[:2])}/policy-{POLICY['version']}"


def decoder_of(task: Task) -> str:
    """Return the name of what looks at the images of a task: another may see other pixels."""
    return DECODER if task.embed.decode == "exact" else f"{DECODER}/{task.embed.decode}"


@dataclass(frozen=True, slots=True)
class Entry:
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


_OBSERVED = [field.name for field in fields(Observation)]
_DIGEST = re.compile("([0-9a-f]{64})?")
_PHASH = re.compile("([0-9a-f]{16})?")
_COLUMNS = ["id", "path", "digest", *_OBSERVED, "mtime_ns", "inode", "decoder", "written"]
_SEEN = operator.attrgetter(*_OBSERVED)
_UNSEEN = [None] * len(_OBSERVED)
_WHOLE = {"bytes", "width", "height", "frames", "orientation", "exif", "mtime_ns", "inode"}
_REAL = {"border", "red", "green", "blue"}


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
    first, end, rows = content.partition(b"\r\n")
    columns, _, seal = first.rpartition(b",")
    content = columns + end + rows
    digest = sha256(content).hexdigest()
    if seal != f"{_SEAL}{digest}".encode():
        raise InputError(f"{file} is damaged or was edited: {_REMEDY}")
    reader = csv.reader(text_stream(content, errors="surrogateescape"), strict=True)
    try:
        with long_cells():
            header = next(reader, [])
            # Manifests of earlier versions end before `written`.
            if header not in (_COLUMNS, _COLUMNS[:-1]):
                raise ValueError("not its header")
            lacking = [""] * (len(_COLUMNS) - len(header))
            return [_parse(cells + lacking, decoder) for cells in reader if cells], digest
    except (csv.Error, ValueError) as error:
        raise InputError(
            f"{file} line {reader.line_num} cannot be read ({error}): {_REMEDY}"
        ) from None


def write_manifest(task: Task, entries: Iterable[Entry], file: Path | None = None) -> str:
    """Write the manifest in one step, by default that of all rows; the digest of its content."""
    name = decoder_of(task)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(_COLUMNS)
    for entry in entries:
        # None comes out as an empty cell.
        seen, by = (_SEEN(entry.observed), name) if entry.observed else (_UNSEEN, "")
        cells = [entry.id, entry.path, entry.digest, *seen, entry.mtime_ns, entry.inode, by]
        writer.writerow([*cells, entry.written])
    plain = out.getvalue().encode("utf-8", "surrogateescape")
    seal = sha256(plain).hexdigest()
    columns, end, rows = plain.partition(b"\r\n")
    content = b"".join([columns, f",{_SEAL}{seal}".encode(), end, rows])
    write_whole(manifest_file(task) if file is None else file, content)
    return seal


def _number(text: str) -> float | None:
    value = float(text) if text else None
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{text!r} measures nothing")
    return value


_READ = {name: lambda text: int(text) if text else None for name in _WHOLE}
_READ_CELL = [_READ.get(name, _number if name in _REAL else str) for name in _COLUMNS]


def _parse(cells: list[str], wanted: str | None) -> Entry:
    if len(cells) != len(_COLUMNS):
        raise ValueError("cells too many or too few")
    values: list[Any] = [read(text) for read, text in zip(_READ_CELL, cells, strict=True)]
    id_, path, key, *seen, mtime_ns, inode, decoder, written = values
    status = sys.intern(seen[0])
    if status and status != "ok" and status not in FLAGS and status not in REJECTIONS:
        raise ValueError(f"unknown status {status!r}")
    if not _DIGEST.fullmatch(key) or not _PHASH.fullmatch(seen[-1]):
        raise ValueError("no digest")
    known = bool(status) and wanted in (None, decoder)
    observed = Observation(status, *seen[1:]) if known else None
    return Entry(id_, path, key, observed, mtime_ns, inode, written)


def with_found_paths(rows: Sequence[Row], entries: Sequence[Entry]) -> list[Row]:
    """Return the rows with the paths of the files that were found for what their table writes."""
    return [
        replace(row, path=entry.path)
        if entry.written and entry.written == printable(row.path)
        else row
        for row, entry in zip(rows, entries, strict=True)
    ]


def with_observations(entries: Iterable[Entry], observed: Mapping[str, Observation]) -> list[Entry]:
    """Update entries with new observations, by digest."""
    return [
        replace(entry, observed=observed[entry.digest]) if entry.digest in observed else entry
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
