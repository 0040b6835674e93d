"""Stored systems: probes, ensembles and fine-tuned networks, that answer for rows of any archive.

Each kind is a `Source` of logits; what follows (calibration, threshold, the answer for unreadable
images) is the same for all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np

from archiveprobe.base.blocks import product
from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.base.wording import one_line
from archiveprobe.cache.reader import Reader
from archiveprobe.embed.decoding import default_workers
from archiveprobe.embed.device import default_device
from archiveprobe.embed.unit_encoder import Look, cache_of_system
from archiveprobe.evaluate.calibration import Calibration
from archiveprobe.evaluate.combine import METHODS, apply_weights
from archiveprobe.evaluate.dataset import Dataset, Rows
from archiveprobe.evaluate.majority import final_decision
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_status import check_up_to_date, command_again
from archiveprobe.evaluate.system_store import Run, load_run
from archiveprobe.finetune.inference import TunedSystem, load_tuned_system
from archiveprobe.finetune.unit_inference import UnitNetworks
from archiveprobe.predict.content import UnitContent
from archiveprobe.probe.choice import Choice, parse_choice
from archiveprobe.probe.crossval import combine_views
from archiveprobe.probe.features import read_matrix
from archiveprobe.probe.table import PROBES
from archiveprobe.task.config import Task
from archiveprobe.task.texts import is_text_cache

AGREEMENT = 1e-6
# How far probabilities of networks may lie apart: on another kind of device, or in half precision
# (tokens or answers); and on the same kind, where batches of another size round differently.
_OTHER_DEVICE, _SAME_DEVICE = 2e-2, 1e-4
# Below this many images starting decoder processes takes longer than decoding.
_FEW = 64
_ROWS_AT_ONCE = 4_096

Model = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Resources:
    """Holds what networks may use to look at images; None: what there is."""

    device: str | None = None
    workers: int | None = None
    progress: Progress = silent
    notify: Notify = lambda _: None


@dataclass(frozen=True)
class Question:
    """Holds rows to answer for; `afresh`: from the images, even where known.

    `content` has them in memory where they are a unit of an archive, not the task's own rows.
    """

    rows: Rows
    afresh: bool = False
    content: UnitContent | None = None


Logits = Callable[[Question], tuple[np.ndarray, np.ndarray | None]]
"""Returns logits (m, K) of rows, NaN where there is no image, and a vote's answers (m,) or None."""


@dataclass(frozen=True)
class Source:
    """Gives a system's logits.

    `caches` maps every backbone whose embeddings it looks through to the digest of their cache's
    fingerprint; `looks` are the views that its own networks look at. `agreement` is how far two
    computations of a probability may lie apart.
    """

    logits: Logits
    caches: Mapping[str, str]
    agreement: float = AGREEMENT
    looks: Sequence[Look] = ()


@dataclass(frozen=True)
class Answers:
    """Holds proba (m, K), NaN where an image cannot be judged, and decision (m,), class indices."""

    proba: np.ndarray
    decision: np.ndarray

    @property
    def readable(self) -> np.ndarray:
        """Return whether there was an image to judge, (m,)."""
        return np.asarray(np.isfinite(self.proba).all(1))

    def labels(self, classes: Sequence[str]) -> list[str | None]:
        """Return the label of every image, None where there was none to judge."""
        pairs = zip(self.decision, self.readable, strict=True)
        return [classes[decision] if known else None for decision, known in pairs]


