"""Reading a folder of answers, finished or not: every part is proved before its rows are given."""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import digest_of, read_ordinary
from archiveprobe.predict.answers.layout import PARTS, REPLACED
from archiveprobe.predict.answers.log import Part, finished_parts
from archiveprobe.predict.answers.part import LARGEST_PART
from archiveprobe.predict.answers.record import AnswersRecord, Counts

if TYPE_CHECKING:
    import pyarrow

# Above this a part is proved first, and then read group by group.
_AT_ONCE = 1 << 24


class DamagedPartError(Exception):
    """A part is missing, or is not what its line says; `part` is that line."""

    def __init__(self, part: Part, reason: str) -> None:
        super().__init__(f"{part.file} {reason}")
        self.part = part


def open_record(folder: Path) -> AnswersRecord:
    """Read what a folder of answers is about.

    Raises:
        InputError: it is none, or its record is damaged.
    """
    record = AnswersRecord.read(folder)
    if record is None:
        raise InputError(f"{folder} is no folder of answers: name one that `predict` wrote")
    return record


def iterate_parts(folder: Path, columns: Sequence[str] | None = None) -> Iterator["pyarrow.Table"]:
    """Yield the answers of a folder, finished or not, in the order of its list of images.

    Each table holds the rows of a part, or some 65,000 of a large one, with `columns` or all:
    id, digest, status, label, `p_<label>`, spread, backbone, system.

    Raises:
        InputError: it is no folder of answers, or a part is missing or damaged.
    """
    open_record(folder)
    if (folder / REPLACED).exists() and not (folder / PARTS).exists():
        raise InputError(
            f"the parts of {folder} are just being merged: wait for the run that does it, or run "
            "its command again where it was killed"
        )
    for part in finished_parts(folder):
        try:
            yield from read_rows(folder / PARTS / part.file, part, columns)
        except DamagedPartError as error:
            raise InputError(
                f"{folder / PARTS}: {error}: run the command that wrote it again, which answers "
                "what is lost"
            ) from None


def read_rows(
    path: Path, part: Part, columns: Sequence[str] | None = None
) -> Iterator["pyarrow.Table"]:
    """Yield the rows of a part that is proved by its SHA-256 first.

    Raises:
        DamagedPartError: it is missing, or not what its line says.
    """
    import pyarrow.parquet as pq

    source: Path | io.BytesIO = path
    try:
        if part.bytes <= _AT_ONCE:
            data = read_ordinary(path, LARGEST_PART)
            digest, source = hashlib.sha256(data).hexdigest(), io.BytesIO(data)
        else:
            digest = digest_of(path, LARGEST_PART)
    except OSError as error:
        raise DamagedPartError(part, error.strerror or "cannot be read") from None
    if digest != part.sha256:
        raise DamagedPartError(part, "has changed since it was written")
    with pq.ParquetFile(source) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group, columns=columns)


def count_answers(folder: Path) -> Counts:
    """Count the answers of a folder by status and by label. Raises InputError."""
    status, labels = Counter[str](), Counter[str]()
    for table in iterate_parts(folder, ["status", "label"]):
        for name, counts in (("status", status), ("label", labels)):
            found = table[name].drop_null().value_counts().to_pylist()
            counts.update({entry["values"]: entry["counts"] for entry in found})
    names = open_record(folder).classes
    return Counts(dict(status.most_common()), {name: labels[name] for name in names})
