"""Cross-validation of probes: one set of folds for all, no choice scored on a row's own fold.

A probe fits a path of candidates on each training part. Which of them count for the rows of a fold
is decided by the held-out logits of the other folds of that repeat, as are calibration and
threshold. The models behind those logits have seen the fold in question, so its labels still move
the choice a little, as in every cross-validation without an inner loop, which would cost five times
as much; benchmarks/interval_truth.py measures what is left of it in the figures.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import thread_time
from typing import NamedTuple

import numpy as np
from scipy.special import softmax
from threadpoolctl import threadpool_limits

from archiveprobe.base.cores import usable_cores
from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.probe.base import Probe, precisions
from archiveprobe.probe.features import Features
from archiveprobe.probe.selection import average_good
from archiveprobe.probe.spectrum import forget
from archiveprobe.task.config import nearest

Make = Callable[[], Probe]
# Parts that are fitted side by side may take about this much, a part as much as so many copies.
_BYTES, _COPIES = 5 << 29, 3
_ROWS_AT_ONCE = 4_096


@dataclass(frozen=True)
class ProbeResult:
    """Logits of a probe: out of fold (R, n, K), and of the rows to predict by the final model.

    `unlabelled` is (m, K). `views` (R, n, V, K) and `unlabelled_views` (m, V, K) are None where
    there is one view only. Rows without an embedding are NaN. `model` is fitted on all rows;
    `weights` (R, folds, c) and `final` (c,) multiply the candidates' logits; `seconds` of one
    processor were spent.
    """

    logits: np.ndarray
    unlabelled: np.ndarray
    views: np.ndarray | None
    unlabelled_views: np.ndarray | None
    weights: np.ndarray
    final: np.ndarray
    model: Probe
    seconds: float


class _Fitted(NamedTuple):
    """A probe fitted on one part, its logits (c, rows, V, K) for the part's other rows, the time.

    The model of a fold is dropped once it has answered, that of all rows answers later.
    """

    model: Probe | None
    logits: np.ndarray | None
    seconds: float


def cross_validate(
    makes: Mapping[str, Make],
    features: Features,
    dataset: Dataset,
    *,
    workers: int | None = None,
    advance: Callable[[], None] = lambda: None,
) -> dict[str, ProbeResult]:
    """Fit probes on every training part of the folds and on all rows; `advance` per part and probe.

    Parts run in threads, one BLAS thread each: the work lies in matrix products, which release
    Python's lock, and two pools of threads on the same cores cost several times as much. Where
    parts are so large that fewer than there are cores fit into memory, each has several BLAS
    threads. Within a part the probes run one after the other, since some share a decomposition.

    Fine-tuned networks were trained on the folds of the first repeat, so with them it is the only
    one, and every fold is probed in the space of its own network. Labels of its rows reach neither
    that network nor the probe; the rows that the probe learns from are rows that the network has
    learned, so they look easier there than they are, which the rows of the fold do not.

    Raises:
        InputError: a training part lacks a class.
    """
    rows = np.flatnonzero(features.readable)
    everything = len(rows) == len(features.labelled)
    if features.by_fold:
        dataset = replace(dataset, fold=dataset.fold[:1])
    y, fold = dataset.labels[rows], dataset.fold[:, rows]
    parts = [(repeat, number) for repeat in range(len(fold)) for number in range(dataset.folds)]
    for repeat, number in parts:
        _check_classes(y[fold[repeat] != number], dataset, repeat, number)

    def fit_part(part: tuple[int, int] | None) -> dict[str, _Fitted]:
        """Fit outside a fold and answer it; None: fit on all rows, which answers no row."""
        train = np.ones(len(y), bool) if part is None else fold[part[0]] != part[1]
        x = features.labelled if part is None else features.outside(part[1])
        x = x if everything else x[rows]
        given, labels = training_rows(x, train), np.repeat(y[train], x.shape[1])
        results = {}
        for name, make in makes.items():
            started = thread_time()
            model = make().fit_path(given, labels)
            logits = None if part is None else _path_logits(model, x[~train])
            seconds = thread_time() - started
            results[name] = _Fitted(model if part is None else None, logits, seconds)
            advance()
        forget()
        return results

    cores = workers or usable_cores()
    workers = min(cores, max(1, _BYTES // max(1, _COPIES * features.labelled.nbytes)))
    with threadpool_limits(cores // workers), ThreadPoolExecutor(workers) as pool:
        whole, *held_out = pool.map(fit_part, [None, *parts])

        def result(name: str) -> ProbeResult:
            path = _path([part[name].logits for part in held_out], parts, fold)
            seconds = sum(part[name].seconds for part in (whole, *held_out))
            return _result(features, dataset, rows, path, whole[name].model, seconds)

        return dict(zip(makes, pool.map(result, makes), strict=True))


def _path(
    answers: Sequence[np.ndarray | None], parts: Sequence[tuple[int, int]], fold: np.ndarray
) -> np.ndarray:
    """Put logits (c, rows, V, K) of all parts together, (c, R, n, V, K), with fold (R, n)."""
    path = None
    for (repeat, number), logits in zip(parts, answers, strict=True):
        assert logits is not None
        if path is None:
            # Float32 bounds the memory of long paths.
            c, _, views, k = logits.shape
            path = np.full((c, *fold.shape, views, k), np.nan, np.float32)
        path[:, repeat, fold[repeat] == number] = logits
    assert path is not None
    return path


def training_rows(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Select rows (n, d) of images (., V, d) to learn from, read-only: see `decompose`.

    In the precision that probes compute with, so that they all know the same rows again.
    """
    given = x if train.all() else x[train]
    given = given.reshape(-1, x.shape[2])
    if precisions(given) is np.float64:
        given = given.astype(np.float64)
    given = given.view()
    given.flags.writeable = False
    return given