@dataclass(frozen=True)
class System:
    """Answers for rows of any archive."""

    task: Task
    name: str
    kind: str
    stored: Predictions
    unreadable: int
    calibration: Calibration
    source: Source
    again: str

    def answer(
        self,
        rows: Rows,
        *,
        afresh: bool = False,
        content: UnitContent | None = None,
    ) -> Answers:
        """Answer for the task's own rows, or for those of a unit whose `content` is in memory.

        What networks answered after training is remembered for the task's rows, unless asked for
        `afresh`.

        Raises:
            InputError: rows are not embedded yet, or a cache is damaged.
        """
        question = Question(rows, afresh, content)
        logits, answer = self.source.logits(question)
        proba = self.calibration.apply(logits)
        if answer is None:
            answer = final_decision(self.stored, proba)
        known = np.isfinite(proba).all(1)
        return Answers(proba, np.where(known, answer, self.unreadable))

    def agree(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Compare probabilities (..., K) as far as they can be computed again."""
        near = np.isclose(left, right, rtol=0, atol=self.source.agreement, equal_nan=True)
        return np.asarray(near.all(-1))


def load_system(dataset: Dataset, name: str, resources: Resources | None = None) -> System:
    """Reload a system by name, with all its members if it is an ensemble.

    Raises:
        InputError: no such system, a damaged or foreign one, or one that is out of date.
    """
    return _load(dataset, (), resources or Resources(), name)


def _load(dataset: Dataset, above: tuple[str, ...], resources: Resources, name: str) -> System:
    run = load_run(dataset.task, name)
    _check(run, dataset)
    try:
        calibration = Calibration(**run.record["calibration"])
        source = _source(dataset, run, above, resources)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = one_line(f"{type(error).__name__}: {error}")
        raise InputError(
            f"{run.folder} holds no system of this version ({reason}): run that system again"
        ) from None
    kind, stored = str(run.record["kind"]), run.predictions()
    again = command_again(run, dataset.task)
    return System(dataset.task, name, kind, stored, dataset.unreadable, calibration, source, again)


def _source(dataset: Dataset, run: Run, above: tuple[str, ...], resources: Resources) -> Source:
    kind = run.record["kind"]
    if kind == "probe":
        return probe_source(dataset.task, run)
    if kind == "finetune":
        return tuned_source(dataset, run, resources)
    if kind == "ensemble" and run.system not in above:
        member = partial(_load, dataset, (*above, run.system), resources)
        return ensemble_source(dataset.task, run, member)
    raise ValueError(f"a system of the kind {kind!r} is unknown")


def _check(run: Run, dataset: Dataset) -> None:
    task, record = dataset.task, run.record
    again = f"run `{command_again(run, task)}`"
    if record.get("system") != run.system:
        raise InputError(
            f"{run.folder} holds the system {record.get('system')!r}: give the folder that name, "
            "or run that system again"
        )
    if record.get("task") != task.name:
        raise InputError(
            f"{run.folder} was trained for the task {record.get('task')!r}, not {task.name!r}: "
            f"move it away and {again}"
        )
    check_up_to_date(run, dataset)


def probe_source(task: Task, run: Run) -> Source:
    """Make a stored probe answer from the caches that it was trained on.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the record or the model is none of a probe.
    """
    record, classes = run.record, len(run.record["classes"])
    model = model_of(record, run.arrays())
    choice = parse_choice(record["features"])
    sources = {name: str(record["sources"][name]) for name in choice.backbones}
    of_task = cache(lambda name: Reader(cache_of_system(task, name, sources[name]).folder))

    def matrix(name: str, rows: Rows, content: UnitContent | None, start: int) -> np.ndarray:
        if content is None or is_text_cache(name):
            return read_matrix(of_task(name), rows, name, choice.views, task, as_stored=True)
        held = content.embeddings[name]
        return content.once(
            (name, choice.views, content.is_split, start),
            lambda: read_matrix(held, rows, name, choice.views, task, as_stored=True),
        )

    def logits(question: Question) -> tuple[np.ndarray, None]:
        out = np.full((len(question.rows), classes), np.nan)
        for start in range(0, len(question.rows), _ROWS_AT_ONCE):
            part = question.rows.select(
                range(start, min(start + _ROWS_AT_ONCE, len(question.rows)))
            )
            if not any(part.keys) and not any(part.captions):
                continue
            found = [matrix(name, part, question.content, start) for name in choice.backbones]
            try:
                answer = logits_of_matrix(model, choice, np.concatenate(found, 2), classes)
            except ValueError as error:
                raise InputError(
                    f"{run.folder} holds a model that does not fit its cache ({error}): run that "
                    "system again"
                ) from None
            out[start : start + _ROWS_AT_ONCE] = answer
        return out, None

    return Source(logits, sources)


def model_of(record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Model:
    """Return the fitted probe as a function from columns (n, d) to logits (n, K), NaN for NaN."""
    entry, classes = PROBES[record["probe"]], len(record["classes"])
    if entry.linear:
        # A matrix product needs no scikit-learn, whose import takes longer than all the rest.
        weights = arrays["weights"]
        coef = np.tensordot(weights, arrays["coef"], 1)
        intercept = np.tensordot(weights, arrays["intercept"], 1)
        if coef.shape[1:] != (classes,) or intercept.shape != (classes,):
            raise ValueError(f"coefficients {coef.shape} are none of {classes} classes")
        finite = bool(np.isfinite(coef).all() and np.isfinite(intercept).all())

        def linear(x: np.ndarray) -> np.ndarray:
            if not finite:
                raise ValueError("its numbers are not finite")
            return np.asarray(product(x, coef) + intercept)

        return linear
    # JSON has no tuples.
    settings = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in record["settings"].items()
    }
    decide = entry.make(**settings).with_arrays(arrays, range(classes)).decision_logits

    def of_known(x: np.ndarray) -> np.ndarray:
        known = np.isfinite(x).all(1)
        logits = np.full((len(x), classes), np.nan)
        if known.any():
            logits[known] = decide(x[known])
            if not np.isfinite(logits[known]).all():
                raise ValueError("its numbers are not finite")
        return logits

    return of_known


def logits_of_matrix(model: Model, choice: Choice, x: np.ndarray, classes: int) -> np.ndarray:
    """Compute logits (m, K) of embeddings (m, V, d), NaN where an embedding is."""
    m, views, width = x.shape
    logits = model(x.reshape(-1, width)).reshape(m, views, classes)
    # Numbers of a cache are finite, or there is no row at all; so are those of a model.
    logits[~np.isfinite(logits).all((1, 2))] = np.nan
    if views == 1:
        return np.asarray(logits[:, 0])
    return combine_views(logits, choice.views)


def tuned_source(dataset: Dataset, run: Run, resources: Resources) -> Source:
    """Make a stored fine-tuned system answer from memory, or by its networks.

    Raises:
        InputError: its recipe is of another version.
        KeyError, TypeError, ValueError: the record or the model is none of such a system.
    """
    system, record = load_tuned_system(dataset.task, run.record), run.record
    arrays = run.arrays()
    known, vote = arrays["logits"], arrays.get("answer")
    place = {id_: at for at, id_ in enumerate(run.predictions().test_ids.tolist())}
    same = record["to_predict"] == dataset.unlabelled.digest and len(known) == len(place)
    device = resources.device or default_device()
    networks = UnitNetworks(system, device, resources.notify)

    def of_unit(content: UnitContent) -> tuple[np.ndarray, np.ndarray | None]:
        def look() -> np.ndarray:
            return networks.logits(content.images, content.preparation, content.threads)

        by_view = content.once(run.system, look)
        if content.is_split:
            return by_view.reshape(-1, by_view.shape[-1]), None
        return system.combine(by_view)

    def logits(question: Question) -> tuple[np.ndarray, np.ndarray | None]:
        if question.content is not None:
            return of_unit(question.content)
        ids = question.rows.ids.tolist()
        if not question.afresh and same and all(id_ in place for id_ in ids):
            rows = np.array([place[id_] for id_ in ids], np.intp)
            return known[rows], None if vote is None else vote[rows]
        return _run_networks(system, question, resources, device)

    alike = _kind(record["device"]) == _kind(device) and not record["from_cache"]
    alike = alike and system.precision == "fp32"
    return Source(logits, {}, _SAME_DEVICE if alike else _OTHER_DEVICE, (system.look,))


def _run_networks(
    system: TunedSystem, question: Question, resources: Resources, device: str
) -> tuple[np.ndarray, np.ndarray | None]:
    files = [
        (entry.path, entry.digest) if entry.usable else ("", "") for entry in question.rows.entries
    ]
    distinct = len({key for _, key in files if key})
    workers = resources.workers
    if distinct <= _FEW:
        workers = 0
    elif workers is None:
        workers = default_workers()
    work = system.task.work / "finetune"
    with resources.progress(system.recipe.name, distinct) as advance:
        return system.logits(
            system.task.root,
            files,
            work,
            device=device,
            workers=workers,
            advance=advance,
            notify=resources.notify,
        )


def _kind(device: str) -> str:
    return device.partition(":")[0]


def ensemble_source(task: Task, run: Run, load: Callable[[str], System]) -> Source:
    """Make a stored ensemble answer by its members; `load` reloads one by name.

    Raises:
        InputError: a member is missing, damaged or out of date.
        KeyError, TypeError, ValueError, AttributeError: the record is none of an ensemble.
    """
    entries = run.record["members"]
    method = str(run.record["method"])
    if method not in METHODS:
        raise ValueError(f"a combination by {method!r} is unknown")
    members = [load(str(entry["system"])) for entry in entries]
    weights = np.array([float(entry["weight"]) for entry in entries])
    ties = str(run.record.get("ties", "mean"))

    def logits(question: Question) -> tuple[np.ndarray, np.ndarray | None]:
        rows, answers = question.rows, []
        for member, weight in zip(members, weights, strict=True):
            if METHODS[method].space is not None and not weight:
                answers.append(_even_answers(member, rows))
                continue
            found = member.answer(rows, afresh=question.afresh, content=question.content)
            voted = None if member.stored.answer is None else found.decision
            answers.append(
                replace(member.stored, test_ids=rows.ids, test=found.proba, answer=voted)
            )
        return apply_weights(answers, method, weights, ties)

    agreement = max(member.source.agreement for member in members)
    looks = [look for member in members for look in member.source.looks]
    return Source(logits, _shared_caches(task, run, members), agreement, looks)


def _shared_caches(task: Task, run: Run, members: Sequence[System]) -> dict[str, str]:
    caches: dict[str, str] = {}
    for member in members:
        for name, digest in member.source.caches.items():
            if caches.setdefault(name, digest) != digest:
                raise InputError(
                    f"the members of {run.system} were trained on different caches of {name}: "
                    f"run `archiveprobe probe {task.shell_path}` again"
                )
    return caches


def _even_answers(member: System, rows: Rows) -> Predictions:
    """Return even probabilities for a member of weight 0, which need not be asked."""
    k = len(member.stored.classes)
    test = np.full((len(rows), k), 1 / k)
    return replace(member.stored, test_ids=rows.ids, test=test, answer=None)
