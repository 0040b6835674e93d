"""A task.toml for a folder of images, guessed from what lies there."""

import json
import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import write_whole
from archiveprobe.base.progress import Notify
from archiveprobe.base.wording import number_of
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.find_images import printable
from archiveprobe.task.layouts.label_column import doubts
from archiveprobe.task.layouts.layout import NO_CHOICE, Choices, Layout, detect_layout
from archiveprobe.task.rows import read_corrected

# Of more labelled rows `probe` takes as few repeats as its figures need, unless they are named.
_MOST_REPEATED = 20_000


def write_task(
    folder: Path,
    *,
    choices: Choices = NO_CHOICE,
    force: bool = False,
    backbones: Sequence[str] = ("hog",),
    notify: Notify = lambda _: None,
) -> Path:
    """Write `folder`/task.toml and give its path; `notify` is told what was guessed.

    With `force` a task.toml that is there already is replaced.

    Raises:
        InputError: there is no such folder, no image in it, a task.toml already, or what is chosen
            does not fit.
    """
    file = folder / "task.toml"
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: name the folder that holds the images")
    if file.exists() and not force:
        raise InputError(
            f"{file} exists: edit it, move it away to start again, or replace it with --force"
        )
    layout = detect_layout(folder, choices)
    text = _text(folder.resolve().name or "task", layout, backbones)
    replaced = _describe_old(file) if file.exists() else ""
    write_whole(file, text.encode())
    if replaced:
        notify(replaced)
    for remark in (*layout.remarks, *doubts(layout.counts)):
        notify(remark)
    _describe_rows(Task(file=file.absolute(), **tomllib.loads(text)), notify)
    return file


def _describe_old(file: Path) -> str:
    try:
        old = load_task(file)
    except InputError as error:
        return f"replaced {file}, which could not be read ({error})"
    labels = ", ".join(old.labels) or "none"
    return f"replaced {file}: the task {old.name!r} of {old.place}, labels {labels}"


def _describe_rows(task: Task, notify: Notify) -> None:
    """Read the rows as embed will, and say what it will say of them."""
    try:
        rows, corrections = read_corrected(task, notify=notify)
    except InputError as error:
        notify(f"embed will refuse this: {error}")
        return
    remarks = corrections.remarks()
    if corrections.total:
        remarks[0] += (
            ": laid over the table by `archiveprobe probe`; systems trained before are out of date"
        )
    for remark in remarks:
        notify(remark)
    labelled = Counter(row.label for row in rows if row.label is not None)
    if labelled:
        count = number_of(labelled.total(), "labelled row")
        notify(f"{count}, {len(rows) - labelled.total()} to predict")


def _text(name: str, layout: Layout, backbones: Sequence[str]) -> str:
    images = layout.images
    lines = [f"name = {_quoted(name)}"]
    lines.append(f"labels = {_list(layout.labels)}")
    if not layout.labels:
        lines[-1] += "   # none found: fill in, and say below where every image's label is"
    if layout.positive is not None:
        lines.append(f"positive = {_quoted(layout.positive)}   # the label to look for")
    lines += ["", "[images]", f"root = {_quoted(images.root)}", *_table_lines(layout)]
    lines += ["", "[folds]", "count = 5"]
    if layout.counts.total() <= _MOST_REPEATED:
        lines.append("repeats = 5")
    lines.append("seed = 0")
    lines.append(f"group = {_quoted(layout.group)}")
    lines += ["", "[embed]", f"backbones = {_list(backbones)}"]
    lines[-1] += "   # `archiveprobe list backbones` shows them all"
    lines += ['views = "crops6"', 'layers = "pooled"']
    if layout.template is not None:
        lines += ["", "[submission]", f"template = {_quoted(layout.template)}"]
    return "\n".join([*lines, ""])


def _table_lines(layout: Layout) -> list[str]:
    images = layout.images
    if images.table is None:
        return ["# no table: one folder per label; `unlabelled` holds images to predict"]
    one = isinstance(images.table, str)
    lines = [f"table = {_quoted(str(images.table)) if one else _list(images.table)}"]
    if images.relative_to != "root":
        place = images.relative_to
        places = _quoted(place) if isinstance(place, str) else _list(place)
        lines.append(f"relative_to = {places}   # where the paths in a table begin")
    lines.append(f"id = {_quoted(images.id)}")
    if images.path is not None:
        lines.append(f"path = {_quoted(images.path)}")
    lines.append(
        f"label = {_quoted(layout.label_column)}"
        if layout.label_column
        else '# label = "..."   # no column found that holds labels'
    )
    optional = {"split": images.split, "text": images.text}
    return [*lines, *(f"{key} = {_quoted(value)}" for key, value in optional.items() if value)]


def _list(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(_quoted, texts))}]"


def _quoted(text: str) -> str:
    # JSON's strings are TOML's, but for DEL.
    return json.dumps(printable(text), ensure_ascii=False).replace("\x7f", "\\u007f")
