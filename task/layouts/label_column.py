"""Which column of a table holds the labels, which labels they are, and which are doubtful."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import first_few, number_of
from archiveprobe.task.config import Folds, nearest
from archiveprobe.task.labels import Words, fold
from archiveprobe.task.splits import split_named
from archiveprobe.task.tables.table import Table

# What `frames` says of an image is no label.
_OF_FILMS = frozenset({"film", "second"})
MOST_LABELS = 50
_LABEL_WORDS = frozenset({"label", "class", "category", "target"})
_LABEL_NAMES = ("label", "labels", "class", "category", "target", "y")
# A column of any name is taken for the labels where so few values repeat.
_FEW = range(2, 21)
_NEGATIONS = frozenset(
    "0 false intact intakt negative nao não nee nein nej no non none normal not other un undamaged "
    "нет لا".split()
)
# What tables say where nobody knows the label; as labels they would be learned and answered.
_UNKNOWN = frozenset(
    "? ?? - -- na n/a nan null unknown unlabeled unlabelled undefined unclear todo tbd "
    "desconocido inconnu unbekannt unklar".split()
)
_JOINTS = re.compile(r"\s*[;,|/+&]\s*")
# How alike a label must be to one that is this many times as frequent to be taken for a typo.
_ALIKE, _RARER = 0.8, 5


@dataclass(frozen=True)
class Labels:
    """The labels that were found: rows by label, their column, and a sentence on how."""

    counts: Counter[str] = field(default_factory=Counter)
    column: str | None = None
    why: str = ""


def guess_labels(
    tables: Sequence[Table], taken: Collection[str | None], *, with_empty_cells: bool = False
) -> Labels:
    """Find the column with the labels of some tables; the first table says which columns there are.

    A column of a usual name goes first, then one of few values that repeat, of these one with such
    a word in its name, and `with_empty_cells` one that has some: rows to predict.
    """
    columns = tables[0].columns
    named = named_column(columns, _LABEL_NAMES)
    counts = _values(tables, named) if named else Counter()
    if named and len(counts) <= MOST_LABELS:
        return Labels(counts, named, f"labels from the column {named!r}: {list_counts(counts)}")
    many = f" ({named!r} has {len(counts)} values)" if named else ""
    repeating = [
        (column, _values(tables, column))
        for column in columns
        if column not in taken and column not in _OF_FILMS and _repeats(tables, column)
    ]

    def rank(item: tuple[str, Counter[str]]) -> tuple[bool, bool, int]:
        column, counts = item
        empty = with_empty_cells and _has_empty(tables, column)
        return not _LABEL_WORDS & {*_words(column)}, not empty, len(counts)

    repeating.sort(key=rank)
    if not repeating:
        return Labels(why=f"no label column found{many}: set images.label and labels")
    (column, counts), *others = repeating
    names = ", ".join(repr(name) for name, _ in others)
    also = f" (or is it {names}? name its labels with --labels)" if others else ""
    return Labels(
        counts, column, f"labels from the column {column!r}, a guess{also}: {list_counts(counts)}"
    )


def given_labels(tables: Sequence[Table], labels: Sequence[str]) -> Labels:
    """Find the column that holds the labels that the user has named.

    Raises:
        InputError: no column has them, or theirs has other values too.
    """
    words = Words(labels)
    hits: Counter[str] = Counter()
    for table in tables:
        for column in table.columns:
            hits[column] += sum(words.meaning(row[column]) is not None for row in table.rows)
    named = named_column(tables[0].columns, _LABEL_NAMES)
    column = named if named and hits[named] else max(hits, key=lambda name: hits[name])
    files = " and ".join(str(table.file) for table in tables)
    if not hits[column]:
        raise InputError(
            f"no column of {files} holds the labels {', '.join(labels)}: correct --labels"
        )
    counts: Counter[str] = Counter(dict.fromkeys(labels, 0))
    other: Counter[str] = Counter()
    for value in _filled(tables, column):
        meaning = words.meaning(value)
        (other if meaning is None else counts)[value if meaning is None else meaning] += 1
    if other:
        raise InputError(
            f"the column {column!r} of {files} has other labels than --labels: "
            f"{list_counts(other)}: add them, or correct the table"
        )
    return Labels(counts, column, f"labels from the column {column!r}: {list_counts(counts)}")


def named_column(columns: Iterable[str], names: Iterable[str]) -> str | None:
    """Find the column that bears one of some names, whatever its case."""
    lower = {column.strip().lower(): column for column in columns}
    return next((lower[name] for name in names if name in lower), None)


def list_counts(counts: Mapping[str, int]) -> str:
    """List labels with their rows: "no (3), yes (5)"."""
    return first_few((f"{label} ({n})" for label, n in sorted(counts.items())), 20) or "none yet"


def merged_spellings(words: Mapping[str, int]) -> Counter[str]:
    """Count labels; spellings that reading takes for one label become the most usual of them."""
    spellings: dict[str, Counter[str]] = {}
    for word, count in sorted(words.items()):
        plain = unicodedata.normalize("NFC", word.strip())
        if plain:
            spellings.setdefault(fold(word), Counter())[plain] += count
    return Counter({some.most_common(1)[0][0]: some.total() for some in spellings.values()})


def positive_last(labels: Iterable[str]) -> tuple[str, ...]:
    """Order labels: one that negates goes first, so that of two the last is the positive one."""
    labels = [*labels]

    def negated(label: str) -> bool:
        plain = fold(label)
        # As `unbeschädigt` and `not destroyed` do, one that ends in the other says its contrary.
        ends = any(plain != fold(other) and plain.endswith(fold(other)) for other in labels)
        return ends or re.split(r"[\W_]", plain, maxsplit=1)[0] in _NEGATIONS

    return tuple(sorted(labels, key=lambda label: (not negated(label), label)))


def check_positive(positive: str, labels: Sequence[str]) -> str:
    """Return the positive label that the user has named.

    Raises:
        InputError: it is none of the labels.
    """
    meaning = Words(labels).meaning(positive)
    if meaning is None:
        known = ", ".join(labels) or "none were found: name them with --labels"
        raise InputError(
            f"--positive: {positive!r} is not one of the labels{nearest(positive, labels)} "
            f"({known}): correct it"
        )
    return meaning


def doubts(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield what is doubtful about labels: near misses, very few rows, no label, or several."""
    joined = [label for label in counts if _joins_others(label, counts)]
    if joined:
        yield (
            f"{number_of(len(joined), 'label')} of several words that are labels, the first is "
            f"{joined[0]!r}: an image has one label, so each of these is one of its own: decide on "
            "one word, or make a task for each with a column of yes and no"
        )
    for label, count in sorted(counts.items(), key=lambda item: (item[1], item[0])):
        usual = _near_miss(label, counts)
        rows = number_of(count, "row")
        if fold(label) in _UNKNOWN:
            yield (
                f"{label!r} ({rows}) is a label like any other: where it says that nobody knows, "
                "empty those cells (or call the folder unlabelled): they are predicted then"
            )
        elif usual is not None:
            yield (
                f"{label!r} ({rows}) looks like {usual!r} ({counts[usual]}): a typo? correct the "
                "table, or it counts as a label of its own"
            )
        elif count < Folds().count:
            fate = "scores will say little about it" if count > 1 else "probe will refuse it"
            yield (
                f"the label {label!r} has {rows} only, fewer than the {Folds().count} folds: label "
                f"more, or {fate}"
            )


