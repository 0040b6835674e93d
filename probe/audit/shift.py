"""Shift: can the rows to predict be told from the labelled ones? Then figures may not hold there.

Adversarial validation: a classifier learns which rows are to be predicted, and is scored on rows
and near-duplicates that it has not seen. An AUC of one half means that the two look alike.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.base.sealed import read_sealed, write_sealed
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.probe.audit.data import NAMED, AuditData, Finding, audit_data, line
from archiveprobe.task.balanced_folds import balanced_folds
from archiveprobe.task.config import Task
from archiveprobe.task.duplicates import near_duplicate_groups
from archiveprobe.task.manifest import decoder_of

# An interval above this is worth a warning: below it, two random sources of one archive differ as
# much, and figures move by less than their own interval.
NOTICEABLE = 0.6
# Standard errors within which a simpler system is preferred, where figures may not hold.
CAUTION = 2.0
_VERSION = 2
_MOST_ROWS = 10_000
_COMPONENTS = 64
_FOLDS = 5
_FEWEST = 10
# 95 % for the higher of two figures (Bonferroni).
_LEVEL = 0.975


@dataclass(frozen=True)
class PropertyShift:
    """A property that differs: its own AUC (0.5 to 1), and its medians on either side."""

    name: str
    auc: float
    labelled: float
    to_predict: float


@dataclass(frozen=True)
class Shift:
    """How well rows to predict can be told from labelled ones.

    `images` is the AUC by embeddings, `files` that by properties of the files, `auc` the higher
    of the two, with its 95 % interval. None where there are too few rows on either side.
    """

    auc: float | None = None
    low: float | None = None
    high: float | None = None
    images: float | None = None
    files: float | None = None
    properties: tuple[PropertyShift, ...] = ()

    @property
    def noticeable(self) -> bool:
        """Say whether the rows to predict are noticeably different."""
        return self.low is not None and self.low > NOTICEABLE

    @property
    def caution(self) -> float:
        """Return the standard errors within which the simpler of two systems is to be preferred."""
        return CAUTION if self.noticeable else 1.0

    @property
    def warning(self) -> str | None:
        """Return what a leaderboard and a submission should say; None where there is no shift."""
        if not self.noticeable:
            return None
        names = ", ".join(f"{row.name} ({row.auc:.2f})" for row in self.properties[:NAMED])
        by = f", for example by {names}" if names else ""
        return (
            f"the rows to predict differ from the labelled ones: a classifier tells them apart "
            f"with AUC {self.auc:.3f} [{self.low:.3f}, {self.high:.3f}]{by}: out-of-fold figures "
            "may not hold there"
        )

    def record(self) -> dict[str, Any]:
        """Return the form that `--json` promises."""
        return {**asdict(self), "properties": [asdict(row) for row in self.properties]}


def audit_shift(data: AuditData) -> Finding:
    """Report whether the rows to predict differ from the labelled ones."""
    shift = _kept_or_measured(data)
    name = "shift to rows to predict"
    if shift.auc is None:
        row = line(name, "-", "too few rows to tell")
    else:
        first = [f"{one.name} {one.auc:.2f}" for one in shift.properties[:1]]
        result = f"AUC {shift.auc:.3f} [{shift.low:.3f}, {shift.high:.3f}]"
        row = line(name, result, *(first or ["no property stands out"]))
    return Finding(shift.record(), [row], [shift.warning] if shift.warning else [])


def find_shift(dataset: Dataset, *, notify: Notify = lambda _: None) -> Shift:
    """Return the shift of a task, measured when rows or caches have changed since the last time.

    Raises:
        InputError: nothing is embedded yet.
        InputError: a cache is damaged.
    """
    return _kept_or_measured(audit_data(dataset, notify=notify))


def shift_file(task: Task) -> Path:
    """Return where the shift of a task is kept."""
    return task.work / "audit" / "shift.json"


def _kept_or_measured(data: AuditData) -> Shift:
    file, inputs = shift_file(data.dataset.task), _inputs(data)
    shift = _read(file, inputs)
    if shift is None:
        shift = measure_shift(data)
        # What cannot be kept, on a folder that is read-only, is computed again.
        with contextlib.suppress(OSError):
            write_sealed(file, {"inputs": inputs, "shift": shift.record()})
    return shift


def _inputs(data: AuditData) -> str:
    """Return a digest of everything that the shift depends on."""
    decoder = decoder_of(data.dataset.task)
    total = hashlib.sha256(json.dumps([_VERSION, decoder, dict(data.sources)]).encode())
    for rows in (data.dataset.labelled, data.dataset.unlabelled):
        total.update(f"{len(rows)}:".encode())
        for key in rows.keys:
            total.update(key or bytes(32))
    return total.hexdigest()


def _read(file: Path, inputs: str) -> Shift | None:
    """Return what was kept for the same inputs; None where it is missing, old or damaged."""
    try:
        content = read_sealed(file)
        if content is None or content["inputs"] != inputs:
            return None
        record = content["shift"]
        properties = tuple(PropertyShift(**row) for row in record["properties"])
        return Shift(**{**record, "properties": properties})
    except (InputError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class Sides:
    """Rows of both sides, and how a classifier that has not seen them tells them apart.

    `places` (m,) are those of the rows in the audit's data, `to_predict` (m,) says which side a row
    is on, `groups` (m,) number near-duplicates. `scores` are probabilities (m,) of being a row to
    predict, as if both sides were equally many, by "images" and by "files".
    """

    places: np.ndarray
    to_predict: np.ndarray
    groups: np.ndarray
    columns: Mapping[str, np.ndarray]
    scores: Mapping[str, np.ndarray]

    def intervals(self) -> dict[str, tuple[float, float, float]]:
        """Return the AUC of every classifier with its interval."""
        y = self.to_predict.astype(np.int64)
        return {name: auc_interval(y, score, self.groups) for name, score in self.scores.items()}

    def examples(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return places of rows of either side that look least like the other, the surest first.

        By the better classifier, one of every group of near-duplicates.
        """
        measured = self.intervals()
        score = self.scores[max(measured, key=lambda name: measured[name])]
        labelled, to_predict = (
            self._first_of_groups(np.argsort(sign * score, kind="stable"), side)[:count]
            for sign, side in ((1, ~self.to_predict), (-1, self.to_predict))
        )
        return self.places[labelled], self.places[to_predict]

    def _first_of_groups(self, order: np.ndarray, side: np.ndarray) -> np.ndarray:
        own = order[side[order]]
        first = np.unique(self.groups[own], return_index=True)[1]
        return np.asarray(own[np.sort(first)])


