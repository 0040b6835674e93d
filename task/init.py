"""A task.toml for a folder of images, guessed from what lies there."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import write_whole
from archiveprobe.task.find_images import printable
from archiveprobe.task.layout import Layout, detect_layout


def write_task(
    folder: Path,
    *,
    backbones: Sequence[str] = ("hog",),
    notify: Callable[[str], None] = lambda _: None,
) -> Path:
    """Write `folder`/task.toml and give its path; `notify` is told what was guessed.

    Raises:
        InputError: there is no such folder, no image in it, or a task.toml already.
    """
    file = folder / "task.toml"
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: name the folder that holds the images")
    if file.exists():
        raise InputError(f"{file} exists: edit it, or move it away to start again")
    layout = detect_layout(folder)
    write_whole(file, _text(folder.resolve().name, layout, backbones).encode())
    for remark in layout.remarks:
        notify(remark)
    return file


def _text(name: str, layout: Layout, backbones: Sequence[str]) -> str:
    images = layout.images
    lines = [f"name = {_quoted(name)}"]
    lines.append(f"labels = [{', '.join(map(_quoted, layout.labels))}]")
    if not layout.labels:
        lines[-1] += "   # none found: fill in, and say below where every image's label is"
    if len(layout.labels) == 2:
        lines.append(f"positive = {_quoted(layout.labels[1])}   # a guess: the label to look for")
    lines += ["", "[images]", f"root = {_quoted(images.root)}"]
    if images.table:
        lines += [f"table = {_quoted(str(images.table))}", f"id = {_quoted(images.id)}"]
        lines.append(
            f"label = {_quoted(layout.label_column)}"
            if layout.label_column
            else '# label = "..."   # no column found that holds labels'
        )
        optional = {"split": images.split, "text": images.text}
        lines += [f"{key} = {_quoted(value)}" for key, value in optional.items() if value]
    else:
        lines.append("# no table: one folder per label; `unlabelled` holds images to predict")
    lines += ["", "[folds]", "count = 5", "repeats = 5", "seed = 0", 'group = "near-duplicates"']
    lines += ["", "[embed]", f"backbones = [{', '.join(map(_quoted, backbones))}]"]
    lines[-1] += "   # `archiveprobe list backbones` shows them all"
    lines += ['views = "crops6"', 'layers = "pooled"', ""]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    # JSON's strings are TOML's, but for DEL.
    return json.dumps(printable(text), ensure_ascii=False).replace("\x7f", "\\u007f")
