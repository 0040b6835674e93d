"""Answers for an archive in one table: the parts lie in the task's work folder meanwhile."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from json import dumps
from pathlib import Path

from archiveprobe.archive.index import Index, write_index
from archiveprobe.archive.source import Source
from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import NAME as LOCK
from archiveprobe.base.lock import Lock
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.predict.answers.layout import INDEX, MERGED, PARTS, REPLACED
from archiveprobe.predict.answers.table import write_table
from archiveprobe.predict.archive import Archive, ArchiveAnswers, How
from archiveprobe.predict.system_digest import system_digest
from archiveprobe.predict.tables import answer_target
from archiveprobe.task.config import Task


def predict_table(
    task: Task,
    system: str,
    source: Source,
    file: Path,
    how: How | None = None,
    *,
    spreadsheet_safe: bool = False,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> ArchiveAnswers:
    """Answer every image of a source, into one table in the form that the ending of `file` names.

    The parts lie below work/answers meanwhile: killed, the same command goes on. `spreadsheet_safe`
    writes a second file, whose cells no spreadsheet takes for a formula.

    Raises:
        InputError: as `predict_folder`, or a file that cannot be written.
    """
    started = time.monotonic()
    target = answer_target(task, file, spreadsheet_safe)
    how = how or How()
    if how.share is not None:
        raise InputError(f"shares need a folder, and {file} is a table: leave out its ending")
    with answers_of(task, system, source, how, notify=notify, progress=progress) as done:
        target = write_table(done.file, target)
        return replace(
            done,
            file=target.named,
            copy=target.named_copy,
            notes=[*done.notes, *target.notes()],
            seconds=time.monotonic() - started,
        )


@contextmanager
def answers_of(
    task: Task,
    system: str,
    source: Source,
    how: How,
    *,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> Iterator[ArchiveAnswers]:
    """Answer every image of a source, into a folder that is there until the block ends.

    After an exception it stays, and the next call goes on with it.

    Raises:
        InputError: as `predict_folder`.
    """
    about = {"system": system_digest(task, system), "source": source.identity()}
    name = sha256(dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    folder = task.work / "answers" / name
    with files.explained(f"write {folder}"):
        files.make_folder(folder.parent)
    with Lock(folder.parent, "the answers below", name):
        _forget_other_list(folder, source, notify)
        archive = Archive(task, system, source, folder, how, notify, progress)
        yield archive.answered(folder)
        _remove(folder)
        files.discard(folder.parent / f"{LOCK}-{name}")


def _forget_other_list(folder: Path, source: Source, notify: Notify) -> None:
    """Remove what an interrupted run left where the source holds other images by now."""
    if not (folder / INDEX).exists():
        return
    before = Index.open(folder / INDEX)
    file = files.temporary_beside(folder / INDEX)
    try:
        now = write_index(source, file, before.unit_images, notify=lambda _: None)
    finally:
        files.discard(file)
    if now.digest != before.digest:
        notify(f"{source.name} holds other images than when a run was interrupted: begun again")
        _remove(folder)


def _remove(folder: Path) -> None:
    with files.explained(f"remove {folder}"):
        # A run that was killed while it merged has left these, too.
        for inner in (PARTS, MERGED, REPLACED):
            files.remove_files(folder / inner)
        files.remove_files(folder)


def leftovers(task: Task) -> list[str]:
    """Say what lies in the work folder that only the user can judge, a sentence each."""
    said = []
    if (task.work / "new").exists():
        said.append(f"an earlier version left {task.work / 'new'}, which nothing reads: delete it")
    folders = [path for path in (task.work / "answers").glob("*") if path.is_dir()]
    said += [
        f"an interrupted `predict` left {folder}: run it again, or delete that folder"
        for folder in sorted(folders)
    ]
    return said