def measure_shift(data: AuditData) -> Shift:
    """Tell rows to predict from labelled ones, held out; at most 10,000 rows of either side."""
    return shift_of(tell_apart(data))


def shift_of(sides: Sides | None) -> Shift:
    """Return the figures of a shift; without any where there are too few rows on either side."""
    if sides is None:
        return Shift()
    measured = sides.intervals()
    auc, low, high = max(measured.values())
    files = measured["files"][0] if "files" in measured else None
    differing = tuple(differing_properties(sides.columns, sides.to_predict.astype(np.int64)))
    return Shift(auc, low, high, measured["images"][0], files, differing)


def tell_apart(data: AuditData) -> Sides | None:
    """Score rows of either side by classifiers without their fold; None for too few rows."""
    # Here and below: reading a kept shift must not cost the second that scikit-learn takes to load.
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from archiveprobe.probe.audit.properties import (
        held_out_probabilities,
        properties,
        tree_probabilities,
    )

    places = _places(data)
    embeddings = data.unit_embeddings(places)
    known = np.isfinite(embeddings).all(1)
    places, embeddings = places[known], embeddings[known]
    entries = [data.entries[place] for place in places]
    y = (data.labels[places] < 0).astype(np.int64)
    groups = near_duplicate_groups(entries)
    fold = _folds(y, groups)
    if fold is None:
        return None
    columns = properties(entries)
    # Components of labelled and unlabelled rows alike: they know nothing of the sides.
    count = min(_COMPONENTS, *embeddings.shape)
    components = PCA(count, svd_solver="randomized", random_state=0).fit_transform(embeddings)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
    proba = {
        "images": held_out_probabilities(model, components.astype(np.float64), y, fold),
        "files": tree_probabilities(list(columns.values()), y, fold),
    }
    scores = {name: p[:, 1] for name, p in proba.items() if p is not None}
    return Sides(places, y == 1, groups, columns, scores)


