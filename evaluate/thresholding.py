"""Thresholds for two classes: found on some rows, applied to others. The decision is p > threshold.

The curve of macro-F1 over the threshold is a staircase, and its highest step is a noisy place: the
default averages the best thresholds of many resamples. In simulations (n = 400, prevalence .353, a
fifth near-duplicates) that loses .0015 of macro-F1 against the best possible threshold, the highest
step .0045; the argmax of the averaged curves loses as much as the highest step, because resampling
moves the curve up and down but does not smooth it. benchmarks/interval_truth.py measures it again.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from archiveprobe.evaluate.intervals import grouped_weights

RESAMPLES = 200
_CANDIDATES = 512
_EPSILON = 1e-12
# The bootstrap of an argmax needs fewer draws than there are groups to be consistent (Abrevaya and
# Huang, "On the Bootstrap of the Maximum Score Estimator", Econometrica 2005). Of the exponents
# .7, .8, .9 and 1 this one lost least over seven simulated score distributions, n = 200 to 1,600.
_EXPONENT = 0.8
_GRID = np.arange(30, 71) / 100


@dataclass(frozen=True)
class Threshold:
    """A threshold, where else it might lie, and the macro-F1 there on the rows it was found on.

    `low` and `high` hold the central 95 % of the resampled best thresholds ("smoothed"), or the
    lowest and the highest of equally good ones.
    """

    value: float
    low: float
    high: float
    score: float
    method: str


@dataclass(frozen=True)
class NestedThresholds:
    """Thresholds (R, folds), each found outside its fold, and the decisions (R, n) they give.

    A decision is a class index, or -1 where the probability is NaN.
    """

    thresholds: np.ndarray
    decision: np.ndarray


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
    thresholds, *counts = _counts(y01, p, weights)
    scores = _macro_f1(*counts)
    return thresholds, scores[:, 0] if weights is None else scores.T


def _counts(
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


def _macro_f1(
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
    return _macro_f1(hits, decided, np.asarray(y01.sum()), np.asarray(float(len(p))))


def _best(thresholds: np.ndarray, scores: np.ndarray, method: str) -> Threshold:
    """Find the best threshold, of equally good ones that nearest to 0.5."""
    tied = thresholds[scores >= scores.max() - 1e-12]
    nearest = tied[np.abs(tied - 0.5).argmin()]
    return Threshold(nearest, tied[0], tied[-1], scores.max(), method)


def _smoothed(y01: np.ndarray, p: np.ndarray, weights: np.ndarray) -> Threshold:
    """Average the best thresholds of the resamples as logits, so that Platt scaling commutes."""
    inside = np.clip(p, _EPSILON, 1 - _EPSILON)
    scores = np.log(inside) - np.log1p(-inside)
    thresholds, *counts = _counts(y01, scores, weights, _CANDIDATES)
    positives, total = counts[2:]
    both = (positives > 0) & (positives < total)
    if not both.any():
        return _best(*scan(y01, p), "exact")
    # argmax takes the first of equals, so the order makes ties go to the threshold nearest 0.5.
    near_half = np.argsort(np.abs(thresholds), kind="stable")
    best = _macro_f1(*counts)[near_half].argmax(0)
    optima = thresholds[near_half][best[both]]
    centre = optima.mean()
    # The best threshold converges at the rate n^(1/3) (Kim and Pollard, "Cube Root Asymptotics",
    # 1990): with fewer draws than rows it spreads wider by the cube root of their ratio.
    narrower = (weights.sum(1).mean() / len(p)) ** (1 / 3)
    spread = (np.quantile(optima, [0.025, 0.975]) - centre) * narrower
    value, low, high = expit(centre + np.array([0, min(0, spread[0]), max(0, spread[1])]))
    return Threshold(value, low, high, float(score_at(y01, p, value)), "smoothed")


@dataclass(frozen=True)
class ThresholdRule:
    """Finds a threshold, given y01 (n,), p (n,) and resampling weights (B, n).

    A rule that does not resample gets no weights. Ties go to the threshold nearest 0.5.
    """

    find: Callable[[np.ndarray, np.ndarray, np.ndarray], Threshold]
    resamples: bool = False


# "grid" is the CLIP paper's: 0.3 to 0.7 in steps of 0.01.
THRESHOLD_RULES: dict[str, ThresholdRule] = {
    "smoothed": ThresholdRule(_smoothed, resamples=True),
    "exact": ThresholdRule(lambda y01, p, _: _best(*scan(y01, p), "exact")),
    "grid": ThresholdRule(lambda y01, p, _: _best(_GRID, score_at(y01, p, _GRID), "grid")),
    "half": ThresholdRule(
        lambda y01, p, _: Threshold(0.5, 0.5, 0.5, float(score_at(y01, p, 0.5)), "half")
    ),
}


def nested(
    y: np.ndarray,
    p: np.ndarray,
    fold: np.ndarray,
    groups: np.ndarray,
    positive: int = 1,
    method: str = "smoothed",
    seed: int = 0,
) -> NestedThresholds:
    """Find thresholds and decisions of p (R, n), the positive class's, in folds (R, n).

    The threshold for the rows of a fold is found on that repeat's other rows. p may also be (R,
    folds, n): all rows as the calibration of every fold sees them, so that a threshold is found on
    the scale on which it is applied, and no calibration brings a fold's own labels to its
    threshold. Rows with NaN take no part and get decision -1. Where the other rows have one class
    only the threshold is 0.5.
    """
    weights = _resamples(groups, method, seed)
    count = int(fold.max()) + 1
    if p.ndim == 2:
        p = np.broadcast_to(p[:, None], (len(p), count, p.shape[1]))
    thresholds = np.full((len(p), count), 0.5)
    for repeat, held in np.ndindex(*thresholds.shape):
        seen = p[repeat, held]
        rows = np.flatnonzero((fold[repeat] != held) & np.isfinite(seen))
        found = _find(y[rows] == positive, seen[rows], weights[:, rows], method)
        thresholds[repeat, held] = found.value
    own = np.take_along_axis(p, fold[:, None], 1)[:, 0]
    applied = np.take_along_axis(thresholds, fold, 1)
    return NestedThresholds(thresholds, decide(own, applied, positive))


def final(
    y: np.ndarray,
    p: np.ndarray,
    groups: np.ndarray,
    positive: int = 1,
    method: str = "smoothed",
    seed: int = 0,
) -> Threshold:
    """Find the threshold for new rows on the mean over repeats of p (R, n), NaN left out.

    Its score is the optimistic one: the threshold has seen these labels.
    """
    known = np.isfinite(p).all(0)
    weights = _resamples(groups, method, seed)[:, known]
    return _find(y[known] == positive, p.mean(0)[known], weights, method)


def curve(y: np.ndarray, p: np.ndarray, positive: int = 1, at: np.ndarray | None = None) -> Curve:
    """Compute the curve of the mean over repeats of p (R, n), NaN left out.

    At every distinct threshold, or at those of `at` (c,). Precision is NaN where no row is decided
    positive.
    """
    known = np.isfinite(p).all(0)
    y01, mean = y[known] == positive, p.mean(0)[known]
    thresholds = _counts(y01, mean, None)[0] if at is None else at
    above = mean > thresholds[:, None]
    hits, decided = (above & y01).sum(1, dtype=float), above.sum(1, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = hits / decided, hits / y01.sum()
    return Curve(thresholds, score_at(y01, mean, thresholds), precision, recall)


def decide(p: np.ndarray, threshold: float | np.ndarray, positive: int = 1) -> np.ndarray:
    """Decide p > threshold: the positive class index or the other (int64), -1 for NaN."""
    above = np.where(p > threshold, positive, 1 - positive)
    return np.where(np.isnan(p), -1, above).astype(np.int64)


def _find(y01: np.ndarray, p: np.ndarray, weights: np.ndarray, method: str) -> Threshold:
    if y01.all() or not y01.any():
        score = float(score_at(y01, p, 0.5)) if len(y01) else 0.0
        return Threshold(0.5, 0.5, 0.5, score, method)
    return THRESHOLD_RULES[method].find(y01, p, weights)


def _resamples(groups: np.ndarray, method: str, seed: int) -> np.ndarray:
    """Draw weights (B, n), none for rules that resample nothing."""
    if method not in THRESHOLD_RULES:
        raise ValueError(f"no threshold {method!r}: one of {', '.join(THRESHOLD_RULES)}")
    if not THRESHOLD_RULES[method].resamples:
        return np.empty((0, len(groups)), np.float32)
    draws = round(len(np.unique(groups)) ** _EXPONENT)
    return grouped_weights(groups, RESAMPLES, seed, draws=draws)
