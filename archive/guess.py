"""What a table means: which column holds paths or bytes of images, and where paths begin."""

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from archiveprobe.archive.parquet_bytes import read_row
from archiveprobe.archive.references import UnreadableError
from archiveprobe.archive.rows import LIST_COLUMN, Rows
from archiveprobe.archive.store import STORES, protocol_of
from archiveprobe.archive.table import TableSource, require
from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.base.wording import clipped, first_few
from archiveprobe.task.file_kind import may_be_image
from archiveprobe.task.find_images import has_image_extension, printable

_LOOKED_AT, _BYTES_LOOKED_AT = 200, 8
_PATHS = (
    "path file_name filename file filepath file_path image_path image img image_file img_path url "
    "uri".split()
)
_IDS = "id image_id key __key__ file_name filename path name".split()


def table_source(
    text: str,
    place: str,
    rows: Rows,
    *,
    path_column: str | None,
    bytes_column: str | None,
    id_column: str | None,
    notify: Notify,
) -> TableSource:
    """Make the source of a table, whose columns are guessed where they are not given.

    Raises:
        InputError: no column, or several, may hold images, or not one of the first paths is there.
    """
    for column in filter(None, (path_column, bytes_column, id_column)):
        require(rows, column)
    if path_column and bytes_column:
        raise InputError("images are named by paths or held as bytes: name one of the two columns")
    held = bytes_column or (None if path_column else _bytes_column(rows))
    if held:
        if held not in rows.binary:
            raise InputError(
                f"{printable(place)}: the column {held!r} holds no bytes: name another"
            )
        ids = id_column or _id_column(rows, held)
        said = f"ids from {ids!r}" if ids else "ids are the numbers of the rows"
        notify(f"{printable(text)}: {rows.form}, images from the column {held!r}, {said}")
        return TableSource(text, place, _folder(place), None, held, ids)
    column = path_column or _path_column(rows)
    base = _base(rows, column, place, notify)
    if rows.columns == (LIST_COLUMN,):
        notify(f"{printable(text)}: {rows.form}")
    else:
        notify(f"{printable(text)}: {rows.form}, paths from the column {column!r}")
    return TableSource(text, place, base, column, None, id_column)


def _only(rows: Rows, columns: Sequence[str], what: str, option: str) -> str:
    if len(columns) == 1:
        return columns[0]
    listed = first_few(map(repr, columns), 10)
    raise InputError(
        f"{printable(rows.place)}: several columns may hold {what}: {listed}: name one with "
        f"{option}"
    )


def _bytes_column(rows: Rows) -> str | None:
    """Find the column that holds images; None where a column of paths is likelier."""
    likely = [name for name in rows.binary if _holds_images(rows.place, name)]
    if not likely and (not rows.binary or _likely_paths(rows)):
        return None
    return _only(rows, likely or rows.binary, "bytes of images", "--bytes-column")


def _holds_images(place: str, column: str) -> bool:
    for row in range(_BYTES_LOOKED_AT):
        try:
            if may_be_image(read_row(place, column, row)):
                return True
        except (UnreadableError, InputError):
            continue
    return False


def _id_column(rows: Rows, held: str) -> str | None:
    """Find the column that names images held as bytes; numbers of rows serve where none does."""
    names = [*_IDS, f"{held}.path"]
    for name in names:
        if name in rows.columns and name not in rows.binary:
            first = [cell for (cell,) in itertools.islice(rows.read([name]), _LOOKED_AT)]
            if first and None not in first and len({*first}) == len(first):
                return name
    return None


def _path_column(rows: Rows) -> str:
    likely = _likely_paths(rows)
    columns = likely or _scalar(rows)
    named = [name for name in _PATHS if name in columns]
    if len(likely) > 1 and not named:
        return _only(rows, likely, "paths of images", "--path-column")
    if not likely and not named:
        has = first_few(map(clipped, rows.columns), 10)
        raise InputError(
            f"{printable(rows.place)}: no column holds paths of images (it has {has}): name it "
            "with --path-column"
        )
    return (named or likely)[0]


def _scalar(rows: Rows) -> list[str]:
    inner = {f"{name}.path" for name in rows.binary}
    return [name for name in rows.columns if name not in rows.binary and name not in inner]


def _likely_paths(rows: Rows) -> list[str]:
    """Return the columns at least half of whose first cells are like paths of images."""
    columns = _scalar(rows)
    if not columns:
        return []
    first = list(itertools.islice(rows.read(columns), _LOOKED_AT))
    if not first:
        raise InputError(f"{printable(rows.place)} has no row: it needs a path in every row")
    cells = zip(columns, zip(*first, strict=True), strict=True)
    return [name for name, some in cells if 2 * sum(map(_is_like_a_path, some)) >= len(first)]


def _is_like_a_path(cell: Any) -> bool:
    if not isinstance(cell, str):
        return False
    return has_image_extension(cell.rpartition("/")[2]) or protocol_of(cell) in STORES


def _base(rows: Rows, column: str, place: str, notify: Notify) -> str:
    """Find the folder where relative paths begin: the table's, or else the current one."""
    first = [str(cell) for (cell,) in itertools.islice(rows.read([column]), _LOOKED_AT) if cell]
    web = [cell for cell in first if protocol_of(cell) in ("http", "https", "ftp")]
    if 2 * len(web) > len(first):
        raise InputError(
            f"{printable(rows.place)} names addresses of the web, as {clipped(web[0])}: download "
            "the images first, for example with img2dataset"
        )
    local = [cell for cell in first if not protocol_of(cell)]
    folder = _folder(rows.place)
    if protocol_of(place) or not local:
        return folder
    for base in dict.fromkeys((folder, str(Path.cwd()))):
        if any(os.path.lexists(Path(base, path)) for path in local if "\0" not in path):
            if base != folder:
                notify(f"{printable(place)}: paths begin in the current folder, not in its own")
            return base
    raise InputError(
        f"not one of the first {len(local)} paths of {printable(rows.place)} is there, as "
        f"{clipped(local[0])}: write them relative to the table's folder, or whole"
    )


def _folder(place: str) -> str:
    return place.rpartition("/")[0] or "/"
