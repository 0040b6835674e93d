"""Figures of decisions and probabilities, for the rows as they are or for thousands of resamples.

Everything is computed from counts that a weight per row can scale, so that a point estimate and the
bootstrap around it come from the same lines. The tests hold every figure that scikit-learn has to
scikit-learn's value.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

METRICS: dict[str, str] = {
    "macro_f1": "mean over all classes of F1; decides (scikit-learn f1_score, average='macro', "
    "zero_division=0)",
    "accuracy": "share of rows decided rightly (scikit-learn accuracy_score)",
    "balanced_accuracy": "mean recall of the classes that occur (scikit-learn "
    "balanced_accuracy_score)",
    "precision": "mean over all classes, 0 where a class is never decided (scikit-learn "
    "precision_score, average='macro')",
    "recall": "mean over all classes (scikit-learn recall_score, average='macro')",
    "specificity": "mean over all classes of the share of other rows kept out; equals recall for "
    "two classes (the shared task's organisers)",
    "average_precision": "area under precision over recall, of the positive class or the mean of "
    "one against the rest (scikit-learn average_precision_score)",
    "roc_auc": "chance that a row of the class ranks above another, of the positive class or the "
    "mean of one against the rest (scikit-learn roc_auc_score)",
    "brier": "mean squared error of the probabilities, 0 to 1 for two classes, 0 to 2 for more "
    "(Brier 1950; scikit-learn brier_score_loss)",
    "calibration_error": "mean gap between confidence and accuracy over 15 equal bins of the "
    "likeliest class's probability (Guo et al. 2017)",
}
OF_DECISIONS = (
    "macro_f1",
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "specificity",
)
_BINS = 15
_LARGEST_RUN = 16


@dataclass(frozen=True)
class Figures:
    """Every figure of METRICS, None where it is undefined.

    `confusion` (K, K) counts rows, truth down and decision across; it is the mean over repeats
    where several were given.
    """

    macro_f1: float | None
    accuracy: float | None
    balanced_accuracy: float | None
    precision: float | None
    recall: float | None
    specificity: float | None
    average_precision: float | None
    roc_auc: float | None
    brier: float | None
    calibration_error: float | None
    n: int
    confusion: np.ndarray


def figures(
    y: np.ndarray,
    decision: np.ndarray,
    proba: np.ndarray | None,
    n_classes: int,
    positive: int = 1,
) -> Figures:
    """All figures of decisions (n,) or (R, n) and probabilities (n, K) or (R, n, K).

    Figures are means over repeats. Rows whose probabilities are NaN (pictures that cannot be read)
    count with their decision and are left out of the figures of probabilities. Average precision
    and AUC are undefined where fewer than two classes occur.

    Raises:
        ValueError: labels or decisions outside 0..K-1, or shapes that do not fit.
    """
    found = replicated(y, decision, proba, n_classes, positive)
    values = {name: _or_none(found[name][0]) for name in METRICS}
    repeats = np.atleast_2d(decision)
    counts = sum(confusions(y, each, n_classes)[0] for each in repeats)
    table = np.asarray(counts) / len(repeats)
    whole = table.astype(np.int64) if len(repeats) == 1 else table
    return Figures(**values, n=len(y), confusion=whole)


def macro_f1(y: np.ndarray, decision: np.ndarray, n_classes: int) -> float:
    """Macro-F1 of decisions (n,) or (R, n), the mean over repeats."""
    return float(replicated(y, decision, None, n_classes, names=("macro_f1",))["macro_f1"][0])


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def replicated(
    y: np.ndarray,
    decision: np.ndarray,
    proba: np.ndarray | None,
    n_classes: int,
    positive: int = 1,
    weights: np.ndarray | None = None,
    names: Collection[str] = tuple(METRICS),
) -> dict[str, np.ndarray]:
    """The figures `names` under every row of weights (B, n), each (B,), NaN where undefined.

    Shapes as in `figures`; a figure is the mean over repeats within each replicate. Without weights
    every row counts once and B is 1.
    """
    decisions = np.atleast_2d(decision)
    scaled = _weights(y, weights)
    sums = {name: np.zeros(len(scaled)) for name in names}
    for repeat, each in enumerate(decisions):
        found = from_confusion(confusions(y, each, n_classes, scaled))
        found |= _of_probabilities(y, _repeat(proba, repeat), n_classes, positive, scaled, names)
        for name in names:
            sums[name] += found[name]
    return {name: total / len(decisions) for name, total in sums.items()}


def _repeat(proba: np.ndarray | None, repeat: int) -> np.ndarray | None:
    if proba is None:
        return None
    return proba if proba.ndim == 2 else proba[repeat]


def _weights(y: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    return np.ones((1, len(y))) if weights is None else weights


def confusions(
    y: np.ndarray, decision: np.ndarray, n_classes: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Weighted counts (B, K, K) of decisions (n,) against the truth (n,); truth down.

    Raises:
        ValueError: labels or decisions outside 0..K-1, or not one decision per row.
    """
    if decision.shape != y.shape:
        raise ValueError(f"{decision.shape} decisions for {y.shape} rows")
    for name, given in (("labels", y), ("decisions", decision)):
        if ((given < 0) | (given >= n_classes)).any():
            raise ValueError(f"{name} outside 0..{n_classes - 1}: {sorted(set(given.tolist()))}")
    scaled = _weights(y, weights)
    cells = np.zeros((len(y), n_classes * n_classes), scaled.dtype)
    cells[np.arange(len(y)), y * n_classes + decision] = 1
    return (scaled @ cells).reshape(-1, n_classes, n_classes).astype(np.float64)


