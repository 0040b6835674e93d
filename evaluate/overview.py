"""The systems of a task that are on disk, one line each."""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluate.dataset import Dataset, load_dataset
from evaluate.predictions import Predictions
from evaluate.runs import Run, load_run, systems
from task.config import Task
from task.errors import InputError

STALE = "stale: run it again"


@dataclass(frozen=True)
class Stored:
    """A system on disk; `state` is "sound", what is wrong with it, or that it is stale."""

    system: str
    kind: str
    features: str
    cut: float | None
    state: str


def overview(task: Task) -> list[Stored]:
    """Every system of a task, sorted by name; a damaged one is listed as such.

    Raises:
        InputError: the task's rows or folds cannot be read.
    """
    names = systems(task)
    if not names:
        return []
    dataset = load_dataset(task)
    return [_stored(task, dataset, name) for name in names]


def _stored(task: Task, dataset: Dataset, name: str) -> Stored:
    try:
        run = load_run(task, name)
    except InputError as error:
        return Stored(name, "-", "-", None, str(error))
    record = run.record
    return Stored(
        name,
        str(record.get("kind")),
        str(record.get("features")),
        record.get("cut"),
        STALE if stale(run, dataset) else "sound",
    )


def stale(run: Run, dataset: Dataset) -> bool:
    """Whether the labels or the folds have changed since the system was fitted."""
    now = (dataset.folds_digest, dataset.labels_digest)
    return (run.record.get("folds"), run.record.get("labels")) != now


def load_systems(dataset: Dataset, names: Sequence[str] = ()) -> list[Predictions]:
    """The predictions of these systems; of all probes and fine-tuned ones where none is named.

    Raises:
        InputError: none is there, or one of them is damaged or stale.
    """
    task = dataset.task
    runs = [load_run(task, name) for name in dict.fromkeys(names) or systems(task)]
    if not names:
        runs = [run for run in runs if run.record.get("kind") != "ensemble"]
    if not runs:
        raise InputError(f"no systems in {task.work / 'runs'}: run `archiveprobe probe` first")
    old = [run.system for run in runs if stale(run, dataset)]
    if old and names:
        raise InputError(
            f"{', '.join(old)}: labels or folds have changed since; run `archiveprobe probe "
            f"{task.file}` again"
        )
    sound = [run.predictions() for run in runs if run.system not in old]
    if not sound:
        raise InputError(
            f"labels or folds have changed since every system in {task.work / 'runs'} was fitted: "
            f"run `archiveprobe probe {task.file}` again"
        )
    return sound
