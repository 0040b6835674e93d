"""`look -o FILE`: collect what a page shows, make its thumbnails, and write it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.look.collect.run import collect
from archiveprobe.look.page import (
    Thumbnail,
    Thumbnails,
    check_image_folder,
    image_folder,
    is_folder_needed,
    write_page,
)
from archiveprobe.look.thumbnails import page_thumbnails
from archiveprobe.task.config import Task
from archiveprobe.task.output import output_file

_ENDINGS = (".html", ".htm")


@dataclass(frozen=True)
class Written:
    """A page that was written: its file, its size in words, what it shows and what is missing."""

    file: Path
    size: str
    rows: int
    systems: int
    snapshot: str
    missing: list[dict[str, str]]

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return {**asdict(self), "file": str(self.file)}


def write_look(
    task: Task,
    file: Path,
    *,
    partial: bool = False,
    maps: tuple[str, ...] = ("PCA",),
    language: str = "en",
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> Written:
    """Write the page of a task as one file; see `write_page`.

    Raises:
        InputError: the file is no .html or one of the task's own, nothing is embedded yet, or the
            disk refuses.
    """
    target = output_file(task, file)
    if target.suffix.lower() not in _ENDINGS:
        raise InputError(f"{file}: a page ends in .html: name it so with -o")
    collection = collect(task, partial=partial, maps=maps, notify=notify, progress=progress)
    collection = replace(collection, meta=_without_home(collection.meta, task))
    if is_folder_needed(len(collection)):
        _check_place(task, image_folder(target))
    digests = sorted({str(row["digest"]) for row in collection.rows} - {""})
    with progress("making thumbnails", len(digests)) as advance:
        thumbnails = _counted(page_thumbnails(task, digests), advance)
        size = write_page(target, collection, thumbnails, language=language)
    meta = collection.meta
    systems, missing = len(meta["systems"]), list(meta["missing"])
    return Written(file, size, len(collection), systems, meta["snapshot"], missing)


def _without_home(value: Any, task: Task) -> Any:
    """Name the task by its folder only: a page is sent to others, who need not know the rest."""
    if isinstance(value, str):
        short = f"{task.folder.name}/" if task.folder.name else ""
        return value.replace(f"{task.folder}/", short)
    if isinstance(value, Mapping):
        return {key: _without_home(item, task) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_home(item, task) for item in value]
    return value


def _counted(thumbnails: Thumbnails, advance: Callable[[], None]) -> Iterator[Thumbnail]:
    for thumbnail in thumbnails:
        yield thumbnail
        advance()


def _check_place(task: Task, folder: Path) -> None:
    """Refuse a folder for images that is no page's own, or that the task would take for its own."""
    check_image_folder(folder)
    inside = folder.resolve()
    for place in (task.root.resolve(), task.work.resolve()):
        if inside == place or place in inside.parents or inside in place.parents:
            raise InputError(
                f"{folder}, where the images of the page would go, is a place of the task's "
                "images: name another file with -o"
            )
