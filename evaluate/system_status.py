"""The systems of a task that are on disk, one line each, and whether they are still up to date."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.cache.spec import CacheRecord
from archiveprobe.evaluate.caches import asked_of
from archiveprobe.evaluate.dataset import PARTS, Dataset, survey_dataset
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_store import PREDICTIONS, Run, load_run, systems
from archiveprobe.task.config import Task
from archiveprobe.task.texts import text_cache

OK, OUT_OF_DATE = "ok", "out of date"
_TEXT = text_cache("")


@dataclass(frozen=True)
class Stored:
    """A system on disk; `state` is "ok", what is wrong with it, or what it is out of date about."""

    system: str
    kind: str
    features: str
    threshold: float | None
    state: str


def overview(task: Task) -> list[Stored]:
    """List every system of a task, sorted by name; a damaged one is listed as such.

    Raises:
        InputError: the task's rows or folds cannot be read.
    """
    names = systems(task)
    if not names:
        return []
    dataset = survey_dataset(task)
    return [_stored(task, dataset, name) for name in names]


def _stored(task: Task, dataset: Dataset, name: str) -> Stored:
    try:
        run = load_run(task, name)
    except InputError as error:
        return Stored(name, "-", "-", None, str(error))
    record, changed = run.record, out_of_date(run, dataset)
    return Stored(
        name,
        str(record.get("kind")),
        str(record.get("features")),
        record.get("threshold"),
        f"{OUT_OF_DATE}: {', '.join(changed)}" if changed else OK,
    )


def out_of_date(run: Run, dataset: Dataset) -> list[str]:
    """Name what has changed since a system was fitted; nothing where it is up to date.

    Rows to predict that are new or others do not count: they are answered when they are asked for.
    """
    record, then = run.record, run.record.get("snapshot")
    if record.get("task") != dataset.task.name:
        return ["the task"]
    if not isinstance(then, Mapping):
        return ["the version of archiveprobe"]
    changed = [name for name in PARTS if then.get(name) != dataset.parts[name]]
    changed += _other_caches(record, dataset)
    if "partial" in then and dataset.partial is None and "rows" not in changed:
        # Rows to predict were left out; its figures say so, and so do those of its ensembles.
        changed.insert(0, "rows")
    if any(str(name).endswith(_TEXT) for name in _mapping(record.get("sources"))):
        changed += ["texts"] if then.get("texts") != dataset.parts["texts"] else []
    if record.get("kind") == "finetune":
        changed += _other_start(record, dataset)
    members = record.get("members", ())
    return changed + [name for entry in members for name in _other_member(entry, run, dataset)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _other_caches(record: Mapping[str, Any], dataset: Dataset) -> list[str]:
    """Name caches that differ from those in use for what the task asks now."""
    changed = []
    for name, digest in _mapping(record.get("sources")).items():
        in_use = dataset.snapshot.cache(asked_of(dataset.task, str(name)))
        if in_use is None or in_use.fingerprint != digest:
            changed.append(f"the cache of {name}")
    return changed


def _other_start(record: Mapping[str, Any], dataset: Dataset) -> list[str]:
    """Compare the weights that fine-tuning began with to those of the backbone now."""
    began = _mapping(record.get("made_of")).get("weights")
    for cache in dataset.snapshot.caches:
        same = cache.asked.get("backbone") == record.get("features")
        if not same or cache.asked.get("views") == "text" or cache.folder is None:
            continue
        try:
            now = CacheRecord.read(dataset.task.work / "cache" / cache.folder).fingerprint
        except InputError:
            # What cannot be read says nothing of the weights; whoever needs that cache is told.
            continue
        if now.get("weights") != began:
            return ["starting weights"]
    return []


def _other_member(entry: Any, run: Run, dataset: Dataset) -> list[str]:
    name = str(_mapping(entry).get("system"))
    try:
        member = load_run(dataset.task, name)
    except InputError:
        return [f"its member {name}"]
    digest = hashlib.sha256(member.files[PREDICTIONS]).hexdigest()
    changed = entry.get("predictions") != digest or name == run.system
    return [f"its member {name}"] if changed or out_of_date(member, dataset) else []


def check_up_to_date(run: Run, dataset: Dataset, again: str) -> None:
    """Check that a system is about the state of the task as it is now.

    Raises:
        InputError: it is out of date; the message says about what, and ends with `again`.
    """
    changed = out_of_date(run, dataset)
    if changed:
        raise InputError(
            f"{run.system} is {OUT_OF_DATE} ({', '.join(changed)}, changed since): {again}"
        )


def load_systems(dataset: Dataset, names: Sequence[str] = ()) -> list[Predictions]:
    """Load the predictions of these systems, or of all that are no ensembles.

    Raises:
        InputError: none is there, or one of them is damaged or out of date.
    """
    task = dataset.task
    again = f"run `archiveprobe probe {task.file}` again"
    runs = [load_run(task, name) for name in dict.fromkeys(names) or systems(task)]
    if not names:
        runs = [run for run in runs if run.record.get("kind") != "ensemble"]
    if not runs:
        raise InputError(f"no systems in {task.work / 'runs'}: run `archiveprobe probe` first")
    changed = {run.system: out_of_date(run, dataset) for run in runs}
    old = [name for name, parts in changed.items() if parts]
    if len(old) == len(runs) or (old and names):
        what = ", ".join(dict.fromkeys(part for name in old for part in changed[name]))
        raise InputError(f"{', '.join(old)}: {OUT_OF_DATE} ({what}, changed since): {again}")
    return [run.predictions() for run in runs if run.system not in old]
