"""The systems of a task that are on disk, one line each, and whether they are still up to date."""

import hashlib
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.base.wording import first_few
from archiveprobe.cache.spec import CacheRecord
from archiveprobe.evaluate.caches import asked_of, whole_name
from archiveprobe.evaluate.dataset import PARTS, Dataset, survey_dataset
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_names import systems
from archiveprobe.evaluate.system_store import PREDICTIONS, Run, load_run, stored_record
from archiveprobe.task.config import TUNED, Task
from archiveprobe.task.texts import is_text_cache

FROM_CACHE = "@cache"
"""Ends the name of a system that was trained from cached tokens."""
OK, OUT_OF_DATE = "ok", "out of date"


@dataclass(frozen=True)
class Stored:
    """A system on disk; `state` is "ok", what is wrong with it, or what it is out of date about."""

    system: str
    kind: str
    features: str
    threshold: float | None
    state: str


def overview(task: Task, *, notify: Notify = lambda _: None) -> list[Stored]:
    """List every system of a task, sorted by name; a damaged one is listed as such.

    `notify` is told of corrected labels.

    Raises:
        InputError: the task's rows or folds cannot be read.
    """
    names = systems(task)
    if not names:
        return []
    dataset = survey_dataset(task)
    for remark in dataset.corrections.remarks():
        notify(remark)
    return [_stored(dataset, name) for name in names]


def _stored(dataset: Dataset, name: str) -> Stored:
    try:
        run = load_run(dataset.task, name)
    except InputError as error:
        return Stored(name, "-", "-", None, str(error))
    record, changed = run.record, out_of_date(run, dataset)
    state = f"{OUT_OF_DATE}: {', '.join(changed)}" if changed else OK
    kind, features = str(record.get("kind")), str(record.get("features"))
    return Stored(name, kind, features, record.get("threshold"), state)


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
    changed += [*_changed_settings(record, dataset), *_changed_caches(record, dataset)]
    if "partial" in then and dataset.partial is None and "rows" not in changed:
        # Rows to predict were left out; its scores say so, and so do those of its ensembles.
        changed.insert(0, "rows")
    of_texts = any(map(is_text_cache, _sources(record)))
    if of_texts and then.get("texts") != dataset.parts["texts"]:
        changed.append("texts")
    if record.get("kind") == "finetune" and _has_other_start(record, dataset):
        changed.append("starting weights")
    for entry in record.get("members", ()):
        name = str(_mapping(entry).get("system"))
        if name == run.system or _has_changed(name, _mapping(entry), dataset):
            changed.append(f"its member {name}")
    return changed


def _changed_settings(record: Mapping[str, Any], dataset: Dataset) -> Iterator[str]:
    """Yield the settings of the task that figures depend on and that have changed."""
    if len(dataset.classes) == 2 and record.get("positive") != dataset.positive:
        yield "the positive label"
    if record.get("unreadable") != dataset.unreadable and None in dataset.labelled.keys:
        yield "the answer for unreadable images"


def _sources(record: Mapping[str, Any]) -> dict[str, str]:
    sources = _mapping(record.get("sources"))
    return {str(name): str(digest) for name, digest in sources.items()}


def _changed_caches(record: Mapping[str, Any], dataset: Dataset) -> Iterator[str]:
    """Yield the caches that a system was trained on and that are no longer in use."""
    for name, digest in _sources(record).items():
        in_use = dataset.snapshot.cache(asked_of(dataset.task, name))
        if in_use is None or in_use.fingerprint != digest:
            yield f"the cache of {name}"


