"""Cross-validation of a probe: one set of folds for all, no choice scored on a row's own fold.

A probe fits a path of candidates on each training part. Which of them count for the rows of a fold
is decided by the held-out logits of the other folds of that repeat, as are calibration and
threshold. The models behind those logits have seen the fold in question, so its labels still move
the choice a little, as in every cross-validation without an inner loop, which would cost five times
as much; benchmarks/interval_truth.py measures what is left of it in the figures.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import thread_time
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from archiveprobe.base.cores import usable_cores
from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.probe.base import Probe, softmax
from archiveprobe.probe.features import Features
from archiveprobe.probe.selection import average_good

Make = Callable[[], Probe]


@dataclass(frozen=True)
class Held:
    """Logits of a probe: out of fold (R, n, K), by the final model (m, K), and per view.

    `views` (R, n, V, K) and `unlabelled_views` (m, V, K) are None where there is one view only.
    Rows without an embedding are NaN. `model` is fitted on all rows; `weights` (R, folds, c) and
    `final` (c,) say how much each candidate counts; `seconds` of one processor were spent.
    """

    logits: np.ndarray
    unlabelled: np.ndarray
    views: np.ndarray | None
    unlabelled_views: np.ndarray | None
    weights: np.ndarray
    final: np.ndarray
    model: Probe
    seconds: float


def cross_validate(
    makes: Mapping[str, Make],
    features: Features,
    dataset: Dataset,
    *,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Held]:
    """Fit probes on every training part of the folds and on all rows; `advance` per part and probe.

    Parts run in threads, one BLAS thread each: the work lies in matrix products, which release
    Python's lock, and two pools of threads on the same cores cost several times as much. Within a
    part the probes run one after the other, since some share a decomposition.

    Raises:
        InputError: a training part lacks a class.
    """
    problem = _problem(features, dataset)
    parts = [(repeat, fold) for repeat in range(len(dataset.fold)) for fold in range(dataset.folds)]
    _check_parts(problem, parts, dataset)

    def run(part: tuple[int, int] | None) -> dict[str, Any]:
        results: dict[str, Any] = {}
        for name, make in makes.items():
            started = thread_time()
            done = _held(make, problem, *part) if part else _fit_all(make, problem, features)
            results[name] = done, thread_time() - started
            advance()
        return results

    with threadpool_limits(1), ThreadPoolExecutor(workers or usable_cores()) as pool:
        everything, *held = pool.map(run, [None, *parts])
    return {
        name: _collect(problem, features, parts, [part[name] for part in held], everything[name])
        for name in makes
    }


def _problem(features: Features, dataset: Dataset) -> "_Problem":
    readable = np.flatnonzero(features.readable)
    return _Problem(
        features.labelled[readable],
        dataset.labels[readable],
        dataset.groups[readable],
        dataset.fold[:, readable],
        features.choice.views,
        readable,
        dataset.folds,
    )


def _collect(
    problem: "_Problem",
    features: Features,
    parts: list[tuple[int, int]],
    held: list[tuple[np.ndarray, float]],
    everything: tuple[tuple[Probe, np.ndarray], float],
) -> Held:
    path = _assemble(problem, parts, (logits for logits, _ in held))
    (model, unlabelled), seconds = everything
    weights = _weights(problem, path)
    final = average_good(combine_views(path, problem.views).mean(1), problem.labels)
    averaged = _averaged(problem, path, weights)
    rows = np.full((path.shape[1], len(features.labelled), *averaged.shape[2:]), np.nan)
    rows[:, problem.places] = averaged
    after = np.tensordot(final, unlabelled, 1)
    model.weights_ = final
    several = rows.shape[2] > 1
    return Held(
        logits=combine_views(rows, problem.views),
        unlabelled=combine_views(after, problem.views),
        views=rows if several else None,
        unlabelled_views=after if several else None,
        weights=weights,
        final=final,
        model=model,
        seconds=seconds + sum(took for _, took in held),
    )


@dataclass(frozen=True)
class _Problem:
    """Readable labelled rows: x (n, V, d), their labels, groups, folds (R, n), and places.

    There are `folds` folds in a repeat, whether or not a row of each is readable.
    """

    x: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    fold: np.ndarray
    views: str
    places: np.ndarray
    folds: int

    def fit(self, make: Make, rows: np.ndarray) -> Probe:
        """A probe fitted on all views of some rows."""
        count = self.x.shape[1]
        return make().fit_path(
            self.x[rows].reshape(-1, self.x.shape[2]),
            np.repeat(self.labels[rows], count),
            np.repeat(self.groups[rows], count),
        )


def _check_parts(problem: _Problem, parts: list[tuple[int, int]], dataset: Dataset) -> None:
    for repeat, fold in parts:
        outside = problem.fold[repeat] != fold
        present = np.bincount(problem.labels[outside], minlength=len(dataset.classes))
        for label, count in zip(dataset.classes, present, strict=True):
            if not count:
                raise InputError(
                    f"no readable row of {label!r} lies outside fold {fold} of repeat {repeat}: "
                    "label more of them, or lower folds.count"
                )


def _held(make: Make, problem: _Problem, repeat: int, fold: int) -> np.ndarray:
    """The logits (c, rows, V, K) of a fold by the probe that was fitted without it."""
    outside = problem.fold[repeat] != fold
    model = problem.fit(make, outside)
    if outside.all():
        # Every image of the fold may be unreadable.
        shape = (len(model.candidates()), 0, problem.x.shape[1], model.n_classes_)
        return np.empty(shape)
    return _path_logits(model, problem.x[~outside])


def _path_logits(model: Probe, x: np.ndarray) -> np.ndarray:
    n, views, width = x.shape
    logits = model.path_logits(x.reshape(-1, width))
    return logits.reshape(len(logits), n, views, -1)


def _fit_all(make: Make, problem: _Problem, features: Features) -> tuple[Probe, np.ndarray]:
    """The probe fitted on all rows, and its logits (c, m, V, K) for the rows to predict."""
    model = problem.fit(make, np.ones(len(problem.labels), bool))
    there = features.predictable
    count = len(model.candidates())
    shape = (count, len(there), problem.x.shape[1], model.n_classes_)
    logits = np.full(shape, np.nan)
    if there.any():
        logits[:, there] = _path_logits(model, features.unlabelled[there])
    return model, logits


def _assemble(
    problem: _Problem, parts: Iterable[tuple[int, int]], held: Iterable[np.ndarray]
) -> np.ndarray:
    """The path's held-out logits (c, R, n, V, K), float32 to bound the memory of long paths."""
    path = None
    for (repeat, fold), logits in zip(parts, held, strict=True):
        if path is None:
            c, _, views, k = logits.shape
            path = np.full((c, *problem.fold.shape, views, k), np.nan, np.float32)
        path[:, repeat, problem.fold[repeat] == fold] = logits
    assert path is not None
    return path


