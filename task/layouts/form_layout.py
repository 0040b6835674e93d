"""How a form to hand in fits what a folder holds: whose ids it has, and whose rows it lists."""

import os
from collections.abc import Sequence
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of, quote_few
from archiveprobe.task.config import Images, Task
from archiveprobe.task.layouts.table_layout import Listing, try_listing
from archiveprobe.task.row_ids import find_id_column, find_rows
from archiveprobe.task.rows import read_rows
from archiveprobe.task.tables.table import Table, read_table


def use_form(
    folder: Path, images: Images, labels: Sequence[str], file: Path, files: Sequence[str]
) -> tuple[Images | None, str]:
    """Find what a task's images are with a form as its template, and what to say of it.

    Its rows are to be predicted where no table has them. None where its ids are not those of rows.
    """
    name = Path(os.path.relpath(file.resolve(), folder)).as_posix()
    names = images.table or ()
    names = (names,) if isinstance(names, str) else names
    try:
        form = read_table(file)
        tables = [read_table(folder / other) for other in names]
    except InputError as error:
        return None, f"not used: {error}"
    if name in names:
        return images, f"{name}: the form to hand in"
    column = _shared_ids(form, tables, images.id)
    said = f"{name}: the form to hand in, {number_of(len(form.rows), 'row')}"
    said += "" if column is None else _unknown_ids(form, tables, column)
    if column == images.id:
        return images, said
    if column is not None:
        images = images.model_copy(update={"id": column, "path": images.id})
        return images, f"{said}; its {column!r} are the ids"
    try:
        how = _rows_of_form(folder, images, labels, form)
    except InputError as error:
        return None, f"not used: {error}"
    if how is not None:
        return images, "; ".join([said, *how])
    listing = try_listing(folder, file, files)
    if names and listing and listing.column == images.id and not _any_shared(listing, tables):
        images = images.model_copy(update={"table": (*names, name)})
        rows = "its rows, which no other table has, are to be predicted"
        return images, f"{said}; {rows}"
    return None, f"not used: {name}, whose ids are not those of the rows"


def _shared_ids(form: Table, tables: Sequence[Table], id_column: str) -> str | None:
    """Return the column of the tables with most of the ids that a form asks for, or None."""
    for column in (id_column, *form.columns):
        asked, values = _asked(form, column), _values(tables, column)
        if 2 * len(asked & {*values}) > len(asked) and len(set(values)) == len(values):
            return column
    return None


def _asked(form: Table, column: str) -> set[str]:
    return {row[column] for row in form.rows} if column in form.columns else set()


def _values(tables: Sequence[Table], column: str) -> list[str]:
    return [row[column] for table in tables if column in table.columns for row in table.rows]


def _unknown_ids(form: Table, tables: Sequence[Table], column: str) -> str:
    """Say how many ids of a form no table has: `submit` will refuse them."""
    unknown = sorted(_asked(form, column) - {*_values(tables, column)})
    if not unknown:
        return ""
    count = number_of(len(form.rows), "id")
    return (
        f"; {len(unknown)} of its {count} are in no table ({quote_few(unknown)}): add those rows, "
        "or submit will refuse"
    )


def _rows_of_form(
    folder: Path, images: Images, labels: Sequence[str], form: Table
) -> list[str] | None:
    """Say how the ids of a form name rows to predict; None where most name none.

    Raises:
        InputError: two of its columns name different rows.
    """
    task = Task(file=folder / "task.toml", name="init", labels=tuple(labels), images=images)
    try:
        rows = {row.id: row for row in read_rows(task)}
    except InputError:
        return None  # as `init` will say
    asked = {id_ for id_, row in rows.items() if row.label is None}
    column = find_id_column(task, form, rows) if asked else None
    if column is None:
        return None
    ids = [cells[column] for cells in form.rows]
    found = find_rows(task.root, ids, rows)
    lost = [id_ for id_ in ids if found.rows.get(id_) not in asked]
    if 2 * (len(ids) - len(lost) + len(found.doubts)) <= len(ids):
        return None
    said = found.remarks(form.file, len(ids))
    if lost:
        count = number_of(len(ids), "id")
        said.append(
            f"{len(lost)} of its {count} name no row to predict for certain ({quote_few(lost)}): "
            "submit will refuse"
        )
    return said


def _any_shared(listing: Listing, tables: Sequence[Table]) -> bool:
    asked = set(listing.paths())
    return any(row[listing.column] in asked for table in tables for row in table.rows)
