"""The probe fitted anew on labels and decisions, so that the queue learns from its reviewers.

The system on disk stays as it is: only the order of the queue changes, and nothing that a
certificate says depends on that order.
"""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from archiveprobe.base.cores import usable_cores
from archiveprobe.base.errors import InputError
from archiveprobe.base.large_arrays import empty_array
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.base.wording import number_of
from archiveprobe.cache.reader import Reader
from archiveprobe.evaluate.calibration import Calibration
from archiveprobe.evaluate.dataset import Rows, load_dataset
from archiveprobe.evaluate.system_store import Run, load_run
from archiveprobe.predict.rank.candidates import Candidates
from archiveprobe.predict.rank.scores import least_certain
from archiveprobe.predict.systems import logits_of_matrix, model_of
from archiveprobe.probe.base import Probe
from archiveprobe.probe.choice import Choice, parse_choice
from archiveprobe.probe.crossval import training_rows
from archiveprobe.probe.features import find_reader, read_matrix
from archiveprobe.probe.table import PROBES
from archiveprobe.review.decisions import BY_GROUP
from archiveprobe.review.queue import Queue
from archiveprobe.review.state import REFIT
from archiveprobe.task.config import Task
from archiveprobe.task.texts import is_text_cache

_READ_AT_ONCE, _SCORE_AT_ONCE = 4096, 16_384


class Refits:
    """Fits the probe of a review's system anew after `every` looks, and orders the queue by it.

    Raises:
        InputError: the system is no probe on images, or the images have no embeddings in its
            caches.
    """

    def __init__(
        self,
        queue: Queue,
        every: int,
        *,
        notify: Notify = lambda _: None,
        progress: Progress = silent,
    ) -> None:
        self._queue, self._every, self._notify = queue, every, notify
        self._running = Lock()
        self._looks = 0
        opened, task = queue.review.state.opened, queue.review.task
        self._dataset = load_dataset(task)
        self._run = load_run(task, opened["system"])
        self._choice = _choice_of(self._run)
        self._threshold = opened["threshold"]
        readers = [find_reader(self._dataset, name) for name in self._choice.backbones]
        for reader in readers:
            reader.keep_shard = True
        self._labelled = np.concatenate(
            [
                read_matrix(reader, self._dataset.labelled, name, self._choice.views, task)
                for reader, name in zip(readers, self._choice.backbones, strict=True)
            ],
            2,
        )
        self._images = _embeddings(queue, self._choice, readers, progress)
        self._has_embedding = np.concatenate(
            [np.isfinite(part[:, 0]).all(1) for part in _parts(self._images)]
        )
        if not self._has_embedding.any():
            raise InputError(
                f"no image of the review has an embedding in the caches of {opened['system']}: "
                "answer the archive again with `predict --keep-embeddings`, or leave --refit out"
            )

    def run_if_due(self) -> bool:
        """Fit anew where enough was decided since, and nobody else does; say whether it was done.

        Raises:
            InputError: the log was edited, or the disk refuses.
        """
        if not self._running.acquire(blocking=False):
            return False
        try:
            with self._queue.review.log.locked():
                self._queue.sync()
                looks = self._queue.review.state.looks()
                answers = self._queue.review.state.answers()
                decided = {image: each.answer for image, each in answers.items()}
                reviewed = self._queue.review.state.reviewed.values()
                shown = [each.image for each in reviewed if each.shown != BY_GROUP]
            if looks // self._every <= self._looks // self._every:
                return False
            self._looks = looks
            return self._fit({image: decided[image] for image in shown})
        finally:
            self._running.release()

    def _fit(self, decided: Mapping[str, str]) -> bool:
        classes = list(self._dataset.classes)
        # What corrections label already is among the labelled rows.
        labelled = {key.hex() for key in self._dataset.labelled.keys if key}
        known = {
            image: label
            for image, label in decided.items()
            if label in classes and image not in labelled
        }
        places = self._queue.review.population.places(list(known))
        labels = np.array([classes.index(label) for label in known.values()], np.int64)
        usable = self._has_embedding[places] if len(places) else np.zeros(0, bool)
        # Threads of BLAS that wait for a core others use take many times as long as one alone.
        with threadpool_limits(1, "blas"):
            model = self._fitted(places[usable], labels[usable])
            proba = self._answers(model)
        there = np.isfinite(proba).all(1)
        positive = classes.index(self._queue.review.state.positive)
        scores = np.where(there, proba[:, positive], self._queue.review.population.scores)
        margin = least_certain(positive, self._threshold)
        margins = -margin(Candidates([], [], [], proba))
        margins = np.where(there, margins, self._queue.review.population.margins)
        with self._queue.review.log.locked():
            self._queue.order_by(scores)
            self._queue.order_uncertain_by(margins)
            self._log(len(known), scores)
        decisions = number_of(len(known), "decision")
        self._notify(f"refitted on {decisions}: the order of the queue is new")
        return True

    def _log(self, decisions: int, scores: np.ndarray) -> None:
        content = {
            "looks": self._looks,
            "decisions": decisions,
            "labelled": len(self._dataset),
            "probe": self._run.record["probe"],
            "scores_sha256": hashlib.sha256(scores.tobytes()).hexdigest(),
        }
        # Each of several processes fits for itself; of the same decisions the first one says so.
        if all(line.content["looks"] != self._looks for line in self._queue.review.state.refits):
            self._queue.review.log.append(REFIT, [content])
            self._queue.sync()

    def _fitted(self, places: np.ndarray, labels: np.ndarray) -> Probe:
        """Fit the system's own probe on the labelled images and those decided (m,)."""
        seen = np.isfinite(self._labelled[:, 0]).all(1)
        new = np.asarray(self._images[places], np.float32)
        x = np.concatenate([self._labelled[seen], new])
        y = np.concatenate([self._dataset.labels[seen], labels])
        model = _probe_of(self._run.record)
        given = training_rows(x, np.ones(len(x), bool))
        model.fit_path(given, np.repeat(y, x.shape[1]))
        model.weights_ = _weights(model, self._run.record)
        return model

    def _answers(self, model: Probe) -> np.ndarray:
        """Compute probabilities (n, K) of all images, NaN where there is no embedding."""
        record, classes = self._run.record, len(self._dataset.classes)
        settings = {**record, "settings": model.get_params()}
        compute = model_of(settings, model.arrays())

        def logits(part: np.ndarray) -> np.ndarray:
            return logits_of_matrix(compute, self._choice, part, classes)

        with ThreadPoolExecutor(usable_cores()) as pool:
            found = list(pool.map(logits, _parts(self._images)))
        return Calibration(**record["calibration"]).apply(np.concatenate(found))


