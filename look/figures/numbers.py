"""The numbers behind figures of one system, from its out-of-fold probabilities."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from archiveprobe.evaluate.metrics import confusions
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.threshold_curve import Curve as ThresholdCurve
from archiveprobe.evaluate.threshold_curve import macro_f1_of

BINS = 10
_THRESHOLDS = 1000


@dataclass(frozen=True)
class Answers:
    """The rows (n,) of a system whose images could be read: labels, mean probabilities (n, K).

    `names` are the labels of the task, `shown` the classes that figures show: the positive one of
    two, else the commonest ones, without those that all rows have or none.
    """

    labels: np.ndarray
    proba: np.ndarray
    names: tuple[str, ...]
    shown: tuple[int, ...]

    @property
    def binary(self) -> bool:
        """Return whether there are two labels."""
        return len(self.names) == 2

    def scores(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        """Yield every class that is shown: its name, whether a row is of it, its probability."""
        for number in self.shown:
            yield self.names[number], self.labels == number, self.proba[:, number]


def answers_of(stored: Predictions, most: int) -> Answers:
    """Average the probabilities of a system over the repeats of the folds."""
    proba = np.clip(stored.oof.mean(0), 0, 1)
    known = np.isfinite(proba).all(1)
    labels, names = stored.labels[known], tuple(map(str, stored.classes))
    counts = np.bincount(labels, minlength=len(names))
    wanted = [stored.positive] if len(names) == 2 else np.argsort(-counts, kind="stable").tolist()
    shown = [number for number in wanted if 0 < counts[number] < len(labels)]
    return Answers(labels, proba[known], names, tuple(shown[:most]))


@dataclass(frozen=True)
class Curve:
    """One class's curve, and the area under it (average precision, ROC AUC)."""

    x: np.ndarray
    y: np.ndarray
    area: float


def precision_recall(is_class: np.ndarray, score: np.ndarray) -> Curve:
    """Compute precision over recall and average precision, by scikit-learn."""
    from sklearn.metrics import average_precision_score, precision_recall_curve

    precision, recall, _ = precision_recall_curve(is_class, score, drop_intermediate=True)
    return Curve(recall, precision, float(average_precision_score(is_class, score)))


def roc(is_class: np.ndarray, score: np.ndarray) -> Curve:
    """Compute the true over the false positive rate and the area, by scikit-learn."""
    from sklearn.metrics import roc_auc_score, roc_curve

    false, true, _ = roc_curve(is_class, score)
    return Curve(false, true, float(roc_auc_score(is_class, score)))


@dataclass(frozen=True)
class Reliability:
    """What is claimed and what is true in every bin that has rows; counts (BINS,) of all bins."""

    claimed: np.ndarray
    true: np.ndarray
    counts: np.ndarray


def reliability(is_class: np.ndarray, score: np.ndarray) -> Reliability:
    """Compare probabilities with shares in ten bins of equal width, by scikit-learn."""
    from sklearn.calibration import calibration_curve

    true, claimed = calibration_curve(is_class, score, n_bins=BINS)
    # The same side of an edge as there.
    places = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], score)
    return Reliability(claimed, true, np.bincount(places, minlength=BINS))


def over_thresholds(is_class: np.ndarray, score: np.ndarray) -> ThresholdCurve:
    """Compute macro-F1, precision and recall at 0 and at every distinct score, at most a thousand.

    Each holds from its threshold to the next one. Precision is NaN where no row is decided to be
    of the class.
    """
    thresholds = np.r_[0.0, np.unique(score)]
    if len(thresholds) > _THRESHOLDS:
        picked = np.linspace(0, len(thresholds) - 1, _THRESHOLDS).round()
        thresholds = thresholds[picked.astype(int)]
    hits, decided = (_above(each, thresholds) for each in (score[is_class], score))
    positives, rows = np.asarray(float(is_class.sum())), np.asarray(float(len(score)))
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = hits / decided, hits / positives
    found = macro_f1_of(hits, decided, positives, rows)
    return ThresholdCurve(thresholds, found, precision, recall)


def _above(score: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Count the scores (n,) above every threshold (c,)."""
    below = np.searchsorted(np.sort(score), thresholds, "right")
    return np.asarray(len(score) - below, np.float64)


@dataclass(frozen=True)
class Point:
    """Precision, recall and false positive rate of nested decisions, means over repeats."""

    precision: float
    recall: float
    false_positives: float


def nested_point(stored: Predictions, number: int) -> Point:
    """Score a system's nested decisions for one class; NaN where a share has no rows."""
    counts = np.stack(
        [confusions(stored.labels, each, len(stored.classes))[0] for each in stored.decision]
    )
    hits, decided = counts[:, number, number], counts[:, :, number].sum(1)
    true = counts[0, number].sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = hits / decided, hits / true
        false = (decided - hits) / (len(stored.labels) - true)
    return Point(float(precision.mean()), float(recall.mean()), float(false.mean()))
