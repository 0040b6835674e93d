"""Where a command's `-o` may go: never over what is the task's own, and never over an image."""

# ruff: noqa: PTH116, PTH118
# A Path for each of a hundred thousand rows takes longer than asking the disk.

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NewType

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.corrections import corrections_file
from archiveprobe.task.file_kind import HEAD, may_be_image
from archiveprobe.task.find_images import has_image_extension
from archiveprobe.task.manifest import read_manifest
from archiveprobe.task.rows import Row, locate, read_rows

OutputFile = NewType("OutputFile", Path)
"""A path that `output_file` has checked."""

_PRETRAINED = ("pretrained", "random")


def output_file(task: Task, file: Path, *, read: Iterable[Path] = ()) -> OutputFile:
    """Find where an output really goes; `read` are files that the command reads.

    Files are compared by path and by device and inode, so that links, mounts and other spellings
    of a name are known for what they are.

    Raises:
        InputError: it is a file of the task, or of another task in its folder, one of its images,
            something in work/, any other image, one of `read`, or no ordinary file.
    """
    try:
        # As text first: a loop of links is an error of another kind in each version of Python.
        target = Path(os.path.realpath(file))
        what = _obstacle(task, target, read)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot write {file}: {reason}: name another file with -o") from None
    if what is not None:
        raise InputError(f"{file} is {what}: name another file with -o")
    return OutputFile(target)


@contextlib.contextmanager
def writing(file: Path) -> Iterator[None]:
    """Turn an OSError inside the block into an InputError that says what to do about an output."""
    try:
        yield
    except OSError as error:
        # Libraries put their own words into `strerror`, the name of a temporary among them.
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"cannot write {file}: {reason}: make space, correct the permissions, or name another "
            "place"
        ) from None


def _obstacle(task: Task, target: Path, read: Iterable[Path]) -> str | None:
    """Say what is at that place and must stay. Raises OSError, ValueError."""
    exists = target.exists()
    if exists and not target.is_file():
        return "no ordinary file"
    for own_task in _tasks_beside(task):
        for what, own in _own_files(own_task):
            if _same(target, own):
                return what
        if any(_same(folder, own_task.work) for folder in target.parents):
            return f"in {own_task.work}, where only products of the task lie"
    if any(_same(target, each) for each in read):
        return "a file that this command reads"
    if exists and _holds_an_image(target):
        return "an image"
    images = (_image(own_task, target, exists) for own_task in _tasks_beside(task))
    return next((image for image in images if image), None)


def _tasks_beside(task: Task) -> Iterator[Task]:
    """Yield the task and the other tasks in its folder."""
    yield task
    for file in sorted({*task.folder.glob("*.toml")} - {task.file}):
        try:
            yield load_task(file)
        except InputError:
            continue


def _own_files(task: Task) -> Iterator[tuple[str, Path]]:
    for file in (task.file, *task.folder.glob("*.toml")):
        yield "a task file or a recipe", file
    yield from (("the table of the task", table) for table in task.tables.values())
    yield "the corrections of the task", corrections_file(task)
    if task.submission.template:
        yield "the template of the task", task.folder / task.submission.template
    for name, backbone in task.backbone.items():
        if backbone.weights not in _PRETRAINED:
            yield f"the weights of backbone {name!r}", task.folder / backbone.weights


def _same(left: Path, right: Path) -> bool:
    try:
        return os.path.realpath(right) == str(left) or left.samefile(right)
    except (OSError, ValueError):
        return False


def _image(task: Task, target: Path, exists: bool) -> str | None:
    """Say which image of the task the target is, or would become."""
    below = any(_same(folder, task.root) for folder in target.parents)
    if task.table is None:
        becomes_one = below and has_image_extension(target.name)
        return "among the images of the task" if becomes_one else None
    if not (exists or below):
        return None
    try:
        rows = read_rows(task)
    except InputError:
        # Whoever needs the rows says what is wrong with them.
        return None
    root, inode = os.path.realpath(task.root), _inode(target)
    for row in (*rows, *_rows_found(task)):
        file = os.path.join(root, row.path)
        if exists:
            is_it = (_inode(file) or _inode(locate(task.root, row.path))) == inode
        else:
            is_it = file.endswith(target.name) and os.path.normpath(file) == str(target)
        if is_it:
            return f"the image {row.id!r} of the task"
    return None


def _rows_found(task: Task) -> Iterator[Row]:
    """Yield rows with the file that embed found for them, where their table writes another path."""
    try:
        entries = read_manifest(task)
    except InputError:
        return
    yield from (Row(entry.id, entry.path) for entry in entries if entry.written)


def _inode(file: Path | str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _holds_an_image(file: Path) -> bool:
    """Return whether an ordinary file is an image by its name or by its first bytes."""
    if has_image_extension(file.name):
        return True
    try:
        with file.open("rb", buffering=0) as stream:
            return may_be_image(stream.read(HEAD))
    except OSError:
        return False
