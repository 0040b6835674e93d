"""Thresholds that aim at a recall or a precision of the positive class, on the safe side.

A threshold that reaches a recall on the labelled rows reaches it in about every other archive that
was drawn like them. So what counts here is a lower bound, the 5 % quantile over resamples of whole
groups: for a recall the highest threshold whose bound reaches it, for a precision the lowest one.
Resamples cannot show misses that never happened. With none among n rows, 3 / n is the 95 % upper
bound of their share (Hanley and Lippman-Hand, "If nothing goes wrong, is everything all right?",
1983), so no bound is above 1 - 3 / n. Where no threshold has such a bound, the one with the highest
is taken, and `Threshold.bound` says so. benchmarks/threshold_aims.py counts how often it holds.
"""

import numpy as np

from archiveprobe.evaluate.threshold_curve import Threshold, counts_at, score_at

CONFIDENCE = 0.95
_RULE_OF_THREE = 3
_CANDIDATES = 512


def at_recall(y01: np.ndarray, p: np.ndarray, weights: np.ndarray, aim: float) -> Threshold:
    """Find the highest threshold whose recall is surely `aim`; weights (B, n) of resamples."""
    thresholds, hits, _, positives, _ = _counts(y01, p, weights)
    return _highest("recall", thresholds, hits, positives[None], aim, (y01, p))


def at_precision(y01: np.ndarray, p: np.ndarray, weights: np.ndarray, aim: float) -> Threshold:
    """Find the lowest threshold whose precision is surely `aim`; weights (B, n) of resamples."""
    thresholds, hits, decided, _, _ = _counts(y01, p, weights)
    # From the other end it is the same search.
    return _highest("precision", thresholds[::-1], hits[::-1], decided[::-1], aim, (y01, p))


def _counts(y01: np.ndarray, p: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """Count as `counts_at` does, the rows themselves before their resamples.

    Rows of infinite p are on their side of every threshold, so they are no candidates for one.
    """
    all_weights = np.concatenate([np.ones((1, len(p)), weights.dtype), weights])
    known, always = np.isfinite(p), p == np.inf
    thresholds, hits, decided, positives, total = counts_at(
        y01[known], p[known], all_weights[:, known], _CANDIDATES
    )
    return (
        thresholds,
        hits + all_weights[:, always & y01].sum(1),
        decided + all_weights[:, always].sum(1),
        positives + all_weights[:, ~known & y01].sum(1),
        total,
    )


def _highest(
    method: str,
    thresholds: np.ndarray,
    hits: np.ndarray,
    of: np.ndarray,
    aim: float,
    rows: tuple[np.ndarray, np.ndarray],
) -> Threshold:
    """Find the last of thresholds (c,) at which hits (c, 1 + B) are surely a share `aim` of `of`.

    `of` is (c, 1 + B) or (1, 1 + B); column 0 has the rows themselves.
    """
    share = hits / np.maximum(of, np.finfo(np.float32).tiny)
    bound = np.quantile(share[:, 1:], 1 - CONFIDENCE, axis=1)
    bound = np.minimum(bound, 1 - _RULE_OF_THREE / np.maximum(of[:, 0], _RULE_OF_THREE))
    at = _last(bound, aim)
    reached = thresholds[[_last(column, aim) for column in share[:, 1:].T]]
    value = thresholds[at]
    low, high = np.quantile(np.append(reached, value), [0.025, 0.975])
    return Threshold(
        float(value),
        float(min(low, value)),
        float(max(high, value)),
        float(score_at(*rows, value)),
        method,
        float(bound[at]),
    )


def _last(values: np.ndarray, aim: float) -> int:
    """Return the last place where values (c,) reach `aim`, or else their maximum."""
    return int(np.flatnonzero(values >= min(aim, values.max()))[-1])
