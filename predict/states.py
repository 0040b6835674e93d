"""What `list systems` shows: whether a stored system could answer now, tried as `submit` does."""

from dataclasses import replace

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.evaluate.dataset import Dataset, survey_dataset
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
    return [
        replace(line, state=_state(dataset, line.system)) if line.state == OK else line
        for line in listed
    ]


def _state(dataset: Dataset, name: str) -> str:
    try:
        system = load_system(dataset, name)
        rows, table = dataset.unlabelled, {row.id: row for row in dataset.rows}
        system.answer(rows.select(check_images(dataset.task, rows, table)[0]))
    except InputError as error:
        return str(error)
    return OK