def _choice_of(run: Run) -> Choice:
    """Return what a system looks at. Raises InputError: it cannot be fitted anew here."""
    kind = run.record.get("kind")
    if kind != "probe":
        members = ", ".join(str(each["system"]) for each in run.record.get("members", ()))
        hint = f": name one of its members ({members})" if members else ""
        raise InputError(f"--refit fits probes anew, {run.system} is of the kind {kind!r}{hint}")
    choice = parse_choice(run.record["features"])
    if PROBES[run.record["probe"]].prompts or any(map(is_text_cache, choice.backbones)):
        raise InputError(f"--refit fits probes on images anew, and {run.system} looks at words")
    return choice


def _embeddings(
    queue: Queue, choice: Choice, readers: Sequence[Reader], progress: Progress
) -> np.ndarray:
    """Read the embeddings of all images (n, V, d) float16, NaN where there is none."""
    review, n = queue.review, len(queue.review.population)
    keys = [bytes(key) for key in review.population.keys]
    # A shard is read whole for any of its rows: in the order of the shards each is read once.
    order = np.lexsort([reader.keys.locate(keys) for reader in readers])
    matrix: np.ndarray | None = None
    with progress("reading embeddings", n) as advance:
        for start in range(0, n, _READ_AT_ONCE):
            part = order[start : start + _READ_AT_ONCE]
            some = [keys[at] for at in part]
            found = [
                _read(reader, some, name, choice, review.task)
                for reader, name in zip(readers, choice.backbones, strict=True)
            ]
            rows = np.concatenate(found, 2)
            if matrix is None:
                matrix = empty_array((n, *rows.shape[1:]), np.float16, review.folder)
            matrix[part] = rows
            for _ in some:
                advance()
    assert matrix is not None
    return matrix


def _read(
    reader: Reader, keys: Sequence[bytes], name: str, choice: Choice, task: Task
) -> np.ndarray:
    there = reader.keys.holds(keys)
    known = [key if held else None for key, held in zip(keys, there, strict=True)]
    rows = Rows(np.empty(len(keys), np.str_), known, [None] * len(keys))
    return read_matrix(reader, rows, name, choice.views, task, as_stored=True)


def _parts(matrix: np.ndarray) -> list[np.ndarray]:
    return [matrix[at : at + _SCORE_AT_ONCE] for at in range(0, len(matrix), _SCORE_AT_ONCE)]


def _probe_of(record: Mapping[str, Any]) -> Probe:
    """Make the probe of a stored system, with the candidates only that count there."""
    entry = PROBES[record["probe"]]
    settings = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in record["settings"].items()
    }
    model = entry.make(**settings)
    candidates = model.candidates()
    used = [at for at, each in enumerate(candidates) if _weight(each, record) > 0]
    # A path of one setting for each candidate can be cut down to those.
    paths = [
        key
        for key, value in settings.items()
        if isinstance(value, tuple) and len(value) == len(candidates)
    ]
    if len(paths) == 1 and used:
        settings[paths[0]] = tuple(settings[paths[0]][at] for at in used)
        model = entry.make(**settings)
    return model


def _weights(model: Probe, record: Mapping[str, Any]) -> np.ndarray:
    return np.array([_weight(each, record) for each in model.candidates()], np.float64)


def _weight(candidate: Mapping[str, Any], record: Mapping[str, Any]) -> float:
    """Return how much a candidate counts in the stored system."""
    for stored in record["candidates"]:
        if {key: value for key, value in stored.items() if key != "weight"} == candidate:
            return float(stored["weight"])
    return 0.0
