"""Shift: can the rows to predict be told from the labelled ones? Then figures may not hold there.

Adversarial validation: a classifier learns which rows are to be predicted, and is scored on rows
and near-duplicates that it has not seen. An AUC of one half means that the two look alike.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.sealed import read_sealed, write_sealed
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.intervals import auc_interval
from archiveprobe.probe.audit_rows import (
    AuditRows,
    Notify,
    cached_backbones,
    gather,
    unit_embeddings,
)
from archiveprobe.task.balanced_folds import balanced_folds
from archiveprobe.task.config import Task
from archiveprobe.task.duplicates import near_duplicate_groups
from archiveprobe.task.manifest import DECODER

# An interval above this is worth a warning: below it, two random sources of one archive differ as
# much, and figures move by less than their own interval.
NOTICEABLE = 0.6
# Standard errors within which a simpler system is preferred, where figures may not hold.
CAUTION = 2.0
_VERSION = 1
_MOST_ROWS = 10_000
_COMPONENTS = 64
_FOLDS = 5
_FEWEST = 10
_REPLICATES = 500
# 95 % for the higher of two figures (Bonferroni).
_LEVEL = 0.975


@dataclass(frozen=True)
class Giveaway:
    """A property that differs: its AUC alone (0.5 to 1), and its medians on either side."""

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
    properties: tuple[Giveaway, ...] = ()

    @property
    def seen(self) -> bool:
        """Whether the rows to predict are noticeably different."""
        return self.low is not None and self.low > NOTICEABLE

    @property
    def caution(self) -> float:
        """Standard errors within which the simpler of two systems is to be preferred."""
        return CAUTION if self.seen else 1.0

    @property
    def warning(self) -> str | None:
        """What a leaderboard and a submission should say; None where nothing is seen."""
        if not self.seen:
            return None
        telling = ", ".join(f"{one.name} ({one.auc:.2f})" for one in self.properties[:3])
        by = f", for example by {telling}" if telling else ""
        return (
            f"the rows to predict differ from the labelled ones: a classifier tells them apart "
            f"with AUC {self.auc:.3f} ({self.low:.3f} - {self.high:.3f}){by}: out-of-fold figures "
            "may not hold there"
        )

    def record(self) -> dict[str, Any]:
        """The form that `--json` promises."""
        return {**asdict(self), "properties": [asdict(one) for one in self.properties]}


def shift(dataset: Dataset, *, notify: Notify = lambda _: None) -> Shift:
    """The shift of a task, computed when its rows or caches have changed since the last time.

    Raises:
        InputError: nothing is embedded yet.
        InputError: a cache is damaged.
    """
    sources = cached_backbones(dataset, notify)
    inputs = _inputs(dataset, sources)
    kept = _read(shift_file(dataset.task), inputs)
    if kept is not None:
        return kept
    found = measure_shift(gather(dataset), list(sources))
    # What cannot be kept, on a folder that is read-only, is computed again.
    with contextlib.suppress(OSError):
        _write(shift_file(dataset.task), inputs, found)
    return found


def shift_file(task: Task) -> Path:
    """Where the shift of a task is kept."""
    return task.work / "audit" / "shift.json"


def measure_shift(rows: AuditRows, backbones: Sequence[str]) -> Shift:
    """Tell rows to predict from labelled ones, held out; at most 10,000 rows of either side."""
    # Here and below: reading a kept shift must not cost the second that scikit-learn takes to load.
    from archiveprobe.probe.audit_properties import encoded, held_out_logits, properties

    places = _places(rows)
    embeddings = unit_embeddings(rows.dataset, backbones, places)
    there = np.isfinite(embeddings).all(1)
    places, embeddings = places[there], embeddings[there]
    entries = [rows.entries[at] for at in places]
    y = (rows.labels[places] < 0).astype(np.int64)
    groups = near_duplicate_groups(entries)
    fold = _folds(y, groups)
    if fold is None:
        return Shift()
    columns = properties(entries)
    scores = {
        "images": held_out_logits(_components(embeddings), y, fold),
        "files": _held_out(encoded(list(columns.values())), y, fold),
    }
    auc = {name: _auc(y, score) for name, score in scores.items()}
    score = max(scores.items(), key=lambda item: auc[item[0]] or 0.0)[1]
    low, high = _interval(y, score, groups)
    return Shift(_auc(y, score), low, high, **auc, properties=tuple(giveaways(columns, y)))


def _held_out(x: np.ndarray | None, y: np.ndarray, fold: np.ndarray) -> np.ndarray | None:
    from archiveprobe.probe.audit_properties import held_out_logits

    return None if x is None else held_out_logits(x, y, fold)


def _interval(
    y: np.ndarray, score: np.ndarray | None, groups: np.ndarray
) -> tuple[float | None, float | None]:
    if score is None:
        return None, None
    margin = score[:, 1] - score[:, 0]
    found = auc_interval(y == 1, margin, groups, replicates=_REPLICATES, level=_LEVEL)
    return found or (None, None)


def _places(rows: AuditRows) -> np.ndarray:
    rng = np.random.default_rng(0)
    sides = []
    for side in (rows.labelled, ~rows.labelled):
        places = np.flatnonzero(side & rows.usable)
        if len(places) > _MOST_ROWS:
            places = rng.choice(places, _MOST_ROWS, replace=False)
        sides.append(np.sort(places))
    return np.concatenate(sides)


def _folds(y: np.ndarray, groups: np.ndarray) -> np.ndarray | None:
    """The fold (n,) of every row, groups together; None where a side has too few groups."""
    smallest = min(len(np.unique(groups[y == side])) for side in (0, 1))
    if smallest < _FEWEST:
        return None
    names = [f"{group:09d}" for group in groups]
    cut = balanced_folds(
        [str(side) for side in y], names, [None] * len(y), folds=_FOLDS, repeats=1, seed=0
    )
    return np.array([folds[0] for folds in cut])


def _components(x: np.ndarray) -> np.ndarray:
    """The rows on their first principal components, of labelled and unlabelled rows alike."""
    from sklearn.utils.extmath import randomized_svd

    centred = x - x.mean(0, dtype=np.float64).astype(np.float32)
    count = min(_COMPONENTS, min(x.shape) - 1)
    u, s, _ = randomized_svd(centred, max(1, count), random_state=0)
    return np.asarray(u * s, np.float64)


def _auc(y: np.ndarray, logits: np.ndarray | None) -> float | None:
    from sklearn.metrics import roc_auc_score

    return None if logits is None else float(roc_auc_score(y, logits[:, 1] - logits[:, 0]))


def giveaways(columns: Mapping[str, np.ndarray], y: np.ndarray) -> list[Giveaway]:
    """Properties that alone tell the sides apart beyond chance, the most telling first."""
    from sklearn.metrics import roc_auc_score

    found = []
    for name, column in columns.items():
        there = np.isfinite(column)
        side, known = y[there], column[there]
        few, many = np.sort(np.bincount(side, minlength=2))
        if not few:
            continue
        auc = float(roc_auc_score(side, known))
        auc = max(auc, 1 - auc)
        # The standard error of an AUC where the sides are alike (Hanley and McNeil, 1982).
        error = np.sqrt((few + many + 1) / (12 * few * many))
        if auc > max(NOTICEABLE, 0.5 + 4 * error):
            middle = np.mean if name.startswith("format ") else np.median
            found.append(
                Giveaway(
                    name, auc, float(middle(known[side == 0])), float(middle(known[side == 1]))
                )
            )
    return sorted(found, key=lambda one: -one.auc)


def _inputs(dataset: Dataset, sources: Mapping[str, str]) -> str:
    """A digest of everything that the shift depends on."""
    total = hashlib.sha256(json.dumps([_VERSION, DECODER, dict(sources)]).encode())
    for rows in (dataset.labelled, dataset.unlabelled):
        total.update(f"{len(rows)}:".encode())
        for key in rows.keys:
            total.update(key or bytes(32))
    return total.hexdigest()


def _read(file: Path, inputs: str) -> Shift | None:
    """What was kept for the same inputs; None where it is missing, old or damaged."""
    try:
        content = read_sealed(file)
        if content is None or content["inputs"] != inputs:
            return None
        record = content["shift"]
        properties = tuple(Giveaway(**one) for one in record["properties"])
        return Shift(**{**record, "properties": properties})
    except (InputError, KeyError, TypeError):
        return None


def _write(file: Path, inputs: str, found: Shift) -> None:
    write_sealed(file, {"inputs": inputs, "shift": found.record()})
