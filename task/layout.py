"""What a folder of images seems to hold: a table or one folder per label, columns and labels.

Whatever is guessed is said, and so is what was looked for in vain.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import quote_few
from archiveprobe.task.config import Images
from archiveprobe.task.find_images import find_images, printable
from archiveprobe.task.match_files import match_some
from archiveprobe.task.rows import UNLABELLED, split_folders
from archiveprobe.task.splits import SPLITS, split_named
from archiveprobe.task.table import Table, read_table

_LABEL_NAMES = ("label", "labels", "class", "category", "target", "y")
_SPLIT_NAMES = ("split", "set", "subset", "partition")
_TEXT_NAMES = ("caption", "text", "description")
_TABLES = (".csv", ".tsv")
_MOST_LABELS = 50
# A column of any name is taken for the labels where so few values repeat.
_FEW = range(2, 21)
_LOOKED_AT = 200
_NEGATIONS = frozenset("0 false intact negative no non none normal not other un undamaged".split())


@dataclass(frozen=True)
class Layout:
    """What the folder seems to hold; `label_column` is None where no table has labels.

    `remarks` say what was guessed and what was not found, a sentence each.
    """

    labels: tuple[str, ...]
    images: Images
    count: int
    label_column: str | None = None
    remarks: list[str] = field(default_factory=list)


def detect_layout(folder: Path) -> Layout:
    """Guess labels, table and columns of a folder of images.

    Raises:
        InputError: there is no image.
    """
    folder = folder.resolve()
    tables: list[Layout] = []
    unused: list[str] = []
    for file in sorted(path for path in folder.iterdir() if path.suffix.lower() in _TABLES):
        try:
            tables.append(_from_table(folder, file))
        except InputError as error:
            unused.append(f"not used: {error}")
    # A table without labels may be the form to hand in.
    tables.sort(key=lambda table: (not table.labels, -table.count))
    best = tables[0] if tables else _from_folders(folder)
    unused += [f"not used: {other.images.table}" for other in tables[1:]]
    if len(best.labels) == 2:
        best.remarks.append(f"positive, the label to look for, is {best.labels[1]!r}: a guess")
    # Names may hold line ends.
    remarks = [" ".join(remark.split()) for remark in (*best.remarks, *unused)]
    return replace(best, remarks=remarks)


def _from_table(folder: Path, file: Path) -> Layout:
    table = read_table(file)
    for root in (folder, folder / "images", *_subfolders(folder)):
        for column in table.columns:
            values = [row[column] for row in table.rows[:_LOOKED_AT]]
            # A caption, for example, is too long for a name, which pathlib would raise for.
            hits = sum(bool(value) and os.path.isfile(root / value) for value in values)  # noqa: PTH113
            if values and hits * 2 >= len(values):
                return _described(folder, table, column, root)
    raise InputError(f"{file.name}: no column holds paths of images{_resembling(folder, table)}")


def _resembling(folder: Path, table: Table) -> str:
    """Hint at what the first row's cells may mean: ids without the ending, for example."""
    files = find_images(folder, [folder / "work"]).paths
    for column, value in table.rows[0].items() if table.rows else ():
        found = match_some(folder, [value], files).get(value)
        if found and found.path:
            path = printable(found.path)
            return f", but {column!r} has {value!r} and there is {path!r}: write paths as they are"
    return ""


def _described(folder: Path, table: Table, id_column: str, root: Path) -> Layout:
    split = _named(table, _SPLIT_NAMES)
    text = _named(table, _TEXT_NAMES)
    label, labels, why = _label_column(table, {id_column, split, text})
    remarks = [
        f"{table.file.name}: {len(table.rows)} rows, {table.separator}-separated, "
        f"images in the column {id_column!r}"
    ]
    odd = {row[split] for row in table.rows if row[split].strip()} if split else set()
    odd = {word for word in odd if not split_named(word)}
    if odd:
        remarks.append(
            f"the column {split!r} has other values than {', '.join(SPLITS)} "
            f"({quote_few(sorted(odd))}): it is left out"
        )
        split = None
    remarks.append(why)
    images = Images(
        root=root.relative_to(folder).as_posix(),
        table=table.file.name,
        id=id_column,
        label=label or "label",
        split=split,
        text=text,
    )
    return Layout(_positive_last(labels), images, len(table.rows), label, remarks)


