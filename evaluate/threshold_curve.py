"""The staircase of macro-F1 over the threshold: counts and scores at every distinct threshold."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Threshold:
    """A threshold, where else it might lie, and the macro-F1 there on the rows it was found on.

    `low` and `high` hold the central 95 % of the best thresholds of resamples, or the lowest and
    the highest of equally good ones. `bound` is what a rule that aims at a recall or a precision is
    sure of, NaN for other rules.
    """

    value: float
    low: float
    high: float
    score: float
    method: str
    bound: float = float("nan")


@dataclass(frozen=True)
class Curve:
    """Holds macro-F1, precision and recall of the positive class at every distinct threshold."""

    thresholds: np.ndarray
    macro_f1: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


def scan(
    y01: np.ndarray, p: np.ndarray, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Score every distinct threshold (c,), rising: macro-F1 (c,), or (B, c) with weights (B, n).

    `y01` (n,) is true for the positive class, p (n,) has no NaN. Thresholds lie midway between
    neighbouring values of p; the first lies just below all of them, the last on the largest.
    """
    thresholds, *counts = counts_at(y01, p, weights)
    scores = macro_f1_of(*counts)
    return thresholds, scores[:, 0] if weights is None else scores.T


def counts_at(
    y01: np.ndarray, p: np.ndarray, weights: np.ndarray | None, most: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Count at thresholds (c,): hits, positive decisions (c, B); positives and rows (B,).

    A threshold after the first s rows in the order of p decides the others positive, so running
    sums of the weights give the counts at all thresholds at once. With `most`, that many
    thresholds at most, evenly spaced by rank.
    """
    order = np.argsort(p, kind="stable")
    ranked = p[order]
    steps = np.r_[0, np.flatnonzero(ranked[1:] > ranked[:-1]) + 1, len(p)]
    if most is not None and len(steps) > most:
        steps = steps[np.linspace(0, len(steps) - 1, most).round().astype(int)]
    scaled = np.ones((len(p), 1)) if weights is None else weights.T[order]
    below = np.zeros((2, len(p) + 1, scaled.shape[1]), scaled.dtype)
    np.cumsum(scaled, 0, out=below[0, 1:])
    np.cumsum(scaled * y01[order, None].astype(scaled.dtype), 0, out=below[1, 1:])
    (decided, hits), (total, positives) = below[:, -1:] - below[:, steps], below[:, -1]
    return _between(ranked, steps), hits, decided, positives, total


def _between(ranked: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Find the threshold that leaves the first `step` rows below it, for every step."""
    below = ranked[np.maximum(steps - 1, 0)]
    above = ranked[np.minimum(steps, len(ranked) - 1)]
    middle = below + (above - below) / 2
    # Between neighbouring floats the middle may round up to the upper one, which is not above it.
    thresholds: np.ndarray = np.where(middle < above, middle, below)
    if steps[0] == 0:
        thresholds[0] = np.nextafter(ranked[0], -np.inf)
    return thresholds


def macro_f1_of(
    hits: np.ndarray, decided: np.ndarray, positives: np.ndarray, total: np.ndarray
) -> np.ndarray:
    """Compute macro-F1 from true positives, positive decisions, positives and all rows.

    F1 of a class is 2 hits / (decided + true); the halves make the mean of the two classes. What
    the positive class misses and takes is what the other one takes and misses.
    """
    tiny = np.finfo(hits.dtype).tiny
    positive = hits / np.maximum(decided + positives, tiny)
    negative_hits = total - positives - decided + hits
    negative = negative_hits / np.maximum(2 * total - positives - decided, tiny)
    result: np.ndarray = positive + negative
    return result


def score_at(y01: np.ndarray, p: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """Compute macro-F1 (...) at thresholds (...)."""
    above = p > np.asarray(threshold)[..., None]
    hits = (above & y01).sum(-1, dtype=np.float64)
    decided = above.sum(-1, dtype=np.float64)
    return macro_f1_of(hits, decided, np.asarray(y01.sum()), np.asarray(float(len(p))))


def curve(
    y: np.ndarray,
    p: np.ndarray,
    positive: int = 1,
    at: np.ndarray | None = None,
    unreadable: int | None = None,
) -> Curve:
    """Compute the curve of the mean over repeats of p (R, n).

    At every distinct threshold, or at those of `at` (c,). Rows of NaN are answered `unreadable` at
    all of them; without it they are left out. Precision is NaN where no row is decided positive.
    """
    known, mean = np.isfinite(p).all(0), p.mean(0)
    thresholds = counts_at(y[known] == positive, mean[known], None)[0] if at is None else at
    mean = np.where(known, mean, np.inf if unreadable == positive else -np.inf)
    counted = known if unreadable is None else np.ones_like(known)
    y01, mean = y[counted] == positive, mean[counted]
    above = mean > thresholds[:, None]
    hits, decided = (above & y01).sum(1, dtype=float), above.sum(1, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = hits / decided, hits / y01.sum()
    return Curve(thresholds, score_at(y01, mean, thresholds), precision, recall)
