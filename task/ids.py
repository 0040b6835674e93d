"""Ids of a table: every row has one, another one, and one that every file gives back."""

from collections.abc import Collection, Iterable

from archiveprobe.base.wording import clipped, first_few, number_of
from archiveprobe.task.find_images import UNSAFE_IN_IDS
from archiveprobe.task.labels import refuse
from archiveprobe.task.tables.table import Table

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
    first: dict[str, int] = {}
    again: dict[str, int] = {}
    empty: list[int] = []
    for index, cells in enumerate(table.rows):
        value = cells[column]
        if not value.strip():
            empty.append(index)
        elif first.setdefault(value, index) != index:
            again.setdefault(value, index)
    long = [(f"{len(value)}", [at]) for value, at in first.items() if len(value) > ID_LIMIT]
    unsafe = [(clipped(value), [at]) for value, at in first.items() if UNSAFE_IN_IDS.search(value)]
    faults = []
    if empty:
        where = table.place(empty[0])
        faults.append(
            f"{number_of(len(empty), 'row')} without an id (first {where}): give every row one"
        )
    if long:
        faults.append(
            f"{number_of(len(long), 'id')} of more than {ID_LIMIT} characters: "
            f"{_listed(table, long)}: shorten them, or correct the quotes around them"
        )
    if unsafe:
        faults.append(
            f"{number_of(len(unsafe), 'id')} with a NUL or a lone carriage return, which no CSV "
            f"gives back: {_listed(table, unsafe)}: take it out"
        )
    if again:
        twice = ((clipped(value), [first[value], at]) for value, at in again.items())
        faults.append(
            f"{number_of(len(again), 'repeated id')}: {_listed(table, twice)}: keep one row of each"
        )
    return faults


def unknown_ids(table: Table, column: str, known: Collection[str]) -> list[str]:
    """Say which ids of a table are none of the task's rows."""
    lost = [index for index, cells in enumerate(table.rows) if cells[column] not in known]
    if not lost:
        return []
    listed = _listed(table, ((clipped(table.rows[at][column]), [at]) for at in lost))
    return [f"unknown ids in {number_of(len(lost), 'row')}: {listed}: correct or remove them"]


def _listed(table: Table, found: Iterable[tuple[str, list[int]]]) -> str:
    """List ids, each with the places of its rows."""
    return first_few(
        (f"{shown} ({', '.join(map(table.place, rows))})" for shown, rows in found), _SHOWN
    )
