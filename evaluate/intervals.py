"""How far scores would move with other rows: a bootstrap over groups, stretched for what it omits.

An interval promises this: in 95 of 100 archives drawn from the same source it holds the mean
score that the fold models, each at its own threshold, would have on endless new rows of that
source; where rows come in groups, on rows of new groups. The model that is refitted on all rows has
seen a quarter more of them and is mostly a little better: the interval holds its score in
about 90 to 97 of 100, less at chance. Nothing is said of images from elsewhere, and with fewer than
20 groups nothing is promised. benchmarks/interval_truth.py counts.

Whole groups are drawn with replacement, and percentiles of the replicates make the interval, which
so keeps the skewness of rare classes. The replicates are stretched about the score by the ratio of
two standard errors, as Hesterberg, "What teachers should know about the bootstrap" (2015), does for
small samples. The wider one has the t quantile instead of the normal one, knows how few and how
uneven the groups are, and has the part of the training rows, which a bootstrap of held-out rows
takes as given (evaluate/variance.py).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from archiveprobe.evaluate.metrics import METRICS, replicated
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
    """Holds a metric of one system less that of another on the same rows, and its 95 % interval.

    `p` is the two-sided p-value of the paired grouped bootstrap: below .05 just where the interval
    leaves out zero.
    """

    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class StandardError:
    """The variance of a score in parts, and what it rests on.

    `held_out` is what the bootstrap sees, `few` the factor for what few groups hide of that,
    `training` what the training rows add, `freedom` the degrees of freedom.
    """

    held_out: float
    few: float
    training: float
    freedom: float

    def widening(self) -> float:
        """Compute how many times as wide as its bootstrap an interval must be.

        The variance of the bootstrap is about `held_out`, that of the score few * held_out +
        training: the ratio of the standard errors is the root of few + training / held_out. The
        variance is itself estimated, hence the t quantile instead of the normal one.
        """
        if np.isinf(self.few):
            return float("inf")
        if not self.held_out:
            return 1.0
        quantile = (1 + LEVEL) / 2
        t = stdtrit(max(1.0, self.freedom), quantile) / ndtri(quantile)
        return float(t * np.sqrt(self.few + self.training / self.held_out))


def grouped_weights(
    groups: np.ndarray, replicates: int = REPLICATES, seed: int = 0, draws: int | None = None
) -> np.ndarray:
    """Draw how often every row counts in every replicate, (B, n) float32.

    Whole groups (n,) are drawn with replacement, as many as there are, or `draws` of them.
    """
    return next(_chunks(groups, replicates, seed, draws, at_once=replicates))


def _members(groups: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the groups (n,) numbered from 0, and how many there are."""
    names, members = np.unique(groups, return_inverse=True)
    return members, len(names)


def _chunks(
    groups: np.ndarray, replicates: int, seed: int = 0, draws: int | None = None, *, at_once: int
) -> Iterator[np.ndarray]:
    """Yield weights (b, n) of at most `at_once` replicates; the pieces change no number."""
    members, count = _members(groups)
    rng = np.random.default_rng(seed)
    for start in range(0, replicates, at_once):
        size = min(at_once, replicates - start)
        picked = rng.integers(0, count, (size, draws or count))
        # Replicate b counts in bins b * count and on, so that one bincount does for all.
        picked += np.arange(size)[:, None] * count
        counts = np.bincount(picked.ravel(), minlength=size * count)
        yield counts.reshape(size, count).astype(np.float32)[:, members]


