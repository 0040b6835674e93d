"""Metrics of decisions, computed from weighted counts.

A weight per row scales every count, so that a score and the bootstrap around it come from the same
lines. The tests hold every metric to scikit-learn's value.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np


@dataclass(frozen=True)
class Metric:
    """Computes a metric (...) of counts (..., K) of every class, and says in a line what it is.

    `of` takes hits (rows of a class that were decided rightly), true (rows that are of it) and
    decided (rows that were decided to be of it).
    """

    of: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    what: str


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide, with 0 where there is nothing to divide by, as scikit-learn's zero_division=0."""
    return np.asarray(part / np.where(whole == 0, 1.0, whole))


def _specificities(hits: np.ndarray, true: np.ndarray, decided: np.ndarray) -> np.ndarray:
    """Compute the share of the other classes' rows that a class keeps out, (..., K)."""
    others = true.sum(-1, keepdims=True) - true
    return _ratio(others - decided + hits, others)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "macro_f1": Metric(
            lambda hits, true, decided: _ratio(2 * hits, true + decided).mean(-1),
            "mean over all classes of F1; used for ranking (scikit-learn f1_score, "
            "average='macro', zero_division=0)",
        ),
        "accuracy": Metric(
            lambda hits, true, _: _ratio(hits.sum(-1), true.sum(-1)),
            "share of rows classified correctly (scikit-learn accuracy_score)",
        ),
        "balanced_accuracy": Metric(
            lambda hits, true, _: _ratio(_ratio(hits, true).sum(-1), (true > 0).sum(-1)),
            "mean recall of the classes that occur (scikit-learn balanced_accuracy_score)",
        ),
        "precision": Metric(
            lambda hits, _, decided: _ratio(hits, decided).mean(-1),
            "mean over all classes, 0 where a class is never decided (scikit-learn "
            "precision_score, average='macro')",
        ),
        "recall": Metric(
            lambda hits, true, _: _ratio(hits, true).mean(-1),
            "mean over all classes (scikit-learn recall_score, average='macro')",
        ),
        "specificity": Metric(
            lambda *counts: _specificities(*counts).mean(-1),
            "share of others' rows not given to a class, mean (as the shared task's organisers "
            "have it; equals recall for two classes)",
        ),
    }
)


_OF_CLASS: Mapping[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = (
    MappingProxyType(
        {
            "recall of": lambda hits, true, _: _ratio(hits, true),
            "precision of": lambda hits, _, decided: _ratio(hits, decided),
        }
    )
)


def _find_metric(name: str) -> Metric:
    """Return one of METRICS, or that of a single class: "recall of 1", "precision of 0"."""
    if name in METRICS:
        return METRICS[name]
    kind, _, place = name.rpartition(" ")
    of = _OF_CLASS[kind]
    return Metric(lambda *counts: of(*counts)[..., int(place)], name)


def confusions(
    y: np.ndarray, decision: np.ndarray, n_classes: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Count decisions (n,) against the truth (n,) under weights (B, n): (B, K, K), truth down.

    Without weights every row counts once and B is 1.

    Raises:
        ValueError: labels or decisions outside 0..K-1, or not one decision per row.
    """
    if decision.shape != y.shape:
        raise ValueError(f"{decision.shape} decisions for {y.shape} rows")
    for name, values in (("labels", y), ("decisions", decision)):
        if ((values < 0) | (values >= n_classes)).any():
            raise ValueError(f"{name} outside 0..{n_classes - 1}: {sorted(set(values.tolist()))}")
    weights = np.ones((1, len(y))) if weights is None else weights
    cells = np.zeros((len(y), n_classes * n_classes), weights.dtype)
    cells[np.arange(len(y)), y * n_classes + decision] = 1
    return (weights @ cells).reshape(-1, n_classes, n_classes).astype(np.float64)


def from_confusion(
    confusion: np.ndarray, names: Collection[str] = tuple(METRICS)
) -> dict[str, np.ndarray]:
    """Compute metrics of confusion matrices (..., K, K), each (...); NaN for an empty matrix.

    Beside METRICS there are "recall of K" and "precision of K" for every class K.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, decided = confusion.sum(-1), confusion.sum(-2)
    defined = np.where(true.sum(-1) > 0, 1.0, np.nan)
    return {name: defined * _find_metric(name).of(hits, true, decided) for name in names}


def replicated(
    y: np.ndarray,
    decision: np.ndarray,
    n_classes: int,
    weights: np.ndarray | None = None,
    names: Collection[str] = tuple(METRICS),
) -> dict[str, np.ndarray]:
    """Compute metrics of decisions (n,) or (R, n) under weights (B, n), each (B,).

    The mean over repeats is taken within each replicate.
    """
    of_repeats = [
        from_confusion(confusions(y, row, n_classes, weights), names)
        for row in np.atleast_2d(decision)
    ]
    return {name: np.mean([values[name] for values in of_repeats], 0) for name in names}


def macro_f1(y: np.ndarray, decision: np.ndarray, n_classes: int) -> float:
    """Compute macro-F1 of decisions (n,) or (R, n), the mean over repeats."""
    return float(replicated(y, decision, n_classes, names=("macro_f1",))["macro_f1"][0])