def _check_classes(labels: np.ndarray, dataset: Dataset, repeat: int, number: int) -> None:
    present = np.bincount(labels, minlength=len(dataset.classes))
    for label, count in zip(dataset.classes, present, strict=True):
        if not count:
            others = [other for other in dataset.classes if other != label]
            raise InputError(
                f"no readable row of {label!r} lies outside fold {number} of repeat {repeat}: "
                f"label more of them, or correct it where it is a typo{nearest(label, others)} in "
                "the table or the folder's name, or lower folds.count"
            )


def _answer(model: Probe, features: Features) -> np.ndarray:
    """Return logits (m, V, K) of the rows to predict, NaN where there is no embedding."""
    m, views, width = features.unlabelled.shape
    out = np.full((m, views, model.n_classes_), np.nan)
    known = np.flatnonzero(features.predictable)
    for start in range(0, len(known), _ROWS_AT_ONCE):
        places = known[start : start + _ROWS_AT_ONCE]
        flat = model.decision_logits(features.unlabelled[places].reshape(-1, width))
        out[places] = flat.reshape(len(places), views, -1)
    return out


def _path_logits(model: Probe, x: np.ndarray) -> np.ndarray:
    """Return the logits (c, n, V, K) of every candidate for rows (n, V, d), which may be none."""
    n, views, width = x.shape
    if not n:
        return np.empty((len(model.candidates()), 0, views, model.n_classes_))
    logits = model.path_logits(x.reshape(-1, width))
    return logits.reshape(len(logits), n, views, -1)


def _result(
    features: Features,
    dataset: Dataset,
    rows: np.ndarray,
    path: np.ndarray,
    model: Probe | None,
    seconds: float,
) -> ProbeResult:
    """Weigh the candidates by held-out logits (c, R, n, V, K) of the readable `rows`."""
    how, labels = features.choice.views, dataset.labels[rows]
    weights = fold_weights(combine_views(path, how), labels, dataset.fold[:, rows], dataset.folds)
    logits = np.full((len(dataset.fold), len(dataset), *path.shape[3:]), np.nan)
    for repeat, number in np.ndindex(weights.shape[:2]):
        inside = dataset.fold[repeat, rows] == number
        weighted = np.tensordot(weights[repeat, number], path[:, repeat, inside], 1)
        logits[repeat, rows[inside]] = weighted
    final = average_good(combine_views(path, how).mean(1), labels)
    assert model is not None
    model.weights_ = final
    started = thread_time()
    unlabelled = _answer(model, features)
    seconds += thread_time() - started
    several = path.shape[3] > 1
    return ProbeResult(
        logits=combine_views(logits, how),
        unlabelled=combine_views(unlabelled, how),
        views=logits if several else None,
        unlabelled_views=unlabelled if several else None,
        weights=weights,
        final=final,
        model=model,
        seconds=seconds,
    )


def fold_weights(path: np.ndarray, labels: np.ndarray, fold: np.ndarray, folds: int) -> np.ndarray:
    """Return candidate weights (R, folds, c), each by the rows outside that fold of that repeat.

    `path` (c, R, n, K) holds out-of-fold logits, `fold` (R, n) the fold of every row.
    """
    weights = np.zeros((len(fold), folds, len(path)))
    for repeat, number in np.ndindex(weights.shape[:2]):
        outside = fold[repeat] != number
        weights[repeat, number] = average_good(path[:, repeat, outside], labels[outside])
    return weights


def combine_views(logits: np.ndarray, views: str) -> np.ndarray:
    """Combine logits (..., V, K) over an image's views: their mean, or that of probabilities.

    The log of mean probabilities is a logit again.
    """
    if logits.shape[-2] == 1:
        return np.asarray(logits[..., 0, :], np.float64)
    if views == "rows":
        return np.asarray(np.log(np.maximum(softmax(logits, -1).mean(-2), 1e-12)))
    return np.asarray(logits.mean(-2, dtype=np.float64))