def _replicated(
    score: Callable[[np.ndarray], np.ndarray], groups: np.ndarray, replicates: int
) -> np.ndarray:
    """Collect scores (..., B) of all replicates from those (..., b) of weights (b, n)."""
    at_once = max(1, _CHUNK // len(groups))
    return np.concatenate(
        [score(weights) for weights in _chunks(groups, replicates, at_once=at_once)], -1
    )


def intervals(
    y: np.ndarray,
    decision: np.ndarray,
    groups: np.ndarray,
    n_classes: int,
    *,
    names: Collection[str] = tuple(METRICS),
    fold: np.ndarray | None = None,
    replicates: int = REPLICATES,
) -> dict[str, tuple[float, float] | None]:
    """Find the interval (low, high) of every metric in `names`, None where it is undefined.

    Decisions (R, n) or (n,), groups (n,). A metric is the mean over repeats within each replicate.
    `fold` (R, n) says in which folds the decisions were held out; without it, or with one repeat,
    the models are taken as given.
    """
    decisions = np.atleast_2d(decision)

    def scores(weights: np.ndarray | None) -> np.ndarray:
        return np.stack([*replicated(y, decisions, n_classes, weights, names).values()])

    estimates = scores(None)[:, 0].tolist()
    every = zip(names, estimates, _replicated(scores, groups, replicates), strict=True)
    result = {}
    for name, estimate, values in every:
        error = standard_error(y, decisions, groups, n_classes, fold=fold, name=name)
        moved = _stretched(values, estimate, error.widening())
        if fold is not None:
            moved += fold_shift(y, decisions, fold, n_classes, name)
        result[name] = _percentiles(moved, estimate)
    return result


def standard_error(
    y: np.ndarray,
    decision: np.ndarray,
    groups: np.ndarray,
    n_classes: int,
    *,
    fold: np.ndarray | None = None,
    name: str = "macro_f1",
    less: np.ndarray | None = None,
) -> StandardError:
    """Split the variance of a metric of decisions (R, n) into parts; `fold` as in `intervals`.

    With `less`, other decisions, it is that of the metric less theirs.
    """
    members, count = _members(groups)
    sizes = np.bincount(members, minlength=count).astype(np.float64)
    moves = influence(y, np.atleast_2d(decision), n_classes, name)
    mean = moves.mean(0)
    systems = 1
    if less is not None:
        # The influence on a difference is the difference of the influences.
        other = influence(y, np.atleast_2d(less), n_classes, name)
        shared = min(len(moves), len(other))
        mean, moves = mean - other.mean(0), moves[:shared] - other[:shared]
        systems = 2
    sums = group_sums(mean, members)
    mass = mass_by_label(mean, y, members)
    few, freedom = group_correction(sizes, likeness(mean, sums, sizes), mass)
    training = 0.0
    if fold is not None:
        # Decisions of a pair differ where either has changed its own: sizes add up where variances
        # should, so that the square of their sum is twice the sum of squares of equal systems.
        training = training_variance(moves, members, fold[: len(moves)]) / systems
    return StandardError(float((sums**2).sum()), few, training, freedom)


def effective_groups(groups: np.ndarray) -> float:
    """Count how many groups of equal size would weigh as evenly as these (Kish, 1965)."""
    sizes = np.bincount(_members(groups)[0])
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def _stretched(replicates: np.ndarray, estimate: float, factor: float) -> np.ndarray:
    """Move replicates `factor` times as far from the estimate; to infinity where it is infinite."""
    if np.isinf(factor):
        half = np.where(np.arange(len(replicates)) % 2, np.inf, -np.inf)
        return np.where(np.isnan(replicates), np.nan, half)
    return np.asarray(estimate + factor * (replicates - estimate))


def _percentiles(
    replicates: np.ndarray, estimate: float, least: float = 0.0
) -> tuple[float, float] | None:
    """Find the central 95 % of the replicates, which lie between `least` and 1."""
    known = replicates[~np.isnan(replicates)]
    if np.isnan(estimate) or not len(known):
        return None
    low, high = np.quantile(np.clip(known, least, 1.0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
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
) -> Comparison:
    """Compare decisions of two systems, (R, n) or (n,) each, on the same rows and groups.

    See `compare_each`; `name` is any metric of decisions.
    """
    [found] = compare_each(
        y,
        [decision_a],
        decision_b,
        groups,
        n_classes,
        names=(name,),
        fold=fold,
        replicates=replicates,
    )
    return found[name]


def compare_each(
    y: np.ndarray,
    decisions: Sequence[np.ndarray],
    reference: np.ndarray,
    groups: np.ndarray,
    n_classes: int,
    *,
    names: Collection[str],
    fold: np.ndarray | None = None,
    replicates: int = REPLICATES,
) -> list[dict[str, Comparison]]:
    """Compare decisions of several systems, (R, n) or (n,) each, with those of one reference.

    Returns, for each system, a comparison for every metric of decisions in `names`. `fold` (R, n)
    are the folds that all were held out in. All see the same replicates, which are drawn once, and
    an interval is made as that of a score, of which a difference is one: in 95 of 100 archives it
    holds the fold models' true difference.
    """
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no metric of decisions: {', '.join(METRICS)}")
    *each, base = (np.atleast_2d(decision) for decision in (*decisions, reference))

    def scores(decision: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        return np.stack([*replicated(y, decision, n_classes, weights, names).values()])

    def differences(weights: np.ndarray | None) -> np.ndarray:
        of_base = scores(base, weights)
        return np.stack([scores(decision, weights) - of_base for decision in each])

    def comparison(of: np.ndarray, name: str, estimate: float, moved: np.ndarray) -> Comparison:
        error = standard_error(y, of, groups, n_classes, fold=fold, name=name, less=base)
        stretched = _stretched(moved, estimate, error.widening())
        interval = _percentiles(stretched, estimate, -1.0) or (estimate, estimate)
        return Comparison(estimate, *interval, two_sided(stretched))

    estimates = differences(None)[..., 0].tolist()
    moved = _replicated(differences, groups, replicates)
    return [
        {name: comparison(of, name, *at) for name, *at in zip(names, *numbers, strict=True)}
        for of, *numbers in zip(each, estimates, moved, strict=True)
    ]


def two_sided(differences: np.ndarray) -> float:
    """Compute the two-sided p-value of differences (B,): twice the smaller share beyond zero."""
    known = differences[np.isfinite(differences)]
    beyond = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (beyond + 1) / (len(known) + 1)))
