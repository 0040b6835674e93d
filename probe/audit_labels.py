"""Labels that are likely wrong, by what systems say of rows that they were not trained on.

Confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in
Dataset Labels", JAIR 2021), as cleanlab has it, on the mean out-of-fold probabilities.
"""

import csv
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate import calibration
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.metrics import from_confusion
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_status import out_of_date
from archiveprobe.evaluate.system_store import load_run, systems
from archiveprobe.probe.crossval import cross_validate
from archiveprobe.probe.features import Choice, load_features
from archiveprobe.probe.linear import LogisticPath

QUICK = "a quick logistic probe"
# With 2 % of the labels of 1,568 real images swapped, the first finds 24 of 30 among 41
# suspects, the second 23 among 30; but the first rounds a lone swap of a small table away.
_RULES = ("prune_by_noise_rate", "confident_learning")
_QUICK_CS = (1e-5, 1e-4, 1e-3, 1e-2)


@dataclass(frozen=True)
class Suspect:
    """A label that is likely wrong; `score` is the probability of the given label, `suggested`
    the likeliest of the others.
    """

    id: str
    given: str
    suggested: str
    score: float

    def record(self) -> dict[str, Any]:
        """As it stands in the record of an audit."""
        return {
            "id": self.id,
            "given": self.given,
            "suggested": self.suggested,
            "score": self.score,
        }


@dataclass(frozen=True)
class Suspects:
    """Suspect labels, the worst first, and the system whose probabilities told."""

    rows: tuple[Suspect, ...]
    system: str


def find_suspects(dataset: Dataset, backbones: Sequence[str]) -> Suspects:
    """Suspect labels by the best stored system, or by a quick probe where none is sound.

    Raises:
        InputError: no system is there, and none can be fitted: a label is too rare to be held out.
        InputError: a cache is damaged.
    """
    best = best_system(dataset)
    if best is not None:
        proba = best.oof.mean(0)
        return Suspects(tuple(suspects(dataset, proba)), best.system)
    return Suspects(tuple(suspects(dataset, _quick(dataset, backbones))), QUICK)


def best_system(dataset: Dataset) -> Predictions | None:
    """The stored system of highest nested macro-F1; damaged and outdated ones do not count."""
    best: tuple[float, Predictions] | None = None
    for name in systems(dataset.task):
        try:
            run = load_run(dataset.task, name)
            if out_of_date(run, dataset):
                continue
            predictions = run.predictions()
        except InputError:
            continue
        score = _mean_macro_f1(predictions)
        if best is None or score > best[0]:
            best = score, predictions
    return best[1] if best else None


def _mean_macro_f1(one: Predictions) -> float:
    k = len(one.classes)
    cells = one.labels * k + one.decision
    tables = np.stack([np.bincount(row, minlength=k * k).reshape(k, k) for row in cells])
    return float(from_confusion(tables)["macro_f1"].mean())


def _quick(dataset: Dataset, backbones: Sequence[str]) -> np.ndarray:
    """Out-of-fold probabilities (n, K) of a logistic probe on one repeat of the folds."""
    once = replace(dataset, fold=dataset.fold[:1])
    features = load_features(once, Choice(tuple(backbones)))
    held = cross_validate({"logistic": lambda: LogisticPath(Cs=_QUICK_CS)}, features, once)
    logits = held["logistic"].logits
    fitted = calibration.cross_fitted(logits, once.labels, once.fold)
    return np.asarray(fitted.apply(logits, once.fold)[0])


def suspects(dataset: Dataset, proba: np.ndarray) -> list[Suspect]:
    """Suspect labels by probabilities (n, K), NaN for images that cannot be read."""
    known = np.flatnonzero(np.isfinite(proba).all(1))
    labels, p = dataset.labels[known], proba[known] / proba[known].sum(1, keepdims=True)
    if len(np.unique(labels)) < 2:
        return []
    classes = dataset.classes
    found = []
    for at in _ranked(labels, p):
        others = np.where(np.arange(len(classes)) == labels[at], -1.0, p[at])
        found.append(
            Suspect(
                str(dataset.labelled.ids[known[at]]),
                classes[labels[at]],
                classes[int(others.argmax())],
                round(float(p[at, labels[at]]), 6),
            )
        )
    return found


def _ranked(labels: np.ndarray, proba: np.ndarray) -> np.ndarray:
    """Places of suspect labels, the worst first; cleanlab wants labels 0..K-1, all of them."""
    from cleanlab.filter import find_label_issues

    present, compact = np.unique(labels, return_inverse=True)
    kept = proba[:, present]
    total = kept.sum(1, keepdims=True)
    kept = np.where(total > 0, kept / np.where(total > 0, total, 1), 1 / len(present))
    given = kept[np.arange(len(kept)), compact]
    found: set[int] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for rule in _RULES:
            found |= set(np.flatnonzero(find_label_issues(compact, kept, filter_by=rule, n_jobs=1)))
    return np.array(sorted(found, key=lambda at: given[at]), np.intp)


def as_corrections(found: Sequence[Suspect]) -> bytes:
    """A table that can become the task's `corrections` once its lines have been looked at.

    Columns id and label, the suggested one, and what speaks for it.
    """
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["id", "label", "given", "score"])
    writer.writerows([one.id, one.suggested, one.given, one.score] for one in found)
    return out.getvalue().encode("utf-8", "surrogateescape")