def _label_column(table: Table, taken: set[str | None]) -> tuple[str | None, Sequence[str], str]:
    """Find the column that holds the labels, the labels, and how they were found."""
    named = _named(table, _LABEL_NAMES)
    labels = _values(table, named) if named else []
    if named and len(labels) <= _MOST_LABELS:
        return named, labels, f"labels from the column {named!r}: {', '.join(labels) or 'none yet'}"
    many = f" ({named!r} has {len(labels)} values)" if named else ""
    repeating = [
        (column, _values(table, column))
        for column in table.columns
        if column not in taken and _repeats(table, column)
    ]
    repeating.sort(key=lambda item: len(item[1]))
    if not repeating:
        return None, (), f"no label column found{many}: set images.label and labels"
    (column, labels), *others = repeating
    also = f" (or is it {', '.join(repr(name) for name, _ in others)}?)" if others else ""
    guessed = f"labels from the column {column!r}, a guess{also}: {', '.join(labels)}"
    return column, labels, guessed


def _repeats(table: Table, column: str) -> bool:
    filled = [row[column] for row in table.rows if row[column].strip()]
    values = set(filled)
    few = len(values) in _FEW and 2 * len(values) <= len(filled)
    return few and not all(map(split_named, values))


def _values(table: Table, column: str) -> list[str]:
    return sorted({row[column] for row in table.rows if _clean(row[column])})


def _clean(label: str) -> bool:
    """Return whether it can be a label; reading the rows complains of the others by name."""
    return bool(label) and label == label.strip()


def _named(table: Table, names: Iterable[str]) -> str | None:
    lower = {column.strip().lower(): column for column in table.columns}
    return next((lower[name] for name in names if name in lower), None)


def _subfolders(folder: Path) -> Iterator[Path]:
    subfolders = (path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")
    return iter(sorted(path for path in subfolders if path.name != "work"))


def _from_folders(folder: Path) -> Layout:
    root = folder / "images" if (folder / "images").is_dir() else folder
    found = find_images(root, [folder / "work"])
    if not found.paths:
        raise InputError(f"no image below {folder}: name the folder that holds them")
    splits = split_folders(found.paths, ())
    names = {printable(name) for path in found.paths if (name := _label_folder(path, splits))}
    labels = sorted(filter(_clean, names - {UNLABELLED}))
    why = f"labels from the folders: {', '.join(labels)}"
    if not 2 <= len(labels) <= _MOST_LABELS:
        why = f"no labels found ({len(labels)} folders): fill in labels, and give a table"
        labels = []
    images = Images(root=root.relative_to(folder).as_posix())
    remarks = [f"{len(found.paths)} images below {printable(str(root))}", why, *found.remarks()]
    return Layout(_positive_last(labels), images, len(found.paths), None, remarks)


def _label_folder(path: str, splits: Mapping[str, str]) -> str | None:
    folders = path.split("/")[:-1]
    if folders and folders[0] in splits:
        # Below `test` a folder may have any name.
        folders = folders[1:] if splits[folders[0]] != "test" else []
    return folders[0] if folders else None


def _positive_last(labels: Sequence[str]) -> tuple[str, ...]:
    """Of two labels the one that negates goes first, so that the last is the positive one."""

    def negated(label: str) -> bool:
        return label.lower().replace("-", "_").split("_")[0] in _NEGATIONS

    return tuple(sorted(labels, key=lambda label: (not negated(label), label)))
