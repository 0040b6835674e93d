"""Stored systems, ready to answer: reloaded, held against what they were trained on, applied."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache.reader import Reader
from cache.spec import find_caches
from evaluate.calibration import Calibration
from evaluate.dataset import Dataset, Rows
from evaluate.ensemble import METHODS, combine, members_of
from evaluate.overview import stale
from evaluate.predictions import Predictions
from evaluate.runs import PREDICTIONS, Run, load_run
from evaluate.threshold import decide
from probe.features import Choice, parse_choice, read_matrix
from probe.table import PROBES
from task.config import Task
from task.errors import InputError
from task.texts import text_cache

AGREEMENT = 1e-6
_AT_ONCE = 4_096
_TEXT = text_cache("")
# Their refit learns no weights, so combining anew is applying them.
_WEIGHTLESS = ("rank", "vote")

Model = Callable[[np.ndarray], np.ndarray]
Logits = Callable[[Rows, Path], tuple[np.ndarray, np.ndarray | None]]
"""Logits (m, K) of rows whose images are in the caches of a folder, and a hard vote's answers."""


@dataclass(frozen=True)
class Answers:
    """proba (m, K), NaN where a picture has no embedding; decision (m,), class indices."""

    proba: np.ndarray
    decision: np.ndarray

    @property
    def readable(self) -> np.ndarray:
        """(m,) whether there was a picture to judge."""
        return np.asarray(np.isfinite(self.proba).all(1))


@dataclass(frozen=True)
class System:
    """A stored system that answers for rows of any archive.

    `sources` maps every backbone it looks through to the digest of its cache's fingerprint.
    """

    task: Task
    name: str
    kind: str
    stored: Predictions
    sources: Mapping[str, str]
    unreadable: int
    calibration: Calibration
    logits: Logits

    def answer(self, rows: Rows, caches: Path | None = None) -> Answers:
        """Probabilities and decisions for rows; `caches` holds their images, if not the task's.

        Raises:
            InputError: rows are not embedded yet.
            CacheError: a cache is damaged.
        """
        logits, answer = self.logits(rows, caches or self.task.work / "cache")
        proba = self.calibration.apply(logits)
        if answer is None:
            answer = self._decided(proba)
        known = np.isfinite(proba).all(1)
        return Answers(proba, np.where(known, answer, self.unreadable))

    def _decided(self, proba: np.ndarray) -> np.ndarray:
        one = self.stored
        if len(one.classes) > 2 or np.isnan(one.cut):
            return np.asarray(np.nan_to_num(proba).argmax(1))
        return decide(proba[:, one.positive], one.cut, one.positive)


def load_system(dataset: Dataset, name: str) -> System:
    """Reload a system by name, with all its members if it is an ensemble.

    Raises:
        InputError: no such system, a damaged or foreign one, or one that is stale: labels, folds
            or a member have changed since.
    """
    return _load(dataset, name, ())


def _load(dataset: Dataset, name: str, above: tuple[str, ...]) -> System:
    run = load_run(dataset.task, name)
    _check(run, dataset)
    try:
        calibration = Calibration(**run.record["calibration"])
        if run.record["kind"] == "probe":
            sources, logits = _probe(dataset.task, run)
        elif run.record["kind"] == "ensemble" and name not in above:
            sources, logits = _ensemble(dataset, run, (*above, name))
        else:
            raise ValueError(f"a system of the kind {run.record['kind']!r} is unknown")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise InputError(
            f"{run.folder} holds no system of this version ({reason}): run that system again"
        ) from None
    return System(
        dataset.task,
        name,
        str(run.record["kind"]),
        run.predictions(),
        sources,
        dataset.unreadable,
        calibration,
        logits,
    )


def _check(run: Run, dataset: Dataset) -> None:
    task, record = dataset.task, run.record
    again = f"run `archiveprobe probe {task.file}` again"
    if record.get("system") != run.system:
        raise InputError(
            f"{run.folder} holds the system {record.get('system')!r}: give the folder that name, "
            "or run that system again"
        )
    if not stale(run, dataset):
        return
    if record.get("task") != task.name:
        raise InputError(
            f"{run.folder} was trained for the task {record.get('task')!r}, not {task.name!r}: "
            f"move it away and {again}"
        )
    what = "labels" if record.get("labels") != dataset.labels_digest else "folds"
    raise InputError(f"{run.system} is stale, {what} have changed since it was trained: {again}")


def _probe(task: Task, run: Run) -> tuple[Mapping[str, str], Logits]:
    record, classes = run.record, len(run.record["classes"])
    model = _model(record, run.arrays())
    choice = parse_choice(record["features"])
    sources = {name: str(record["sources"][name]) for name in choice.backbones}
    readers: dict[tuple[str, Path], Reader] = {}

    def reader(name: str, caches: Path) -> Reader:
        root = task.work / "cache" if name.endswith(_TEXT) else caches
        if (name, root) not in readers:
            readers[name, root] = _reader(task, run.system, root, name, sources[name])
        return readers[name, root]

    def answer(rows: Rows, caches: Path) -> tuple[np.ndarray, None]:
        out = np.full((len(rows), classes), np.nan)
        for start in range(0, len(rows), _AT_ONCE):
            part = _part(rows, slice(start, start + _AT_ONCE))
            if not any(part.keys) and not any(part.captions):
                continue
            found = [
                read_matrix(reader(name, caches), part, name, choice.views, task)
                for name in choice.backbones
            ]
            try:
                logits = _of_matrix(model, choice, np.concatenate(found, 2), classes)
            except ValueError as error:
                raise InputError(
                    f"{run.folder} holds a model that does not fit its cache ({error}): run that "
                    "system again"
                ) from None
            out[start : start + _AT_ONCE] = logits
        return out, None

    return sources, answer