def _joins_others(label: str, counts: Mapping[str, int]) -> bool:
    parts = _JOINTS.split(label)
    return len(parts) > 1 and all(part in counts for part in parts)


def _near_miss(label: str, counts: Mapping[str, int]) -> str | None:
    likely = [
        (SequenceMatcher(None, fold(label), fold(other)).ratio(), other)
        for other, count in counts.items()
        if count >= _RARER * max(counts[label], 1) and not _are_distinct(fold(label), fold(other))
    ]
    best = max(likely, default=(0.0, ""))
    return best[1] if best[0] >= _ALIKE else None


def _are_distinct(label: str, other: str) -> bool:
    """Return whether one negates the other (`damaged`, `undamaged`), or only numbers differ."""
    letters = [[mark for mark in word if not mark.isdigit()] for word in (label, other)]
    return label.endswith(other) or other.endswith(label) or letters[0] == letters[1]


def _values(tables: Sequence[Table], column: str) -> Counter[str]:
    return merged_spellings(Counter(_filled(tables, column)))


def _filled(tables: Sequence[Table], column: str) -> list[str]:
    with_column = [table for table in tables if column in table.columns]
    return [row[column] for table in with_column for row in table.rows if row[column].strip()]


def _has_empty(tables: Sequence[Table], column: str) -> bool:
    rows = sum(len(table.rows) for table in tables if column in table.columns)
    return len(_filled(tables, column)) < rows


def _words(column: str) -> list[str]:
    return [word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", column)]


def _repeats(tables: Sequence[Table], column: str) -> bool:
    filled = _filled(tables, column)
    values = set(map(fold, filled))
    few = len(values) in _FEW and 2 * len(values) <= len(filled)
    return few and not all(map(split_named, values))
