"""A review in a spreadsheet: the queue written as a table, and a table of answers read back."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.base.reading import TABLE_BYTES, read_ordinary
from archiveprobe.base.wording import clipped, number_of
from archiveprobe.predict.tables import Target, answer_target, write_answers
from archiveprobe.review.decisions import BY_FILE, DRAW, QUEUE, SETTLE, TWICE, WITHDRAWAL, Decision
from archiveprobe.review.queue import Item, Queue
from archiveprobe.review.reviewing import Given, Reviewing
from archiveprobe.review.state import IMPORT
from archiveprobe.task.config import Task
from archiveprobe.task.corrections import UNSURE, plain_name
from archiveprobe.task.labels import Words, read_words, refuse
from archiveprobe.task.tables.table import Table, read_table

COLUMNS = ("position", "id", "images", "part", "answer", "reviewer", "image")
_SHOWN = 5


@dataclass(frozen=True)
class Sheet:
    """What was written into a table, or read from it."""

    file: Path
    rows: int
    images: int
    known: int = 0

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return {**asdict(self), "file": str(self.file)}


def export_sheet(
    queue: Queue, reviewer: str, file: Path, *, most: int | None = None, settle: bool = False
) -> Sheet:
    """Write what a reviewer is to look at as a table, in the order of the queue.

    Images on which two others differ are among it, to be settled; with `settle` only those, also
    where the reviewer is one of the two. The columns `answer` and `reviewer` are to be filled in;
    `images` says how many near-duplicates an answer decides, `image` is the SHA-256 of the bytes.
    Nothing is leased.

    Raises:
        InputError: nothing is left, or the file cannot be written.
    """
    name = Reviewing(queue, reviewer).reviewer
    target = sheet_target(queue.review.task, file)
    items = queue.preview(name, most, settle=settle)
    if not items:
        raise InputError(f"{_why_nothing(queue, settle)}: the table would be empty")
    write_answers(target.in_form(None, None, []), COLUMNS, [_cells(item, name) for item in items])
    return Sheet(target.named, len(items), sum(item.images for item in items))


def sheet_target(task: Task, file: Path) -> Target:
    """Return where a table is to be written. Raises InputError: it may not be."""
    target = answer_target(task, file, spreadsheet_safe=False)
    if not file.parent.is_dir():
        raise InputError(f"no folder {file.parent}: make it first, or name another file")
    return target


def _why_nothing(queue: Queue, settle: bool) -> str:
    state = queue.review.state
    if settle:
        return "no two reviewers differ"
    if state.is_stopped and state.open_draw is None and (left := queue.looks_left()):
        goes_on = f"`archiveprobe review {queue.review.named} --resume` goes on"
        return f"reviewing was stopped with {number_of(left, 'look')} left ({goes_on})"
    return "nothing is left to look at"


def _cells(item: Item, reviewer: str) -> list[str]:
    position = "" if item.position is None else str(item.position)
    return [position, item.id, str(item.images), item.part, "", reviewer, item.image]


def import_sheet(
    queue: Queue,
    file: Path,
    *,
    reviewer: str = "",
    replace: bool = False,
    notify: Notify = lambda _: None,
) -> Sheet:
    """Record the answers of a table, all or none of them.

    Needed are the columns `answer` and `image` (or `id`); rows without an answer are passed over.
    With a column `images`, as in an exported table, an answer decides the near-duplicates, too.
    Without a column `reviewer` all answers are those of `reviewer`. Rows of `part` "settle" are the
    last word where two reviewers differ. Answers that are recorded already change nothing; with
    `replace`, other answers of the same reviewer are taken back first.

    Raises:
        InputError: unknown images or answers, two answers to one image, or images that somebody has
            decided otherwise: every kind with its lines.
    """
    table = read_table(file)
    table.require("answer", advice="call the column of answers so")
    if "image" not in table.columns:
        table.require("id", advice="name every image in a column `image` (SHA-256) or `id`")
    with queue.review.log.locked():
        queue.sync()
        rows, faults = _read(queue, table, plain_name(reviewer), notify)
        withdrawn = _withdrawals(queue, rows, faults, replace=replace)
        decisions, known = _decisions(queue, rows, faults)
        refuse(file, _shortened(faults))
        if withdrawn:
            # Killed here, the images are undecided, and the same table decides them.
            queue.review.file.append(withdrawn, WITHDRAWAL)
            queue.sync()
            decisions, known = _decisions(queue, rows, faults)
            refuse(file, _shortened(faults))
        queue.review.file.append(decisions)
        content = {
            "file": file.name,
            "sha256": hashlib.sha256(read_ordinary(file, TABLE_BYTES)).hexdigest(),
            "decisions": len(decisions),
        }
        queue.review.log.append(IMPORT, [content] if decisions else [])
        queue.sync()
    return Sheet(file, len(rows), len(decisions), known)


@dataclass(frozen=True)
class _Row:
    place: str
    reviewer: str
    given: Given


def _read(
    queue: Queue, table: Table, reviewer: str, notify: Notify
) -> tuple[list[_Row], list[str]]:
    """Read the rows that have an answer, and say what is wrong with them."""
    answers = [*queue.review.state.opened["classes"], UNSURE]
    reading = read_words((row["answer"] for row in table.rows), Words(answers).meaning)
    remarks = reading.remarks(f"{table.file.name}: answers taken for")
    for remark in (*table.remarks, *remarks):
        notify(remark)
    faults = []
    if reading.unknown:
        listed = reading.listed(answers, table.place)
        faults.append(f"unknown answers: {listed}: use {', '.join(answers)}")
    images = _images(queue, table)
    rows: dict[str, _Row] = {}
    for at, (cells, answer, image) in enumerate(
        zip(table.rows, reading.meanings, images, strict=True)
    ):
        if answer is None:
            continue
        place = table.place(at)
        who = plain_name(cells.get("reviewer", "")) or reviewer
        if image is None:
            name = cells.get("image") or cells.get("id", "")
            faults.append(f"{place}: {clipped(name)} is no image of this review")
            continue
        alone = cells.get("images", "").strip() in ("", "1")
        settles = cells.get("part", "").strip().lower() == SETTLE
        given = Given(image, answer, BY_FILE, alone=alone, settles=settles)
        row = _Row(place, who, given)
        before = rows.setdefault(image, row)
        if before.reviewer != who:
            faults.append(
                f"{before.place} and {place}: two reviewers of one image: import a table of each"
            )
        elif before.given.answer != answer:
            faults.append(
                f"{before.place} and {place}: two answers of {who}, {before.given.answer} and "
                f"{answer}: keep one"
            )
    return list(rows.values()), faults


def _images(queue: Queue, table: Table) -> list[str | None]:
    """Return the SHA-256 of every row's image; None where it is none of the review."""
    population = queue.review.population
    if "image" in table.columns:
        digests = [row["image"].strip().lower() for row in table.rows]
        places: Sequence[int] = population.places(digests).tolist()
    else:
        by_name = {population.name(at): at for at in range(len(population))}
        places = [by_name.get(row["id"], -1) for row in table.rows]
    return [None if place < 0 else population.digest(place) for place in places]