def from_confusion(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """The figures OF_DECISIONS of confusion matrices (..., K, K), each (...).

    A class that is never true and never decided has an F1 of 0, as scikit-learn's zero_division=0
    has it. All figures of an empty matrix are NaN.
    """
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    true, decided = confusion.sum(-1), confusion.sum(-2)
    total = confusion.sum((-2, -1))
    some = np.where(total > 0, 1.0, np.nan)
    recall = _ratio(hit, true)
    kept_out = _ratio(total[..., None] - true - decided + hit, total[..., None] - true)
    return {
        "macro_f1": some * _ratio(2 * hit, true + decided).mean(-1),
        "accuracy": some * _ratio(hit.sum(-1), total),
        "balanced_accuracy": some * _ratio(recall.sum(-1), (true > 0).sum(-1)),
        "precision": some * _ratio(hit, decided).mean(-1),
        "recall": some * recall.mean(-1),
        "specificity": some * kept_out.mean(-1),
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Part by whole, 0 where there is no whole."""
    result: np.ndarray = np.asarray(part) / np.where(whole == 0, 1.0, whole)
    return result


def _of_probabilities(
    y: np.ndarray,
    proba: np.ndarray | None,
    n_classes: int,
    positive: int,
    weights: np.ndarray,
    names: Collection[str],
) -> dict[str, np.ndarray]:
    wanted = [name for name in METRICS if name in names and name not in OF_DECISIONS]
    undefined = np.full(len(weights), np.nan)
    if proba is None or not wanted:
        return dict.fromkeys(wanted, undefined)
    if proba.shape != (len(y), n_classes):
        raise ValueError(f"probabilities {proba.shape} for {len(y)} rows of {n_classes} classes")
    known = np.isfinite(proba).all(1)
    if not known.all():
        y, proba, weights = y[known], proba[known], weights[:, known]
    found: dict[str, np.ndarray] = {}
    if {"average_precision", "roc_auc"} & set(wanted):
        precision, auc = _rankings(y, proba, positive, weights)
        found = {"average_precision": precision, "roc_auc": auc}
    linear: dict[str, Callable[..., np.ndarray]] = {
        "brier": briers,
        "calibration_error": calibration_errors,
    }
    return found | {name: linear[name](y, proba, weights) for name in wanted if name in linear}


def _rankings(
    y: np.ndarray, proba: np.ndarray, positive: int, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and AUC, (B,) each: of the positive class, or one against the rest."""
    classes = [positive] if proba.shape[1] == 2 else range(proba.shape[1])
    turned = np.ascontiguousarray(weights.T)
    each = [ranking(y == label, proba[:, label], turned) for label in classes]
    # A class that a resample has lost says nothing, the others still do.
    stacked = np.array(each)
    there = np.isfinite(stacked).sum(0)
    mean = np.nansum(stacked, 0) / np.where(there == 0, np.nan, there)
    return mean[0], mean[1]


def ranking(
    positive: np.ndarray, score: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and ROC AUC of scores (n,) under weights (n, B), each (B,).

    `positive` (n,) is bool. Equal scores share one step, as in scikit-learn. NaN where all the
    weight lies on one side.
    """
    order = np.argsort(-score, kind="stable")
    mine, ranked, scaled = positive[order], score[order], weights[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]]) if len(order) else order
    block = np.searchsorted(starts, np.flatnonzero(mine), "right") - 1
    ends = np.r_[starts[1:], len(order)]
    hits = running_sums(np.where(mine[:, None], scaled, 0))
    misses = running_sums(np.where(mine[:, None], 0, scaled))
    all_hits, all_misses = hits[-1], misses[-1]
    above, below = misses[starts[block]], misses[ends[block]]
    hit, own = hits[ends[block]], scaled[mine]
    precision = (own * (hit / np.maximum(hit + below, np.finfo(hit.dtype).tiny))).sum(0)
    beaten = (own * (all_misses - (above + below) / 2)).sum(0, dtype=np.float64)
    both = np.where((all_hits > 0) & (all_misses > 0), 1.0, np.nan)
    hits_or_one, misses_or_one = np.maximum(all_hits, 1e-30), np.maximum(all_misses, 1e-30)
    return both * precision / hits_or_one, both * beaten / hits_or_one / misses_or_one


def running_sums(values: np.ndarray) -> np.ndarray:
    """Sums (n + 1, B) of the first 0, 1, ... n rows of values (n, B).

    In runs of rows at once: several times as fast as numpy's cumsum, which goes one by one.
    """
    n, width = values.shape
    run = max(1, min(_LARGEST_RUN, int(np.sqrt(n))))
    count = -(-n // run)
    padded = np.zeros((count * run + 1, width), values.dtype)
    padded[1 : n + 1] = values
    runs = padded[1:].reshape(count, run, width)
    for at in range(1, run):
        runs[:, at] += runs[:, at - 1]
    for at in range(1, count):
        runs[at] += runs[at - 1, -1]
    return padded[: n + 1]


def briers(y: np.ndarray, proba: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Brier scores (B,) of probabilities (n, K) under weights (B, n)."""
    classes = proba.shape[1]
    loss = ((proba - np.eye(classes)[y]) ** 2).sum(1) / (2 if classes == 2 else 1)
    return _weighted_mean(weights @ loss.astype(weights.dtype), weights)


def calibration_errors(y: np.ndarray, proba: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Expected calibration errors (B,) of probabilities (n, K) under weights (B, n).

    Bins are open below and closed above, as in Guo et al., "On Calibration of Modern Neural
    Networks", ICML 2017. It is biased upwards in small samples.
    """
    confidence = proba.max(1)
    gap = confidence - (proba.argmax(1) == y)
    bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    gaps = np.zeros((len(y), _BINS), weights.dtype)
    gaps[np.arange(len(y)), bins] = gap
    return _weighted_mean(np.abs(weights @ gaps).sum(1), weights)


def _weighted_mean(total: np.ndarray, weights: np.ndarray) -> np.ndarray:
    size = weights.sum(1, dtype=np.float64)
    return total / np.where(size == 0, np.nan, size)