def _model(record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Model:
    """The fitted probe as a function from columns (n, d) to logits (n, K)."""
    entry, classes = PROBES[record["probe"]], len(record["classes"])
    if entry.linear:
        # A matrix product needs no scikit-learn, whose import takes longer than all the rest.
        weights = arrays["weights"]
        coef = np.tensordot(weights, arrays["coef"], 1)
        intercept = np.tensordot(weights, arrays["intercept"], 1)
        if coef.shape[1:] != (classes,) or intercept.shape != (classes,):
            raise ValueError(f"coefficients {coef.shape} are none of {classes} classes")
        return lambda x: np.asarray(x.astype(np.float64) @ coef + intercept)
    settings = {key: _as_given(value) for key, value in record["settings"].items()}
    return entry.make(**settings).with_arrays(arrays, range(classes)).decision_logits


def _as_given(value: Any) -> Any:
    """JSON has no tuples, and estimators shall not share a list with the record."""
    return tuple(value) if isinstance(value, list) else value


def _part(rows: Rows, which: slice) -> Rows:
    return Rows(rows.ids[which], rows.keys[which], rows.captions[which])


def _of_matrix(model: Model, choice: Choice, x: np.ndarray, classes: int) -> np.ndarray:
    """Logits (m, K) for embeddings (m, V, d), NaN where an embedding is."""
    m, views, width = x.shape
    there = np.isfinite(x).all((1, 2))
    logits = np.full((m, views, classes), np.nan)
    if there.any():
        flat = model(x[there].reshape(-1, width))
        if not np.isfinite(flat).all():
            raise ValueError("its numbers are not finite")
        logits[there] = flat.reshape(-1, views, classes)
    if views == 1:
        return np.asarray(logits[:, 0])
    from probe.crossval import combine_views

    return combine_views(logits, choice.views)


def _reader(task: Task, system: str, root: Path, name: str, digest: str) -> Reader:
    """The very cache that a system was trained on."""
    for record in find_caches(root, name):
        if record.digest == digest:
            return Reader(record.folder)
    raise InputError(
        f"{system} was trained on a cache of {name} ({digest[:16]}) that is not in {root}: bring "
        f"it back, or run `archiveprobe embed {task.file}` and `archiveprobe probe {task.file}`"
    )


def _ensemble(
    dataset: Dataset, run: Run, above: tuple[str, ...]
) -> tuple[Mapping[str, str], Logits]:
    entries = run.record["members"]
    members = [_member(dataset, run, entry, above) for entry in entries]
    weights = np.array([float(entry["weight"]) for entry in entries])
    method = str(run.record["method"])
    if method not in METHODS:
        raise ValueError(f"a combination by {method!r} is unknown")
    ties = str(run.record.get("ties", "mean"))
    sources: dict[str, str] = {}
    for member in members:
        for name, digest in member.sources.items():
            if sources.setdefault(name, digest) != digest:
                raise InputError(
                    f"the members of {run.system} were trained on different caches of {name}: "
                    f"run `archiveprobe probe {dataset.task.file}` again"
                )

    def logits(rows: Rows, caches: Path) -> tuple[np.ndarray, np.ndarray | None]:
        asked = []
        for member, weight in zip(members, weights, strict=True):
            counts = method in _WEIGHTLESS or weight
            proba = member.answer(rows, caches).proba if counts else _flat(member, len(rows))
            asked.append(replace(member.stored, test_ids=rows.ids, test=proba))
        return _combined(method, asked, weights, ties)

    return sources, logits


def _flat(member: System, count: int) -> np.ndarray:
    """Stands in for a member that does not count."""
    k = len(member.stored.classes)
    return np.full((count, k), 1 / k)


def _member(dataset: Dataset, run: Run, entry: Mapping[str, Any], above: tuple[str, ...]) -> System:
    name, task = str(entry["system"]), dataset.task
    again = f"run `archiveprobe ensemble {task.file} --method {run.record['method']}` again"
    try:
        content = load_run(task, name).files[PREDICTIONS]
    except InputError as error:
        raise InputError(f"{run.system} lacks its member {name}: {again} ({error})") from None
    known = entry.get("predictions")
    if known is not None and known != hashlib.sha256(content).hexdigest():
        raise InputError(f"{run.system} is stale, its member {name} has changed since: {again}")
    return _load(dataset, name, above)


def _combined(
    method: str, members: Sequence[Predictions], weights: np.ndarray, ties: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """What evaluate.ensemble.combine gives for the rows to predict, at weights found before."""
    if method in _WEIGHTLESS:
        done = combine(members, method, ties)
        return done.unlabelled, done.answer
    logs = members_of(members).unlabelled
    if method == "greedy":
        return np.log(np.tensordot(weights, np.exp(logs), 1)), None
    return np.tensordot(weights, logs, 1), None
