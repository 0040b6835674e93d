"""Properties of files and images that ought not to tell labels apart, as columns."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from archiveprobe.probe.linear import LogisticPath
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
_BINS = 12
_ROWS_PER_BIN = 15
_CS = (1e-3, 1e-2, 1e-1)


def properties(entries: Sequence[Entry]) -> dict[str, np.ndarray]:
    """Columns (n,) float64 by name, NaN where nothing was observed; formats are zeros and ones."""
    seen = {
        name: np.array([_observed(entry, field) for entry in entries], np.float64)
        for name, field in {
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
        }.items()
    }
    seen["pixels"] = seen["width"] * seen["height"]
    with np.errstate(divide="ignore", invalid="ignore"):
        seen["aspect ratio"] = seen["width"] / seen["height"]
        seen["bytes per pixel"] = seen["bytes"] / seen["pixels"]
    seen["brightness"] = (seen["red"] + seen["green"] + seen["blue"]) / 3
    formats = np.array([entry.observed.format if entry.observed else "" for entry in entries])
    for name in sorted({str(form) for form in formats} - {""}):
        seen[f"format {name}"] = np.where(formats == "", np.nan, formats == name)
    return seen


def _observed(entry: Entry, field: str) -> float:
    value = getattr(entry.observed, field) if entry.observed else None
    return np.nan if value is None else float(value)


def chosen(columns: Mapping[str, np.ndarray], subject: str) -> list[np.ndarray]:
    """The columns of one subject."""
    wanted = SUBJECTS[subject]
    return [
        column
        for name, column in columns.items()
        if name in wanted or (name.startswith("format ") and "format" in wanted)
    ]


def encoded(columns: Sequence[np.ndarray]) -> np.ndarray | None:
    """Columns (n,) as a matrix (n, d) for a linear probe; None where none of them varies.

    Each becomes its rank, an indicator per twelfth of the rows, one for every frequent value, and
    one for missing: a label may hide in a single exact value as well as in a trend.
    """
    parts = [_encode(column) for column in columns if len(np.unique(column)) > 1]
    return np.concatenate(parts, 1) if parts else None


def _encode(column: np.ndarray) -> np.ndarray:
    there = np.isfinite(column)
    known = column[there]
    bins = min(_BINS, max(2, len(known) // _ROWS_PER_BIN))
    values, counts = np.unique(known, return_counts=True)
    frequent = values[counts >= len(known) / bins]
    inner = np.quantile(known, np.arange(1, bins) / bins) if len(known) else known
    edges = np.unique(np.concatenate([inner, frequent, np.nextafter(frequent, np.inf)]))
    bin_of = np.where(there, np.digitize(column, edges), -1)
    indicators = (bin_of[:, None] == np.unique(bin_of)).astype(np.float64)
    rank = np.full(len(column), 0.5)
    rank[there] = rankdata(known) / max(1, len(known))
    return np.column_stack([rank, indicators])


def held_out_logits(x: np.ndarray, y: np.ndarray, fold: np.ndarray) -> np.ndarray | None:
    """Logits (n, K) of every row by logistic models without its fold, as if labels were balanced.

    None where a training part lacks a class. Without balance a weak tell would never change a
    decision, since the frequent label always wins.
    """
    k = int(y.max()) + 1
    logits = np.zeros((len(y), k))
    with threadpool_limits(1):
        for held in np.unique(fold):
            inside = fold == held
            counts = np.bincount(y[~inside], minlength=k)
            if not counts.all():
                return None
            model = LogisticPath(Cs=_CS, weights=[1.0] * len(_CS)).fit(x[~inside], y[~inside])
            logits[inside] = model.decision_logits(x[inside]) - np.log(counts / counts.sum())
    return logits
