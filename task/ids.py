"""Ids of a table: every row has one, another one, and one that every file gives back."""

from collections import defaultdict
from collections.abc import Collection, Iterable

from archiveprobe.base.wording import clipped, first_few
from archiveprobe.task.find_images import UNSAFE_IN_IDS
from archiveprobe.task.labels import refuse
from archiveprobe.task.table import Table

# Ids become arrays in which every one takes the room of the longest.
ID_LIMIT = 1024
_SHOWN = 5


def refuse_repeated(table: Table, column: str) -> None:
    """Check that every row has an id, and another one.

    Raises:
        InputError: ids are empty, stand twice or cannot be kept; one line counts them all.
    """
    refuse(table.file, id_faults(table, column))


def id_faults(table: Table, column: str) -> list[str]:
    """Say what is wrong with the ids, a sentence for each kind of fault."""
    rows: dict[str, list[int]] = defaultdict(list)
    for index, cells in enumerate(table.rows):
        rows[cells[column]].append(index)
    empty = sorted(index for value in rows if not value.strip() for index in rows[value])
    long = {value: found for value, found in rows.items() if len(value) > ID_LIMIT}
    unsafe = {value: found for value, found in rows.items() if UNSAFE_IN_IDS.search(value)}
    repeated = {value: found for value, found in rows.items() if len(found) > 1 and value.strip()}
    faults = []
    if empty:
        faults.append(f"{len(empty)} rows have no id (first {table.place(empty[0])}): give every "
                      "row an id")  # fmt: skip
    if long:
        found = (f"{len(value)} ({table.place(at[0])})" for value, at in long.items())
        faults.append(
            f"{len(long)} ids have more than {ID_LIMIT} characters: {first_few(found, _SHOWN)}: "
            "shorten them, or correct the quotes around them"
        )
    if unsafe:
        faults.append(
            f"{len(unsafe)} ids hold a NUL or a lone carriage return, which no CSV gives back: "
            f"{_listed(table, unsafe.items())}: take it out"
        )
    if repeated:
        faults.append(
            f"{len(repeated)} ids stand more than once: {_listed(table, repeated.items())}: keep "
            "one row of each"
        )
    return faults


def unknown_ids(table: Table, column: str, known: Collection[str]) -> list[str]:
    """Say which ids of a table are none of the task's rows."""
    lost = [index for index, cells in enumerate(table.rows) if cells[column] not in known]
    if not lost:
        return []
    listed = (f"{clipped(table.rows[at][column])} ({table.place(at)})" for at in lost)
    return [f"no row has the id of {len(lost)} rows: {first_few(listed, _SHOWN)}: correct or "
            "remove them"]  # fmt: skip


def _listed(table: Table, found: Iterable[tuple[str, list[int]]]) -> str:
    """List ids with the first two places of each."""
    return first_few(
        (f"{clipped(value)} ({', '.join(map(table.place, at[:2]))})" for value, at in found),
        _SHOWN,
    )
