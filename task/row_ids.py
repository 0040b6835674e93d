"""Which rows the ids of another table mean: of a form to hand in, of answers, of known labels.

An id that a row bears letter by letter means that row. Organisers often leave out the folder or the
extension: such an id means a row to predict by the rules by which an id of a table means a file.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of, quote_few
from archiveprobe.task.config import Task, nearest
from archiveprobe.task.match_files import AMBIGUOUS, count_differences, match_some
from archiveprobe.task.rows import Row
from archiveprobe.task.tables.table import Table

# Rows of a table that are looked at to tell whether a column holds ids.
_LOOKED_AT = 200


@dataclass(frozen=True)
class RowIds:
    """The rows that ids of a table mean.

    `rows` has the row's own id for each of them, `doubts` says why others mean none for certain;
    `names` are the pairs of a written id and of what it means, where the two differ.
    """

    rows: Mapping[str, str]
    doubts: Mapping[str, str]
    names: tuple[tuple[str, str], ...] = ()

    def remarks(self, file: Path, count: int) -> list[str]:
        """Say how many of a file's ids (`count`) differ from those of the rows, and in what."""
        if not self.names:
            return []
        how = count_differences(self.names)
        ids = number_of(count, "id")
        return [f"{len(self.names)} of {ids} of {file.name} name their row in another way: {how}"]

    def refuse_doubts(self, task: Task, file: Path) -> None:
        """Raise an InputError where an id may mean several rows, or several ids one row."""
        for first, why in self.doubts.items():
            raise InputError(
                f"{file}: {number_of(len(self.doubts), 'id')} of no certain row, the first is "
                f"{first!r}: {why}: write the ids as they are in {task.place}"
            )


def find_rows(root: Path, ids: Collection[str], rows: Mapping[str, Row]) -> RowIds:
    """Find the rows that ids mean: exactly, or else rows to predict, by their ids and their paths.

    Where no row of `rows` is to be predicted, all of them may be meant.
    """
    found = {id_: id_ for id_ in ids if id_ in rows}
    asked = [row for row in rows.values() if _is_asked(row)] or list(rows.values())
    counts = Counter(row.path for row in asked)
    by_path = {row.path: row.id for row in asked if counts[row.path] == 1}
    doubts: dict[str, str] = {}
    names: list[tuple[str, str]] = []
    for own in ({row.id: row.id for row in asked}, by_path):
        left = [id_ for id_ in ids if id_ not in found and id_ not in doubts]
        if not left:
            break
        known = set(found.values())
        taken = [name for name, id_ in own.items() if id_ in known]
        for id_, match in match_some(root, left, [*own], taken).items():
            if match.path is not None:
                found[id_] = own[match.path]
                names.append((id_, match.path))
            elif match.detail.startswith(AMBIGUOUS):
                doubts[id_] = match.detail.removeprefix(AMBIGUOUS)
    return RowIds(found, doubts, tuple(names))


def _is_asked(row: Row) -> bool:
    return row.label is None or row.split == "test"


def resolve_ids(
    task: Task, file: Path, ids: Collection[str], rows: Mapping[str, Row], advice: str
) -> tuple[list[str], list[str]]:
    """Return the rows' own ids for the ids of a file, in order, and what to say of it.

    Raises:
        InputError: an id means no row, or not for certain; `advice` says what to do.
    """
    found = find_rows(task.root, ids, rows)
    found.refuse_doubts(task, file)
    unknown = [id_ for id_ in ids if id_ not in found.rows]
    if unknown:
        raise InputError(
            f"{file}: {len(unknown)} of {len(ids)} ids are not in {task.place}: "
            f"{quote_few(unknown)}{nearest(unknown[0], rows)}: {advice}"
        )
    return [found.rows[id_] for id_ in ids], found.remarks(file, len(ids))


def id_names(task: Task) -> tuple[str, ...]:
    """Return what a column of ids is called."""
    return (task.images.id, task.submission.columns[0])


def find_id_column(task: Task, table: Table, rows: Mapping[str, Row]) -> str | None:
    """Find the column whose cells are ids of rows; where none has one, by its name.

    Raises:
        InputError: two columns name different rows, neither of them as the task does.
    """
    named = [name for name in dict.fromkeys(id_names(task)) if name in table.columns]
    order = [*named, *(column for column in table.columns if column not in named)]
    exact = {column: len({cells[column] for cells in table.rows} & rows.keys()) for column in order}
    if 2 * max(exact.values()) <= len(table.rows):
        near = {column: ids for column in order if (ids := _most_rows(task, table, column, rows))}
        if near:
            return _best(task, table, near, named)
    best = max(order, key=lambda column: (bool(exact[column]) and column in named, exact[column]))
    return best if exact[best] or named else None


def _most_rows(
    task: Task, table: Table, column: str, rows: Mapping[str, Row]
) -> list[str | None] | None:
    """Return the rows that the first cells of a column mean; None where most mean none."""
    cells = [line[column] for line in table.rows[:_LOOKED_AT]]
    found = find_rows(task.root, dict.fromkeys(cells), rows)
    hits = len({*found.rows.values()}) + len(found.doubts)
    return [found.rows.get(cell) for cell in cells] if 2 * hits > len(cells) else None


def _best(
    task: Task, table: Table, near: Mapping[str, list[str | None]], named: Collection[str]
) -> str:
    """Choose a column named like one of ids, else the one of most rows if none contradicts it."""
    best = next((column for column in near if column in named), None)
    if best is not None:
        return best
    first, *others = sorted(near, key=lambda column: near[column].count(None))
    for other in others:
        pairs = zip(near[first], near[other], strict=True)
        if any(a and b and a != b for a, b in pairs):
            raise InputError(
                f"{table.file}: the columns {first!r} and {other!r} both seem to hold ids, but of "
                f"different rows: name the right one first in submission.columns of {task.file}"
            )
    return first
