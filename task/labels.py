"""Labels (and splits) as people write them: what is meant, what was guessed, every fault at once.

Blanks around and within a word, upper and lower case, the Unicode normal form and the ".0" that
pandas adds to numbers beside empty cells make no other word, where only one known word is near.
"""

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import clipped, first_few, number_of
from archiveprobe.task.config import Task, nearest
from archiveprobe.task.splits import SPLITS, split_named
from archiveprobe.task.tables.table import Table

UNLABELLED = "unlabelled"
_WHOLE = re.compile(r"(-?\d+)\.0+")
_ALIASES = "that differ from labels in task.toml by case, blanks or a .0 only are taken for them"
_SHOWN = 5


def fold(word: str) -> str:
    """Return what is equal for words that differ by blanks, case, normal form or ".0" only."""
    plain = " ".join(unicodedata.normalize("NFC", word).casefold().split())
    number = _WHOLE.fullmatch(plain)
    return number[1] if number else unicodedata.normalize("NFC", plain)


class Words:
    """Known words, and which of them another word stands for."""

    def __init__(self, known: Iterable[str]) -> None:
        # One object for all rows of a label.
        self._exact = {word: sys.intern(word) for word in known}
        count = Counter(map(fold, self._exact))
        self._near = {fold(word): word for word in self._exact.values() if count[fold(word)] == 1}

    def meaning(self, word: str) -> str | None:
        """Return the known word that is meant, None where there is none or more than one."""
        return self._exact.get(word) or self._near.get(fold(word))


@dataclass
class Reading:
    """Holds the known word of every cell, None where it is empty or not to be read.

    `aliases` count the cells that were taken for another word, by word and meaning; `unknown` the
    others, with the index of the first.
    """

    meanings: list[str | None] = field(default_factory=list)
    aliases: Counter[tuple[str, str]] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)

    def remarks(self, begin: str) -> list[str]:
        """Say what was taken for another word, if anything was, after the words of `begin`."""
        if not self.aliases:
            return []
        listed = (
            f"{clipped(word)} as {meaning!r} ({count})"
            for (word, meaning), count in self.aliases.most_common()
        )
        return [f"{begin}, {self.aliases.total()} in all: {first_few(listed, _SHOWN)}"]

    def listed(self, known: Iterable[str], place: Callable[[int], str]) -> str:
        """List the unknown words, each with its count, its first place and the nearest word."""
        names = tuple(known)
        return first_few(
            (
                f"{clipped(word)} ({count}, first {place(self.first[word])}{_hint(word, names)})"
                for word, count in self.unknown.most_common()
            ),
            _SHOWN,
        )


def _hint(word: str, known: Sequence[str]) -> str:
    hint = nearest(word[:200], known).strip(" ()")
    return f"; {hint}" if hint else ""


def read_words(cells: Iterable[str | None], meaning_of: Callable[[str], str | None]) -> Reading:
    """Find what every cell means; None is not looked at."""
    reading = Reading()
    meanings: dict[str, str | None] = {}
    for index, cell in enumerate(cells):
        if cell is None or not cell.strip():
            reading.meanings.append(None)
            continue
        if cell not in meanings:
            meanings[cell] = meaning_of(cell)
        meaning = meanings[cell]
        reading.meanings.append(meaning)
        if meaning is None:
            reading.unknown[cell] += 1
            reading.first.setdefault(cell, index)
        elif meaning != cell:
            reading.aliases[cell, meaning] += 1
    return reading


@dataclass(frozen=True)
class Column:
    """Holds a column of known words: a meaning for each row, what was guessed, what is wrong."""

    meanings: list[str | None]
    remarks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_labels(
    task: Task, table: Table, column: str, wanted: Sequence[bool] | None = None
) -> Column:
    """Read the labels of a table's rows, only those of the `wanted` rows if it is given."""
    is_read = wanted or [True] * len(table.rows)
    cells = (row[column] if read else None for row, read in zip(table.rows, is_read, strict=True))
    reading = read_words(cells, Words(task.labels).meaning)
    remarks = reading.remarks(f"{table.file.name}: labels {_ALIASES}")
    faults = []
    if reading.unknown:
        faults.append(
            f"unknown labels in {number_of(reading.unknown.total(), 'row')}: "
            f"{reading.listed(task.labels, table.place)}: correct them, or add them to labels in "
            f"task.toml (now {', '.join(task.labels) or 'none'})"
        )
    return Column(reading.meanings, remarks, faults)


def read_splits(table: Table, column: str) -> Column:
    """Read a column of splits, under whatever usual names."""
    reading = read_words((row[column] for row in table.rows), split_named)
    faults = []
    if reading.unknown:
        faults.append(
            f"unknown splits in {number_of(reading.unknown.total(), 'row')}: "
            f"{reading.listed(SPLITS, table.place)}: use train, validation or test"
        )
    return Column(reading.meanings, faults=faults)


def read_folders(
    task: Task, places: Sequence[tuple[str | None, str | None]], names: Sequence[str]
) -> Column:
    """Read the labels of images from split and folder of each; below `test` any name will do."""
    if not task.labels:
        return Column([None] * len(places))
    known = (*task.labels, UNLABELLED)
    words = Words(known)
    free = {folder for split, folder in places if folder and words.meaning(folder) is None}
    cells = (None if split == "test" and folder in free else folder for split, folder in places)
    reading = read_words(cells, words.meaning)
    faults = []
    if reading.unknown:
        faults.append(
            f"unknown labels in the folders of {reading.unknown.total()} images: "
            f"{reading.listed(known, lambda index: clipped(names[index]))}: rename the folders, "
            f"add them to labels in task.toml (now {', '.join(task.labels)}), or move them out "
            "of images.root"
        )
    meanings = [None if word == UNLABELLED else word for word in reading.meanings]
    return Column(meanings, reading.remarks(f"folders {_ALIASES}"), faults)


def refuse(file: Path, faults: Sequence[str]) -> None:
    """Refuse a table with all its faults in one message.

    Raises:
        InputError: there is any.
    """
    if faults:
        raise InputError(f"{file}: {'; '.join(faults)}")
