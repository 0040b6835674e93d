"""The end of a folder of answers: its many small parts become few large ones, in one step.

The large parts and their log are written into a folder beside the small ones. When all is on disk
the two folders change places by two renames, and the small parts are removed. Killed at any moment,
the folder holds the small parts or the large ones, never some of both; `mend_merge` tells by the
names that are there how far it came.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from archiveprobe.base import files
from archiveprobe.base.lock import Lock
from archiveprobe.base.progress import Progress, silent
from archiveprobe.predict.answers import log
from archiveprobe.predict.answers.folder import WHAT
from archiveprobe.predict.answers.layout import MERGED, PARTS, REPLACED
from archiveprobe.predict.answers.log import Part, finished_parts
from archiveprobe.predict.answers.part import part_name, part_schema, part_writer
from archiveprobe.predict.answers.read import DamagedPartError, read_rows

if TYPE_CHECKING:
    import pyarrow

PART_ROWS, PART_BYTES = 1_000_000, 256_000_000
_GROUP_ROWS = 65_536


def merge(
    folder: Path,
    classes: tuple[str, ...],
    *,
    part_rows: int = PART_ROWS,
    part_bytes: int = PART_BYTES,
    progress: Progress = silent,
) -> list[Part]:
    """Merge the parts of a folder in which every unit is done; needs its lock.

    Every part is proved on the way. Returns those that are damaged: where there are any nothing is
    merged, and they and their lines are removed.

    Raises:
        InputError: the disk refuses; the small parts are there as before.
    """
    groups = list(_groups(finished_parts(folder), part_rows, part_bytes))
    merged = folder / MERGED
    with files.explained(f"merge the parts of {folder}"):
        files.remove_files(merged)
        damaged: list[Part] = []
        lines = []
        is_due = any(len(group) > 1 for group in groups)
        with progress("parts merged" if is_due else "parts read", sum(map(len, groups))) as advance:
            for group in groups:
                tables = _proved(folder / PARTS, group, damaged, advance)
                if is_due:
                    lines.append(_write(merged, group, classes, tables))
                else:
                    deque(tables, maxlen=0)
        if damaged or not is_due:
            files.remove_files(merged)
            _drop(folder / PARTS, damaged)
            return damaged
        files.write_whole(merged / log.log_name(None), b"".join(map(log.format_part, lines)))
        files.move_durable(folder / PARTS, folder / REPLACED)
        _finish(folder)
    return []


def mend_merge(folder: Path) -> None:
    """Bring an interrupted merge to its end, or undo it. Raises InputError."""
    if (folder / MERGED).exists() or (folder / REPLACED).exists():
        with Lock(folder, WHAT), files.explained(f"merge the parts of {folder}"):
            _finish(folder)


def _finish(folder: Path) -> None:
    """Do what is left of a merge after its parts are on disk, or undo it before."""
    # Only when all large parts were on disk did the small ones leave their place.
    if (folder / REPLACED).exists() and not (folder / PARTS).exists():
        files.move_durable(folder / MERGED, folder / PARTS)
    files.remove_files(folder / MERGED)
    files.remove_files(folder / REPLACED)


def _groups(parts: Sequence[Part], rows: int, size: int) -> Iterator[list[Part]]:
    """Cut parts into runs that make one large part each."""
    group: list[Part] = []
    left_rows, left_bytes = rows, size
    for part in parts:
        if group and (part.rows > left_rows or part.bytes > left_bytes):
            yield group
            group, left_rows, left_bytes = [], rows, size
        group.append(part)
        left_rows, left_bytes = left_rows - part.rows, left_bytes - part.bytes
    if group:
        yield group


def _write(
    merged: Path,
    group: Sequence[Part],
    classes: tuple[str, ...],
    tables: Iterator["pyarrow.Table"],
) -> Part:
    """Write one large part, durable on return. Raises OSError."""
    first, units = group[0].unit, sum(part.units for part in group)
    path = merged / part_name(first, units)
    files.make_folder(merged)
    schema = part_schema(classes)
    with files.replacing(path) as temporary, files.HashedFile(temporary) as out:
        with part_writer(out, schema) as writer:
            for table in _gathered(tables):
                writer.write_table(table)
        rows = sum(part.rows for part in group)
        return Part(first, units, path.name, rows, out.size, out.sha256)


def _proved(
    parts: Path, group: Sequence[Part], damaged: list[Part], advance: Callable[[], None]
) -> Iterator["pyarrow.Table"]:
    """Yield the rows of parts; those that do not prove themselves are added to `damaged`."""
    for part in group:
        try:
            yield from read_rows(parts / part.file, part)
        except DamagedPartError:
            damaged.append(part)
        advance()


def _gathered(tables: Iterator["pyarrow.Table"]) -> Iterator["pyarrow.Table"]:
    """Join small tables to ones of a row group's size."""
    import pyarrow as pa

    waiting: list[pyarrow.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += len(table)
        if count >= _GROUP_ROWS:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, count = [], 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def _drop(parts: Path, damaged: Sequence[Part]) -> None:
    """Remove parts and what the logs say of their units. Raises OSError."""
    units = {part.unit for part in damaged}
    for path, read in log.read_logs(parts):
        kept = [part for part in read.parts if part.unit not in units]
        if len(kept) < len(read.parts):
            files.write_whole(path, b"".join(map(log.format_part, kept)))
    for part in damaged:
        files.remove(parts / part.file)
