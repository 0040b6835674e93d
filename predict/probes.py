"""A stored probe: its coefficients on the columns of the very caches it was trained on."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.spec import find_caches
from archiveprobe.evaluate.system_store import Run
from archiveprobe.predict.system import Question, Source
from archiveprobe.probe.features import Choice, parse_choice, read_matrix
from archiveprobe.probe.table import PROBES
from archiveprobe.task.config import Task
from archiveprobe.task.texts import text_cache

_AT_ONCE = 4_096
_TEXT = text_cache("")

Model = Callable[[np.ndarray], np.ndarray]


def probe_source(task: Task, run: Run) -> Source:
    """What a stored probe answers from.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the record or the model is none of a probe.
    """
    record, classes = run.record, len(run.record["classes"])
    model = _model(record, run.arrays())
    choice = parse_choice(record["features"])
    sources = {name: str(record["sources"][name]) for name in choice.backbones}
    readers: dict[tuple[str, Path], Reader] = {}

    def reader(name: str, archive: Task) -> Reader:
        root = (task if name.endswith(_TEXT) else archive).work / "cache"
        if (name, root) not in readers:
            readers[name, root] = _reader(task, run.system, root, name, sources[name])
        return readers[name, root]

    def logits(asked: Question) -> tuple[np.ndarray, None]:
        out = np.full((len(asked.rows), classes), np.nan)
        for start in range(0, len(asked.rows), _AT_ONCE):
            part = asked.rows.select(range(start, min(start + _AT_ONCE, len(asked.rows))))
            if not any(part.keys) and not any(part.captions):
                continue
            found = [
                read_matrix(reader(name, asked.archive), part, name, choice.views, task)
                for name in choice.backbones
            ]
            try:
                answer = _of_matrix(model, choice, np.concatenate(found, 2), classes)
            except ValueError as error:
                raise InputError(
                    f"{run.folder} holds a model that does not fit its cache ({error}): run that "
                    "system again"
                ) from None
            out[start : start + _AT_ONCE] = answer
        return out, None

    return Source(logits, sources)


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
    from archiveprobe.probe.crossval import combine_views

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