def _tuned_systems(record: Mapping[str, Any]) -> list[str]:
    """Return the fine-tuned systems whose embeddings a system looks through, each once."""
    names = [whole_name(name) for name in _sources(record) if name.startswith(TUNED)]
    return [name.removeprefix(TUNED) for name in dict.fromkeys(names)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _has_other_start(record: Mapping[str, Any], dataset: Dataset) -> bool:
    """Compare the weights that fine-tuning began with to those of the backbone now."""
    began = _mapping(record.get("made_of")).get("weights")
    for cache in dataset.snapshot.caches:
        same = cache.asked.get("backbone") == record.get("features")
        if not same or cache.asked.get("views") == "text" or cache.folder is None:
            continue
        # What cannot be read says nothing of the weights; whoever needs that cache gets the error.
        with suppress(InputError):
            now = CacheRecord.read(dataset.task.caches / cache.folder).fingerprint
            if now.get("weights") != began:
                return True
    return False


def _has_changed(name: str, entry: Mapping[str, Any], dataset: Dataset) -> bool:
    """Compare a member with what its ensemble has recorded of it."""
    try:
        member = load_run(dataset.task, name)
    except InputError:
        return True
    digest = hashlib.sha256(member.files[PREDICTIONS]).hexdigest()
    return entry.get("predictions") != digest or bool(out_of_date(member, dataset))


def command_again(run: Run, task: Task) -> str:
    """Return the command that makes a system again, as one types it."""
    record, stored = run.record, systems(task)
    words = ["archiveprobe", str(record.get("kind")), str(task.file)]
    members = [str(_mapping(entry).get("system")) for entry in record.get("members", ())]
    if record.get("kind") == "ensemble" and all(member in stored for member in members):
        words += ["--method", str(record.get("method")), "--name", run.system]
        words += _repeated("--system", members)
    elif record.get("kind") == "finetune":
        launch = _mapping(record.get("launch"))
        recipe, cached, _ = run.system.partition(FROM_CACHE)
        words += ["--recipe", str(launch.get("recipe", recipe))]
        words += _repeated("--set", launch.get("set", ()))
        words += ["--fold", "all", *(["--from-cache"] if cached else [])]
    else:
        words[1] = "probe"
        if _tuned_systems(record):
            words += ["--probe", str(record.get("probe"))]
            words += ["--features", str(record.get("features"))]
    return shlex.join(words)


def _repeated(option: str, values: Iterable[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def check_up_to_date(run: Run, dataset: Dataset) -> None:
    """Check that a system is about the state of the task as it is now.

    Raises:
        InputError: it is out of date; the message says about what, and the command to run.
    """
    changed = out_of_date(run, dataset)
    if changed:
        raise InputError(f"{_stale(run, changed)}: run `{_first_command(run, dataset)}`")


def _stale(run: Run, changed: Sequence[str]) -> str:
    return f"{run.system} is {OUT_OF_DATE} ({', '.join(changed)} changed since)"


def _first_command(run: Run, dataset: Dataset) -> str:
    """Return the command to run first: that of what a system is made of, where it is out of date.

    An ensemble is made of its members, a probe of the fine-tuned networks that it looks through.
    """
    members = [str(_mapping(entry).get("system")) for entry in run.record.get("members", ())]
    for name in [*members, *_tuned_systems(run.record)]:
        with suppress(InputError):
            member = load_run(dataset.task, name)
            if name != run.system and out_of_date(member, dataset):
                return _first_command(member, dataset)
    return command_again(run, dataset.task)


def load_current(
    dataset: Dataset, kinds: Collection[str], *, but: Collection[str] = ()
) -> tuple[list[Predictions], list[str]]:
    """Load the stored systems of some kinds that are up to date, and say which are left out.

    Those in `but` are passed over.
    """
    found, said = [], []
    for name in systems(dataset.task):
        kind = (stored_record(dataset.task, name) or {}).get("kind")
        # Of what kind a damaged one was nobody knows.
        if name in but or kind not in (*kinds, None):
            continue
        try:
            run = load_run(dataset.task, name)
            check_up_to_date(run, dataset)
            found.append(run.predictions())
        except InputError as error:
            said.append(f"left out: {error}")
    return found, said


def load_systems(dataset: Dataset, names: Sequence[str] = ()) -> list[Predictions]:
    """Load the predictions of these systems, or of all that are no ensembles.

    Raises:
        InputError: none is there, or one of them is damaged or out of date.
    """
    task = dataset.task
    runs = [load_run(task, name) for name in dict.fromkeys(names) or systems(task)]
    if not names:
        runs = [run for run in runs if run.record.get("kind") != "ensemble"]
    if not runs:
        raise InputError(
            f"no systems in {task.work / 'runs'}: run `archiveprobe probe {task.shell_path}` first"
        )
    changed = {run.system: out_of_date(run, dataset) for run in runs}
    old = [run for run in runs if changed[run.system]]
    if len(old) == len(runs) or (old and names):
        stale = first_few(_stale(run, changed[run.system]) for run in old)
        commands = dict.fromkeys(f"`{_first_command(run, dataset)}`" for run in old)
        raise InputError(f"{stale}: run {', then '.join(commands)}")
    return [run.predictions() for run in runs if run not in old]
