"""Decisions of reviewers: lines of the log, and the same as decisions.csv, for people.

The log is the truth. Whatever adds decisions completes the CSV, which a killed writer may have left
short; one that says anything else than the log is named, and never written over. One that holds
more than the log shows that the log has lost its last lines.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import zip_longest
from typing import Any, Self

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import PRODUCT_BYTES, read_product
from archiveprobe.base.wording import number_of
from archiveprobe.predict.tables import for_spreadsheets
from archiveprobe.review.log import Line, ReviewLog
from archiveprobe.task.corrections import UNSURE as UNSURE

FILE = "decisions.csv"
DECISION, WITHDRAWAL = "decision", "withdrawal"
QUEUE, TWICE, SETTLE, DRAW = "queue", "twice", "settle", "draw"
"""What an image was decided for: the queue, to compare reviewers, to settle where they differ, or
as one of a random draw."""
BLURRED, UNBLURRED, BY_GROUP, BY_FILE = "blurred", "unblurred", "group", "file"
"""How an image was shown: on the page; not itself, but another of its group; or in a table."""
# How a row of the CSV begins: with the SHA-256 of an image.
_ROW = re.compile(rb"^[0-9a-f]{64},", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a reviewer said of an image, named by the SHA-256 of its bytes, and what was shown.

    `part` is one of QUEUE, TWICE, SETTLE, DRAW; `shown` one of BLURRED, UNBLURRED, BY_GROUP,
    BY_FILE. `score` is the probability of the positive label by which it was ordered, None without
    one; `group` the first image of its group of near-duplicates; `position` its place in the order,
    from 1, None where there was none. `time` stands in the line of the log.
    """

    image: str
    answer: str
    reviewer: str
    part: str = QUEUE
    score: float | None = None
    group: str = ""
    position: int | None = None
    shown: str = BLURRED
    id: str = ""
    time: str = ""

    @classmethod
    def of(cls, line: Line) -> Self:
        """Return the decision of a line."""
        known = {name: line.content[name] for name in _STORED if name in line.content}
        return cls(**known, time=line.time)

    def content(self) -> dict[str, Any]:
        """Return what its line holds."""
        return {name: value for name, value in asdict(self).items() if name != "time"}


_STORED = [field.name for field in fields(Decision) if field.name != "time"]
COLUMNS = tuple("image answer reviewer time part score group position shown id".split())


class DecisionFile:
    """Adds decisions to a log and to the CSV beside it."""

    def __init__(self, log: ReviewLog) -> None:
        self._log, self.file = log, log.folder / FILE
        # Lines of the log that were compared with the file, and how long it is then.
        self._lines, self._size = 0, -1

    def append(self, decisions: Sequence[Decision], kind: str = DECISION) -> list[Line]:
        """Add decisions, all or none; durable on return.

        A WITHDRAWAL takes a reviewer's decision back: a line of its own, whose `answer` is "".

        Raises:
            InputError: the log or the CSV was edited, or the disk refuses.
        """
        with self._log.locked():
            self._complete()
            lines = self._log.append(kind, [decision.content() for decision in decisions])
            self._complete()
            return lines

    def check(self) -> None:
        """Check that the CSV says what the log says, as far as it goes.

        Raises:
            InputError: it does not; the first line that differs is named.
        """
        self._missing()

    def _complete(self) -> None:
        lines = self._log.lines
        size = self.file.stat().st_size if self.file.exists() else 0
        new = csv_of(lines[self._lines :], header=False) if size == self._size else self._missing()
        if new:
            with files.explained(f"write {self.file}"):
                # What a killed writer left of a line is a part of `new`, up to its newline.
                if size != self._size:
                    size = self._cut_torn_line()
                    new = csv_of(lines)[size:]
                files.append_durable(self.file, new)
        self._lines, self._size = len(lines), size + len(new)

    def _cut_torn_line(self) -> int:
        """Remove a last line that has no newline; return the size that is left."""
        there = self.file.read_bytes() if self.file.exists() else b""
        size = there.rfind(b"\n") + 1
        if size < len(there):
            files.shorten(self.file, size)
        return size

    def _missing(self) -> bytes:
        """Return what the CSV lacks; what it has must be what the log says so far."""
        remedy = f"move {self.file.name} away, and it is written again from the log"
        there = read_product(self.file, PRODUCT_BYTES, remedy) or b""
        whole = csv_of(self._log.lines)
        if whole.startswith(there):
            return whole[len(there) :]
        # The log is written first: where the CSV has more, the log has lost its last lines, and the
        # CSV is the only witness of them.
        more = len(_ROW.findall(there)) - len(_ROW.findall(whole))
        if more > 0 or there.startswith(whole):
            raise InputError(
                f"{self._log.file}: the log lacks {number_of(max(more, 1), 'decision')} that "
                f"{self.file.name} has: lines were removed from its end (or rows added to the "
                f"table): bring back {self._log.file.name} as it was, and keep {self.file.name}"
            )
        pairs = zip_longest(there.split(b"\n"), whole.split(b"\n"))
        number = next(at for at, (found, right) in enumerate(pairs, 1) if found != right)
        raise InputError(f"{self.file}: line {number} is not what the log says: {remedy}")


def csv_of(lines: Iterable[Line], *, header: bool = True) -> bytes:
    """Write the decisions and withdrawals among lines of a log as a CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    for line in lines:
        if line.kind in (DECISION, WITHDRAWAL):
            record = asdict(Decision.of(line))
            cells = ["" if record[name] is None else str(record[name]) for name in COLUMNS]
            writer.writerow(for_spreadsheets(cells))
    return text.getvalue().encode("utf-8", "backslashreplace")
