"""What `list systems` shows: whether a stored system could answer now, tried as `submit` does."""

from dataclasses import replace
from functools import cache

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.evaluate.dataset import survey_dataset
from archiveprobe.evaluate.system_status import OK, Stored, overview
from archiveprobe.evaluate.task_state import read_state
from archiveprobe.predict.checks import check_images
from archiveprobe.predict.systems import load_system
from archiveprobe.task.config import Task


def system_states(task: Task, *, notify: Notify = lambda _: None) -> list[Stored]:
    """List every stored system, sorted by name; one is "ok" where `submit` would accept it.

    Each is loaded and answers for a few rows to predict, whose images are looked at: the same rows
    that `submit` looks at again. Nothing is written; `notify` is told of corrected labels.

    Raises:
        InputError: the task's rows or folds cannot be read.
    """
    listed = overview(task, notify=notify)
    if not any(line.state == OK for line in listed):
        return listed
    try:
        read_state(task).check_complete()
    except InputError as error:
        said = str(error)
        return [replace(line, state=said) if line.state == OK else line for line in listed]
    dataset = survey_dataset(task)
    rows = dataset.unlabelled
    looked_at = cache(lambda: rows.select(check_images(dataset, rows)[0]))

    def state(name: str) -> str:
        try:
            load_system(dataset, name).answer(looked_at())
        except InputError as error:
            return str(error)
        return OK

    return [
        replace(line, state=state(line.system)) if line.state == OK else line for line in listed
    ]