def _own(queue: Queue, row: _Row) -> Decision | None:
    """Return what the reviewer of a row has said of its image before."""
    parts = queue.review.state.parts
    told = (parts[part].get(row.given.image) for part in _parts_of(row))
    return next((each for each in told if each and each.reviewer == row.reviewer), None)


def _parts_of(row: _Row) -> tuple[str, ...]:
    return (SETTLE,) if row.given.settles else (QUEUE, TWICE, DRAW)


def _withdrawals(
    queue: Queue, rows: Sequence[_Row], faults: list[str], *, replace: bool
) -> list[Decision]:
    """Return what rows with another answer than before take back; say what they may not."""
    withdrawn: dict[tuple[str, str], Decision] = {}
    for row in rows:
        before = _own(queue, row)
        if before is None or before.answer == row.given.answer:
            continue
        if not replace:
            which = before.id or before.image
            faults.append(
                f"{row.place}: {which} was decided by {row.reviewer} already ({before.answer}): "
                f"take that back first, with --undo {which!r}, or import with --replace"
            )
            continue
        try:
            ends = Reviewing(queue, row.reviewer).withdrawals(
                before.image, before.part, alone=row.given.alone
            )
        except InputError as error:
            faults.append(f"{row.place}: {error}")
            continue
        withdrawn |= {(each.image, each.part): each for each in ends}
    return list(withdrawn.values())


def _decisions(queue: Queue, rows: Sequence[_Row], faults: list[str]) -> tuple[list[Decision], int]:
    """Return what the rows decide, and how many are recorded already; add what is wrong."""
    decisions: list[Decision] = []
    known, named = 0, {row.given.image for row in rows}
    for row in rows:
        before = _own(queue, row)
        if before is not None:
            known += before.answer == row.given.answer
            continue
        try:
            made = Reviewing(queue, row.reviewer).decisions([row.given])
        except InputError as error:
            faults.append(f"{row.place}: {error}")
            continue
        own = row.given.image
        decisions += [each for each in made if each.image == own or each.image not in named]
    return decisions, known


def _shortened(faults: Sequence[str]) -> list[str]:
    more = len(faults) - _SHOWN
    return [*faults[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]