def _places(data: AuditData) -> np.ndarray:
    rng = np.random.default_rng(0)
    sides = []
    for side in (data.labels >= 0, data.labels < 0):
        places = np.flatnonzero(side & data.usable)
        if len(places) > _MOST_ROWS:
            places = rng.choice(places, _MOST_ROWS, replace=False)
        sides.append(np.sort(places))
    return np.concatenate(sides)


def _folds(y: np.ndarray, groups: np.ndarray) -> np.ndarray | None:
    """Return the fold (n,) of every row, groups together; None where a side has too few groups."""
    smallest = min(len(np.unique(groups[y == side])) for side in (0, 1))
    if smallest < _FEWEST:
        return None
    names = [f"{group:09d}" for group in groups]
    folds = balanced_folds(
        [str(side) for side in y], names, [None] * len(y), folds=_FOLDS, repeats=1, seed=0
    )
    return np.array(folds)[:, 0]


def auc_interval(
    y: np.ndarray, score: np.ndarray, groups: np.ndarray
) -> tuple[float, float, float]:
    """Return the AUC of scores (n,) for y (n,) in 0, 1, and its interval over whole groups.

    The AUC is the share of pairs, one row of either side, in which the row to predict scores
    higher, ties counting half. A row's own share of won pairs less the AUC, over the number of rows
    on its side, is its influence; those of a group add up, and their squares are the variance
    (DeLong et al., 1988, and Obuchowski, 1997, for clustered rows).
    """
    from scipy.stats import rankdata

    ranks = rankdata(score)
    won = np.empty(len(y))
    for side in (0, 1):
        own = y == side
        # Among all rows less among its own side: how many of the other side lie below.
        below = ranks[own] - rankdata(score[own])
        won[own] = below / (~own).sum()
    won[y == 0] = 1 - won[y == 0]
    auc = float(won[y == 1].mean())
    influence = (won - auc) / np.bincount(y)[y]
    of_group = np.bincount(np.unique(groups, return_inverse=True)[1], influence)
    error = np.sqrt((of_group**2).sum() * len(of_group) / max(1, len(of_group) - 1))
    reach = float(ndtri((1 + _LEVEL) / 2) * error)
    return auc, max(0.0, auc - reach), min(1.0, auc + reach)


def differing_properties(columns: Mapping[str, np.ndarray], y: np.ndarray) -> list[PropertyShift]:
    """Return properties that alone tell the sides apart beyond chance, the most telling first."""
    from sklearn.metrics import roc_auc_score

    rows = []
    for name, column in columns.items():
        known = np.isfinite(column)
        side, values = y[known], column[known]
        few, many = np.sort(np.bincount(side, minlength=2))
        if not few:
            continue
        auc = float(roc_auc_score(side, values))
        auc = max(auc, 1 - auc)
        # The standard error of an AUC where the sides are alike (Hanley and McNeil, 1982).
        error = np.sqrt((few + many + 1) / (12 * few * many))
        if auc > max(NOTICEABLE, 0.5 + 4 * error):
            middle = np.mean if name.startswith("format ") else np.median
            medians = [float(middle(values[side == number])) for number in (0, 1)]
            rows.append(PropertyShift(name, auc, *medians))
    return sorted(rows, key=lambda row: -row.auc)
