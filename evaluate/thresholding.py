"""Thresholds for two classes: found on some rows, applied to others. The decision is p > threshold.

The curve of macro-F1 over the threshold is a staircase, and its highest step is a noisy place: the
default averages the best thresholds of many resamples. In simulations (n = 400, prevalence .353, a
fifth near-duplicates) that loses .0015 of macro-F1 against the best possible threshold, the highest
step .0045; the argmax of the averaged curves loses as much as the highest step, because resampling
moves the curve up and down but does not smooth it. benchmarks/interval_truth.py measures it again.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.special import expit

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.aims import at_precision, at_recall
from archiveprobe.evaluate.intervals import grouped_weights
from archiveprobe.evaluate.metrics import macro_f1
from archiveprobe.evaluate.threshold_curve import (
    Threshold,
    counts_at,
    macro_f1_of,
    scan,
    score_at,
)

RESAMPLES = 200
_CANDIDATES = 512
_EPSILON = 1e-12
# The bootstrap of an argmax needs fewer draws than there are groups to be consistent (Abrevaya and
# Huang, "On the Bootstrap of the Maximum Score Estimator", Econometrica 2005). Of the exponents
# .7, .8, .9 and 1 this one lost least over seven simulated score distributions, n = 200 to 1,600.
_EXPONENT = 0.8
_GRID = np.arange(30, 71) / 100
BY_HAND = "fixed"
DEFAULT_RULE = "smoothed"


@dataclass(frozen=True)
class NestedThresholds:
    """Thresholds (R, folds), each found outside its fold, and the decisions (R, n) they give.

    A decision is a class index, or -1 where the probability is NaN.
    """

    thresholds: np.ndarray
    decision: np.ndarray


@dataclass(frozen=True)
class Chosen:
    """Holds nested thresholds (R, folds), the decisions (R, n) they give, and the final threshold.

    `optimistic` is the macro-F1 of the final threshold on the rows that chose it.
    """

    thresholds: np.ndarray
    decision: np.ndarray
    threshold: Threshold
    optimistic: float


def _best(thresholds: np.ndarray, scores: np.ndarray, method: str) -> Threshold:
    """Find the best threshold, of equally good ones that nearest to 0.5."""
    tied = thresholds[scores >= scores.max() - 1e-12]
    nearest = tied[np.abs(tied - 0.5).argmin()]
    return Threshold(nearest, tied[0], tied[-1], scores.max(), method)


def _smoothed(
    y01: np.ndarray,
    p: np.ndarray,
    weights: np.ndarray,
    method: str = "smoothed",
    score: Callable[..., np.ndarray] = macro_f1_of,
) -> Threshold:
    """Average the best thresholds of the resamples as logits, so that Platt scaling commutes.

    `score` takes hits, positive decisions, positives and rows, as `counts_at` counts them.
    """
    inside = np.clip(p, _EPSILON, 1 - _EPSILON)
    scores = np.log(inside) - np.log1p(-inside)
    thresholds, *counts = counts_at(y01, scores, weights, _CANDIDATES)
    positives, total = counts[2:]
    both = (positives > 0) & (positives < total)
    if not both.any():
        return _best(*scan(y01, p), method)
    # argmax takes the first of equals, so the order makes ties go to the threshold nearest 0.5.
    near_half = np.argsort(np.abs(thresholds), kind="stable")
    best = score(*counts)[near_half].argmax(0)
    optima = thresholds[near_half][best[both]]
    centre = optima.mean()
    # The best threshold converges at the rate n^(1/3) (Kim and Pollard, "Cube Root Asymptotics",
    # 1990): with fewer draws than rows it spreads wider by the cube root of their ratio.
    narrower = (weights.sum(1).mean() / len(p)) ** (1 / 3)
    spread = (np.quantile(optima, [0.025, 0.975]) - centre) * narrower
    value, low, high = expit(centre + np.array([0, min(0, spread[0]), max(0, spread[1])]))
    return Threshold(value, low, high, float(score_at(y01, p, value)), method)


def _at_cost(y01: np.ndarray, p: np.ndarray, weights: np.ndarray, price: float) -> Threshold:
    """Find the threshold whose decisions cost least, where a miss costs `price` false alarms."""

    def savings(hits: np.ndarray, decided: np.ndarray, positives: np.ndarray, *_: Any) -> Any:
        return -price * (positives - hits) - (decided - hits)

    return _smoothed(y01, p, weights, "cost", savings)


def _fixed(y01: np.ndarray, p: np.ndarray, _: np.ndarray, value: float) -> Threshold:
    return Threshold(value, value, value, float(score_at(y01, p, value)), BY_HAND)


@dataclass(frozen=True)
class ThresholdRule:
    """Finds a threshold, given y01 (n,), p (n,) and resampling weights (B, n).

    A resample draws n ** `exponent` of n groups; a rule that does not resample gets no weights.
    Ties go to the threshold nearest 0.5.
    """

    find: Callable[[np.ndarray, np.ndarray, np.ndarray], Threshold]
    exponent: float | None = None


@dataclass(frozen=True)
class NumberedRule:
    """Finds a threshold as a `ThresholdRule` does, given a number below `most` and above 0.

    `what` describes it to people, with "{}" for the number.
    """

    find: Callable[[np.ndarray, np.ndarray, np.ndarray, float], Threshold]
    exponent: float | None
    most: float
    what: str

    def with_number(self, number: float) -> ThresholdRule:
        """Return the rule for a number."""
        return ThresholdRule(lambda y01, p, w: self.find(y01, p, w, number), self.exponent)


# "grid" is the CLIP paper's: 0.3 to 0.7 in steps of 0.01.
THRESHOLD_RULES: dict[str, ThresholdRule] = {
    "smoothed": ThresholdRule(_smoothed, _EXPONENT),
    "exact": ThresholdRule(lambda y01, p, _: _best(*scan(y01, p), "exact")),
    "grid": ThresholdRule(lambda y01, p, _: _best(_GRID, score_at(y01, p, _GRID), "grid")),
    "half": ThresholdRule(
        lambda y01, p, _: Threshold(0.5, 0.5, 0.5, float(score_at(y01, p, 0.5)), "half")
    ),
}
NUMBERED_RULES: Mapping[str, NumberedRule] = MappingProxyType(
    {
        BY_HAND: NumberedRule(_fixed, None, 1.0, "{}, set by hand"),
        "recall": NumberedRule(at_recall, 1.0, 1.0, "for recall {}"),
        "precision": NumberedRule(at_precision, 1.0, 1.0, "for precision {}"),
        "cost": NumberedRule(
            _at_cost, _EXPONENT, math.inf, "for a miss that costs {} false alarms"
        ),
    }
)
"""Rules that are written with a number behind their name: "recall 0.95", "fixed 0.4"."""


def numbered(name: str, number: float) -> str:
    """Write a rule with its number.

    Raises:
        InputError: the number is out of its range.
    """
    most = NUMBERED_RULES[name].most
    if not 0 < number < most:
        what = "threshold" if name == BY_HAND else name
        limits = "above 0, and finite" if math.isinf(most) else f"between 0 and {most:g}"
        raise InputError(f"{what} must lie {limits}, got {number:g}")
    return f"{name} {number!r}"


def price_of(text: str) -> float:
    """Return how many false alarms a miss costs, from "5:1" or a plain number.

    Raises:
        InputError: it is neither.
    """
    try:
        miss, _, alarm = text.partition(":")
        return float(miss) / float(alarm or 1)
    except (ValueError, ZeroDivisionError):
        raise InputError(
            f"cost {text!r} is not understood: write that of a miss and of a false alarm as 5:1"
        ) from None


def rule_of(text: str) -> ThresholdRule:
    """Return the rule that a text names, with its number where it has one.

    Raises:
        ValueError: no such rule.
    """
    if text in THRESHOLD_RULES:
        return THRESHOLD_RULES[text]
    name, _, number = text.partition(" ")
    if name not in NUMBERED_RULES:
        known = ", ".join([*THRESHOLD_RULES, *NUMBERED_RULES])
        raise ValueError(f"no threshold {text!r}: one of {known}")
    return NUMBERED_RULES[name].with_number(float(number))


def described(rule: str) -> str:
    """Describe a rule to people, as the end of "threshold ..."."""
    name, _, number = rule.partition(" ")
    if name in NUMBERED_RULES:
        return NUMBERED_RULES[name].what.format(number.removesuffix(".0"))
    return f"by the rule {rule!r}"


def choose(
    y: np.ndarray,
    p: np.ndarray,
    by_fold: np.ndarray,
    final_p: np.ndarray,
    fold: np.ndarray,
    groups: np.ndarray,
    *,
    positive: int,
    rule: str,
    unreadable: int,
) -> Chosen:
    """Find thresholds by a rule, nested and final, and decide every row.

    p (R, n) are the positive class's out-of-fold probabilities, which are decided; `by_fold` (R,
    folds, n) those of all rows as the calibration of every fold sees them, `final_p` (R, n) as the
    final one does. Rows of NaN get the answer `unreadable`.
    """
    about = (groups, positive, rule)
    thresholds = nested(y, by_fold, fold, *about, unreadable=unreadable).thresholds
    threshold = final(y, final_p, *about, unreadable=unreadable)
    decision = decide(p, np.take_along_axis(thresholds, fold, 1), positive)
    # Nobody has looked at these rows for a threshold that was set by hand.
    by_hand = threshold.method == BY_HAND
    seen = decision if by_hand else decide(final_p.mean(0), threshold.value, positive)
    decision, seen = (np.where(each < 0, unreadable, each) for each in (decision, seen))
    return Chosen(thresholds, decision, threshold, macro_f1(y, seen, 2))


def nested(
    y: np.ndarray,
    p: np.ndarray,
    fold: np.ndarray,
    groups: np.ndarray,
    positive: int = 1,
    method: str = "smoothed",
    unreadable: int | None = None,
) -> NestedThresholds:
    """Find thresholds and decisions of p (R, n), the positive class's, in folds (R, n).

    The threshold for the rows of a fold is found on that repeat's other rows. p may also be (R,
    folds, n): all rows as the calibration of every fold sees them, so that a threshold is found on
    the scale on which it is applied, and no calibration brings a fold's own labels to its
    threshold. Rows with NaN take no part and get decision -1, but where a rule aims at something,
    see `_with_unreadable`. Where the other rows have one class only the threshold is 0.5.
    """
    p = _with_unreadable(p, method, positive, unreadable)
    weights = _resamples(groups, method)
    count = int(fold.max()) + 1
    if p.ndim == 2:
        p = np.broadcast_to(p[:, None], (len(p), count, p.shape[1]))
    thresholds = np.full((len(p), count), 0.5)
    for repeat, held in np.ndindex(*thresholds.shape):
        seen = p[repeat, held]
        rows = np.flatnonzero((fold[repeat] != held) & ~np.isnan(seen))
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
    unreadable: int | None = None,
) -> Threshold:
    """Find the threshold for new rows on the mean over repeats of p (R, n), NaN left out.

    Its score is the optimistic one: the threshold has seen these labels.
    """
    p = _with_unreadable(p, method, positive, unreadable)
    known = ~np.isnan(p).any(0)
    weights = _resamples(groups, method)[:, known]
    return _find(y[known] == positive, p.mean(0)[known], weights, method)


def _with_unreadable(p: np.ndarray, rule: str, positive: int, unreadable: int | None) -> np.ndarray:
    """Put rows of NaN beyond every threshold, on the side of their answer, for rules that aim.

    A recall that left out the images which cannot be read, and are missed, would promise too much.
    """
    if unreadable is None or rule.split()[0] not in ("recall", "precision"):
        return p
    return np.where(np.isnan(p), np.inf if unreadable == positive else -np.inf, p)


def decide(p: np.ndarray, threshold: float | np.ndarray, positive: int = 1) -> np.ndarray:
    """Decide p > threshold: the positive class index or the other (int64), -1 for NaN."""
    above = np.where(p > threshold, positive, 1 - positive)
    return np.where(np.isnan(p), -1, above).astype(np.int64)


def _find(y01: np.ndarray, p: np.ndarray, weights: np.ndarray, method: str) -> Threshold:
    one_class = y01.all() or not y01.any() or not np.isfinite(p).any()
    if one_class and not method.startswith(BY_HAND):
        score = float(score_at(y01, p, 0.5)) if len(y01) else 0.0
        return Threshold(0.5, 0.5, 0.5, score, method)
    return rule_of(method).find(y01, p, weights)


def _resamples(groups: np.ndarray, method: str) -> np.ndarray:
    """Draw weights (B, n), none for rules that resample nothing."""
    exponent = rule_of(method).exponent
    if exponent is None:
        return np.empty((0, len(groups)), np.float32)
    draws = round(len(np.unique(groups)) ** exponent)
    return grouped_weights(groups, RESAMPLES, draws=draws)
