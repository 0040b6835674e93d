"""How far figures would move with other rows: a bootstrap over groups, stretched for what it omits.

An interval promises this: in 95 of 100 archives drawn from the same source it holds the mean
figure that the fold models, each at its own threshold, would have on endless new rows of that
source; where rows come in groups, on rows of new groups. The model that is refitted on all rows has
learnt from a quarter more of them and is mostly a little better: the interval holds its figure in
about 90 to 97 of 100, less at chance. Nothing is said of images from elsewhere, and with fewer than
20 groups nothing is promised. benchmarks/interval_truth.py counts.

Whole groups are drawn with replacement, and percentiles of the replicates make the interval, which
so keeps the skewness of rare classes. The replicates are stretched about the figure by the ratio of
two standard errors, as Hesterberg, "What teachers should know about the bootstrap" (2015), does for
small samples. The wider one has the t quantile instead of the normal one, knows how few and how
uneven the groups are, and has the part of the training rows, which a bootstrap of held-out rows
takes as given (evaluate/variance.py).
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from archiveprobe.evaluate.metrics import METRICS, auc_replicates, replicated
from archiveprobe.evaluate.variance import (
    fold_shift,
    group_correction,
    group_sums,
    influence,
    likeness,
    mass_by_label,
    training_variance,
)

REPLICATES = 2000
FEW_GROUPS = 20
LEVEL = 0.95
_CHUNK = 3_000_000


@dataclass(frozen=True)
class Comparison:
    """Macro-F1 of `a` less that of `b` on the same rows, its 95 % interval, and two tests.

    `p` is the two-sided p-value of the paired grouped bootstrap: below .05 just where the interval
    leaves out zero. `mcnemar_p` is McNemar's exact test on the first repeat, with `only_a` rows
    that a alone has right; it takes near-duplicates for independent rows and looks at accuracy.
    """

    difference: float
    low: float
    high: float
    p: float
    mcnemar_p: float
    only_a: int
    only_b: int


def grouped_weights(
    groups: np.ndarray, replicates: int = REPLICATES, seed: int = 0, draws: int | None = None
) -> np.ndarray:
    """Draw how often every row counts in every replicate, (B, n) float32.

    Whole groups (n,) are drawn with replacement, as many as there are, or `draws` of them.
    """
    members, count = _members(groups)
    return _drawn(count, replicates, draws or count, np.random.default_rng(seed))[:, members]


def _members(groups: np.ndarray) -> tuple[np.ndarray, int]:
    names, members = np.unique(groups, return_inverse=True)
    return members, len(names)


def _drawn(count: int, replicates: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Draw how often every group counts, (B, groups) float32."""
    picked = rng.integers(0, count, (replicates, draws))
    picked += np.arange(replicates)[:, None] * count
    flat = np.bincount(picked.ravel(), minlength=replicates * count)
    return flat.reshape(replicates, count).astype(np.float32)


def _chunks(groups: np.ndarray, replicates: int, seed: int, rows: int) -> Iterator[np.ndarray]:
    """Yield the replicates in pieces (b, n) that stay small when there are many rows."""
    members, count = _members(groups)
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK // max(1, rows))
    for start in range(0, replicates, size):
        yield _drawn(count, min(size, replicates - start), count, rng)[:, members]


def intervals(
    y: np.ndarray,
    decision: np.ndarray,
    groups: np.ndarray,
    n_classes: int,
    *,
    names: Collection[str] = tuple(METRICS),
    fold: np.ndarray | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, tuple[float, float] | None]:
    """Find the interval (low, high) of every metric in `names`, None where it is undefined.

    Decisions (R, n) or (n,), groups (n,). A metric is the mean over repeats within each replicate.
    `fold` (R, n) says in which folds the decisions were held out; without it, or with one repeat,
    the models are taken as given.
    """
    pieces = [
        replicated(y, decision, n_classes, weights, names)
        for weights in _chunks(groups, replicates, seed, len(y))
    ]
    estimate = replicated(y, decision, n_classes, names=names)
    decisions = np.atleast_2d(decision)
    result = {}
    for name in names:
        error = _error(y, [decisions], groups, n_classes, name, fold)
        moved = _stretched(
            np.concatenate([piece[name] for piece in pieces]),
            estimate[name][0],
            _widening(error, level),
        )
        if fold is not None:
            moved += fold_shift(y, decisions, fold, n_classes, name)
        result[name] = _interval(moved, estimate[name][0], level, 1.0)
    return result


def auc_interval(
    y01: np.ndarray,
    score: np.ndarray,
    groups: np.ndarray,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = LEVEL,
) -> tuple[float, float] | None:
    """Find the interval of the ROC AUC of scores (n,), None where one class is missing.

    The influence of a row on an AUC is not at hand, so rows of a group are taken to be all alike.
    """
    sizes = np.bincount(_members(groups)[0]).astype(np.float64)
    few, freedom = group_correction(sizes, 1.0)
    moved = np.concatenate(
        [auc_replicates(y01, score, w) for w in _chunks(groups, replicates, seed, len(y01))]
    )
    estimate = float(auc_replicates(y01, score, np.ones((1, len(y01))))[0])
    widening = _widening(StandardError(1.0, few, 0.0, freedom), level)
    return _interval(_stretched(moved, estimate, widening), estimate, level, 1.0)