def _weights(problem: _Problem, path: np.ndarray) -> np.ndarray:
    """For every repeat and fold, the candidates' weights by the rows of the other folds."""
    combined = combine_views(path, problem.views)
    folds = problem.folds
    weights = np.zeros((len(problem.fold), folds, len(path)))
    for repeat, fold_of in enumerate(problem.fold):
        for fold in range(folds):
            outside = fold_of != fold
            weights[repeat, fold] = average_good(
                combined[:, repeat, outside], problem.labels[outside]
            )
    return weights


def _averaged(problem: _Problem, path: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The candidates' weighted mean (R, n, V, K)."""
    held = np.zeros(path.shape[1:])
    for repeat, fold_of in enumerate(problem.fold):
        for fold in range(weights.shape[1]):
            inside = fold_of == fold
            held[repeat, inside] = np.tensordot(weights[repeat, fold], path[:, repeat, inside], 1)
    return held


def combine_views(logits: np.ndarray, views: str) -> np.ndarray:
    """Logits (..., V, K) over an image's views: their mean, or the log of mean probabilities."""
    if logits.shape[-2] == 1:
        return np.asarray(logits[..., 0, :], np.float64)
    if views == "rows":
        return np.asarray(np.log(np.maximum(softmax(logits).mean(-2), 1e-12)))
    return np.asarray(logits.mean(-2, dtype=np.float64))
