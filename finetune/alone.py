"""A run and its place: a name that is free, one process at a time, nothing left by killed ones."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.files import explained
from archiveprobe.base.lock import NAME, Lock
from archiveprobe.evaluate.combine import METHODS
from archiveprobe.evaluate.leaderboard import SELECTION
from archiveprobe.evaluate.system_store import check_name
from archiveprobe.finetune.pool import drop_left
from archiveprobe.finetune.recipe import FROM_CACHE
from archiveprobe.finetune.report import KIND
from archiveprobe.task.config import Task


def check_system(task: Task, recipe: str, system: str) -> None:
    """Whether a recipe's name can name its system, before anything is trained.

    Raises:
        InputError: it is no plain folder name, another system's, or one that means something else.
    """
    if recipe.endswith(FROM_CACHE) or system in (SELECTION, *METHODS):
        raise InputError(
            f"a recipe cannot be called {recipe!r}, which has another meaning: rename its file"
        )
    check_name(task, system, KIND)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only process that trains a system in its folder, without what killed ones left there.

    Raises:
        InputError: another process trains it, which is named; or the folder cannot be written.
    """
    with explained(f"write to {folder}"):
        files.make_folder(folder)
    with Lock(folder, "the run"):
        with explained(f"tidy {folder}"):
            drop_left(folder.parent)
            for left in sorted(folder.rglob(f"{files.TEMPORARY}*")):
                files.remove(left)
        try:
            yield
        finally:
            with suppress(OSError):
                _drop_empty(folder)


def _drop_empty(folder: Path) -> None:
    """Nothing was trained. Whoever opened the lock meanwhile sees that it is gone."""
    if [left.name for left in folder.iterdir()] == [NAME]:
        files.remove(folder / NAME)
        files.remove_folder(folder)