@dataclass(frozen=True)
class StandardError:
    """The variance of a figure in parts, and what it rests on.

    `held_out` is what the bootstrap sees, `few` the factor for what few groups hide of that,
    `training` what the training rows add, `freedom` the degrees of freedom.
    """

    held_out: float
    few: float
    training: float
    freedom: float


def standard_error(
    y: np.ndarray,
    decision: np.ndarray,
    groups: np.ndarray,
    n_classes: int,
    *,
    fold: np.ndarray | None = None,
    name: str = "macro_f1",
) -> StandardError:
    """Split the variance of a metric of decisions (R, n) into parts; `fold` as in `intervals`."""
    return _error(y, [np.atleast_2d(decision)], groups, n_classes, name, fold)


def effective_groups(groups: np.ndarray) -> float:
    """Count how many groups of equal size would weigh as evenly as these (Kish, 1965)."""
    sizes = np.bincount(_members(groups)[0])
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _error(
    y: np.ndarray,
    decisions: list[np.ndarray],
    groups: np.ndarray,
    n_classes: int,
    name: str,
    fold: np.ndarray | None,
) -> StandardError:
    """Split the variance of a metric of one system, or of the difference of two."""
    members, count = _members(groups)
    sizes = np.bincount(members, minlength=count).astype(np.float64)
    each = [influence(y, decision, n_classes, name) for decision in decisions]
    shared = min(map(len, each))
    mean, moves = each[0].mean(0), each[0][:shared]
    for other in each[1:]:
        mean, moves = mean - other.mean(0), moves - other[:shared]
    sums = group_sums(mean, members)
    mass = mass_by_label(mean, y, members)
    few, freedom = group_correction(sizes, likeness(mean, sums, sizes), mass)
    training = 0.0
    if fold is not None:
        # Decisions of a pair differ where either has changed its own: sizes add up where variances
        # should, so that the square of their sum is twice the sum of squares of equal systems.
        training = training_variance(moves, members, fold[:shared]) / len(each)
    return StandardError(float((sums**2).sum()), few, training, freedom)


def _widening(error: StandardError, level: float) -> float:
    """Compute how many times as wide as its bootstrap an interval must be."""
    if np.isinf(error.few):
        return float("inf")
    if not error.held_out:
        return 1.0
    quantile = (1 + level) / 2
    t = stdtrit(max(1.0, error.freedom), quantile) / ndtri(quantile)
    return float(t * np.sqrt(error.few + error.training / error.held_out))


def _stretched(replicates: np.ndarray, estimate: float, factor: float) -> np.ndarray:
    """Move replicates `factor` times as far from the estimate; to infinity where it is infinite."""
    if np.isinf(factor):
        half = np.where(np.arange(len(replicates)) % 2, np.inf, -np.inf)
        return np.where(np.isnan(replicates), np.nan, half)
    return np.asarray(estimate + factor * (replicates - estimate))


def _interval(
    replicates: np.ndarray, estimate: float, level: float, most: float, least: float = 0.0
) -> tuple[float, float] | None:
    known = replicates[~np.isnan(replicates)]
    if np.isnan(estimate) or not len(known):
        return None
    low, high = np.quantile(np.clip(known, least, most), [(1 - level) / 2, (1 + level) / 2])
    return float(min(low, estimate)), float(max(high, estimate))


def compare(
    y: np.ndarray,
    decision_a: np.ndarray,
    decision_b: np.ndarray,
    groups: np.ndarray,
    n_classes: int,
    *,
    name: str = "macro_f1",
    fold: np.ndarray | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Comparison:
    """Compare decisions of two systems, (R, n) or (n,) each, on the same rows and groups.

    `name` is any figure of decisions, `fold` (R, n) the folds that both were held out in. Both
    systems see the same replicates, and the interval is made as that of a figure, of which a
    difference is one: in 95 of 100 archives it holds the fold models' true difference.
    """
    if name not in METRICS:
        raise ValueError(f"{name!r} is no metric of decisions: {', '.join(METRICS)}")
    both = [np.atleast_2d(decision) for decision in (decision_a, decision_b)]

    def difference(weights: np.ndarray | None) -> np.ndarray:
        a, b = (replicated(y, d, n_classes, weights, (name,))[name] for d in both)
        moved: np.ndarray = a - b
        return moved

    moved = np.concatenate(
        [difference(weights) for weights in _chunks(groups, replicates, seed, len(y))]
    )
    estimate = float(difference(None)[0])
    error = _error(y, both, groups, n_classes, name, fold)
    moved = _stretched(moved, estimate, _widening(error, LEVEL))
    interval = _interval(moved, estimate, LEVEL, 1.0, -1.0) or (estimate, estimate)
    right_a, right_b = both[0][0] == y, both[1][0] == y
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return Comparison(
        estimate, *interval, two_sided(moved), mcnemar(only_a, only_b), only_a, only_b
    )


def two_sided(differences: np.ndarray) -> float:
    """Compute the two-sided p-value of differences (B,): twice the smaller share beyond zero."""
    known = differences[np.isfinite(differences)]
    beyond = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (beyond + 1) / (len(known) + 1)))


def mcnemar(only_a: int, only_b: int) -> float:
    """Compute McNemar's exact two-sided p-value from the rows that one system alone has right."""
    # scipy.stats takes longer to load than most commands take.
    from scipy.stats import binomtest

    both = only_a + only_b
    return float(binomtest(only_a, both).pvalue) if both else 1.0
