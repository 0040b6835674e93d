"""Properties of files and images that ought not to tell labels apart, and classifiers on them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from archiveprobe.task.manifest import Entry

# What each question of the audit may look at; "format" stands for one column per format.
SUBJECTS: dict[str, tuple[str, ...]] = {
    "file size": ("bytes",),
    "dimensions": ("width", "height", "pixels", "aspect ratio"),
    "format": ("format",),
    "EXIF": ("EXIF tags", "orientation"),
    "borders": ("border",),
    "mean colour": ("red", "green", "blue", "brightness"),
}
_FIELDS = {
    "bytes": "bytes",
    "width": "width",
    "height": "height",
    "EXIF tags": "exif",
    "orientation": "orientation",
    "frames": "frames",
    "border": "border",
    "red": "red",
    "green": "green",
    "blue": "blue",
}


def properties(entries: Sequence[Entry]) -> dict[str, np.ndarray]:
    """Return columns (n,) float64 by name, NaN where nothing was observed.

    Formats are zeros and ones.
    """
    observed = [entry.observed for entry in entries]
    columns = {
        name: np.array([getattr(seen, field, None) for seen in observed], np.float64)
        for name, field in _FIELDS.items()
    }
    columns["pixels"] = columns["width"] * columns["height"]
    with np.errstate(divide="ignore", invalid="ignore"):
        columns["aspect ratio"] = columns["width"] / columns["height"]
        columns["bytes per pixel"] = columns["bytes"] / columns["pixels"]
    columns["brightness"] = (columns["red"] + columns["green"] + columns["blue"]) / 3
    formats = np.array([seen.format if seen else "" for seen in observed])
    for name in sorted({str(form) for form in formats} - {""}):
        columns[f"format {name}"] = np.where(formats == "", np.nan, formats == name)
    return columns


def columns_of(columns: Mapping[str, np.ndarray], subject: str) -> list[np.ndarray]:
    """Return the columns of one subject."""
    wanted = SUBJECTS[subject]
    return [
        column
        for name, column in columns.items()
        if name in wanted or (name.startswith("format ") and "format" in wanted)
    ]


def tree_probabilities(
    columns: Sequence[np.ndarray], y: np.ndarray, fold: np.ndarray
) -> np.ndarray | None:
    """Return probabilities (n, K) by boosted trees on columns (n,) that vary, as below.

    Trees find a label in a trend as well as in one exact value, and take missing values as they
    are.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    varying = [column for column in columns if len(np.unique(column)) > 1]
    if not varying:
        return None
    model = HistGradientBoostingClassifier(
        max_iter=50, max_leaf_nodes=8, min_samples_leaf=10, random_state=0
    )
    return held_out_probabilities(model, np.stack(varying, 1), y, fold)


def held_out_probabilities(
    model: Any, x: np.ndarray, y: np.ndarray, fold: np.ndarray
) -> np.ndarray | None:
    """Return probabilities (n, K) of every row by a model without its fold, as if y were balanced.

    None where a training part lacks a class. By Bayes' rule p(y | x) / p(y) is what balanced
    classes would give, up to a factor; without it a weak property would never change a decision,
    since the frequent label always wins. scikit-learn's class_weight="balanced" does the same, but
    takes five times as long in boosted trees, whose bins then come from weighted quantiles.
    """
    from sklearn.base import clone

    proba = np.zeros((len(y), int(y.max()) + 1))
    with threadpool_limits(1):
        for number in np.unique(fold):
            inside = fold == number
            counts = np.bincount(y[~inside], minlength=proba.shape[1])
            if not counts.all():
                return None
            fitted = clone(model).fit(x[~inside], y[~inside])
            proba[inside] = fitted.predict_proba(x[inside]) / counts
    return np.asarray(proba / proba.sum(1, keepdims=True))
