"""A task.toml for a folder of pictures, guessed from what lies there."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from task.config import Images
from task.errors import InputError
from task.files import write_whole
from task.rows import SIDECARS, SPLITS, UNLABELLED, readable
from task.table import Table, read_table

_LABEL_NAMES = ("label", "class", "category", "target", "y")
_SPLIT_NAMES = ("split", "set", "subset", "partition")
_TEXT_NAMES = ("caption", "text", "description")
_MOST_LABELS = 50
_LOOKED_AT = 200
_NEGATIONS = ("not", "no", "non", "un", "intact", "negative", "other", "0", "false")


@dataclass(frozen=True)
class Guess:
    """What the folder seems to hold."""

    labels: tuple[str, ...]
    images: Images
    pictures: int


def start(folder: Path, *, backbones: Sequence[str] = ("hog",)) -> Path:
    """Write `folder`/task.toml and give its path.

    Raises:
        InputError: there is no such folder, no picture in it, or a task.toml already.
    """
    file = folder / "task.toml"
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: name the folder that holds the pictures")
    if file.exists():
        raise InputError(f"{file} exists: edit it, or move it away to start anew")
    write_whole(file, _text(folder.resolve().name, guess(folder), backbones).encode())
    return file


def guess(folder: Path) -> Guess:
    """Guess labels, table and columns of a folder of pictures.

    Raises:
        InputError: there is no picture.
    """
    found = [_from_table(folder, file) for file in sorted(folder.glob("*.csv"))]
    tables = [table for table in found if table]
    # A table without labels may be the form to hand in.
    tables.sort(key=lambda table: not table.labels)
    return tables[0] if tables else _from_folders(folder)


def _from_table(folder: Path, file: Path) -> Guess | None:
    try:
        table = read_table(file)
    except InputError:
        return None
    for root in (folder, folder / "images", *_subfolders(folder)):
        for column in table.columns:
            values = [row[column] for row in table.rows[:_LOOKED_AT]]
            hits = sum(bool(value) and _is_file(root / value) for value in values)
            if values and hits * 2 >= len(values):
                return _described(folder, table, column, root)
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # a caption, for example, is too long for a name


def _described(folder: Path, table: Table, id_column: str, root: Path) -> Guess:
    label = _named(table, _LABEL_NAMES)
    split = _named(table, _SPLIT_NAMES)
    if split and not {row[split] for row in table.rows} <= {*SPLITS, ""}:
        split = None
    labels = sorted({row[label] for row in table.rows if _clean(row[label])}) if label else []
    images = Images(
        root=root.relative_to(folder).as_posix(),
        table=table.file.name,
        id=id_column,
        label=label or "label",
        split=split,
        text=_named(table, _TEXT_NAMES),
    )
    few = labels if len(labels) <= _MOST_LABELS else ()
    return Guess(_positive_last(few), images, len(table.rows))


def _clean(label: str) -> bool:
    """Whether it can be a label; reading the rows complains of the others by name."""
    return bool(label) and label == label.strip()


def _named(table: Table, names: Iterable[str]) -> str | None:
    lower = {column.lower(): column for column in table.columns}
    return next((lower[name] for name in names if name in lower), None)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")


def _from_folders(folder: Path) -> Guess:
    root = folder / "images" if (folder / "images").is_dir() else folder
    named = [path for path in _subfolders(root) if path.name != "work"]
    if any(path.name in SPLITS for path in named):
        named = [sub for path in named if path.name in SPLITS for sub in _subfolders(path)]
    filled = {path.name for path in named if any(_pictures(path))}
    labels = sorted(filter(_clean, filled - {UNLABELLED}))
    pictures = sum(_pictures(root))
    if not pictures:
        raise InputError(f"no picture below {folder}: name the folder that holds them")
    images = Images(root=root.relative_to(folder).as_posix())
    return Guess(_positive_last(labels if len(labels) > 1 else ()), images, pictures)


def _pictures(root: Path) -> Iterable[bool]:
    for _, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in files:
            yield not name.startswith(".") and Path(name).suffix.lower() not in SIDECARS


def _positive_last(labels: Sequence[str]) -> tuple[str, ...]:
    """Of two labels the one that negates goes first, so that the last is the positive one."""

    def negated(label: str) -> bool:
        return label.lower().replace("-", "_").split("_")[0] in _NEGATIONS

    return tuple(sorted(labels, key=lambda label: (not negated(label), label)))


def _text(name: str, found: Guess, backbones: Sequence[str]) -> str:
    images = found.images
    lines = [f"name = {_quoted(name)}"]
    lines.append(f"labels = [{', '.join(map(_quoted, found.labels))}]")
    if not found.labels:
        lines[-1] += "   # none found: fill in, and give a table or one folder per label"
    if len(found.labels) == 2:
        lines.append(f"positive = {_quoted(found.labels[1])}   # a guess: the label to look for")
    lines += ["", "[images]", f"root = {_quoted(images.root)}"]
    if images.table:
        lines += [f"table = {_quoted(images.table)}", f"id = {_quoted(images.id)}"]
        lines.append(f"label = {_quoted(images.label)}")
        optional = {"split": images.split, "text": images.text}
        lines += [f"{key} = {_quoted(value)}" for key, value in optional.items() if value]
    else:
        lines.append("# no table: one folder per label; `unlabelled` holds pictures to predict")
    lines += ["", "[folds]", "count = 5", "repeats = 5", "seed = 0", 'group = "near-duplicates"']
    lines += ["", "[embed]", f"backbones = [{', '.join(map(_quoted, backbones))}]"]
    lines[-1] += "   # `archiveprobe list backbones` shows them all"
    lines += ['views = "crops6"', 'layers = "pooled"', ""]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    # JSON's strings are TOML's, but for DEL.
    return json.dumps(readable(text), ensure_ascii=False).replace("\x7f", "\\u007f")
