"""How far figures would move with other rows: a bootstrap over near-duplicate groups.

An interval is about the models that were scored, each on the rows it had not seen: had other
photographs been drawn from the same source, their mean figure would lie in it 95 times of 100. It
is not about a model fitted on all rows, nor about photographs from elsewhere.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from evaluate.metrics import METRICS, OF_DECISIONS, replicated

REPLICATES = 2000
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
    """How often every row counts in every replicate, (B, n) float32.

    Whole groups (n,) are drawn with replacement, as many as there are, or `draws` of them.
    """
    members, count = _members(groups)
    return _drawn(count, replicates, draws or count, np.random.default_rng(seed))[:, members]


def _members(groups: np.ndarray) -> tuple[np.ndarray, int]:
    names, members = np.unique(groups, return_inverse=True)
    return members, len(names)


def _drawn(count: int, replicates: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often every group is drawn, (B, groups) float32."""
    picked = rng.integers(0, count, (replicates, draws))
    picked += np.arange(replicates)[:, None] * count
    flat = np.bincount(picked.ravel(), minlength=replicates * count)
    return flat.reshape(replicates, count).astype(np.float32)


def _chunks(groups: np.ndarray, replicates: int, seed: int, rows: int) -> Iterator[np.ndarray]:
    """The replicates in pieces (b, n) that stay small when there are many rows."""
    members, count = _members(groups)
    rng = np.random.default_rng(seed)
    size = max(1, _CHUNK // max(1, rows))
    for start in range(0, replicates, size):
        yield _drawn(count, min(size, replicates - start), count, rng)[:, members]


def intervals(
    y: np.ndarray,
    decision: np.ndarray,
    proba: np.ndarray | None,
    groups: np.ndarray,
    n_classes: int,
    positive: int = 1,
    *,
    names: Collection[str] = tuple(METRICS),
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = LEVEL,
) -> dict[str, tuple[float, float] | None]:
    """The interval (low, high) of every figure in `names`, None where it is undefined.

    Decisions (R, n) or (n,), probabilities (R, n, K), (n, K) or None, groups (n,). A figure is the
    mean over repeats within each replicate; percentiles of the replicates are the interval, widened
    to hold the estimate itself where a figure is biased in resamples (the calibration error).
    """
    pieces = [
        replicated(y, decision, proba, n_classes, positive, weights, names)
        for weights in _chunks(groups, replicates, seed, len(y))
    ]
    estimate = replicated(y, decision, proba, n_classes, positive, names=names)
    return {
        name: _interval(np.concatenate([piece[name] for piece in pieces]), estimate[name][0], level)
        for name in names
    }


def _interval(replicates: np.ndarray, estimate: float, level: float) -> tuple[float, float] | None:
    known = replicates[np.isfinite(replicates)]
    if np.isnan(estimate) or not len(known):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(min(low, estimate)), float(max(high, estimate))


def compare(
    y: np.ndarray,
    decision_a: np.ndarray,
    decision_b: np.ndarray,
    groups: np.ndarray,
    n_classes: int,
    *,
    name: str = "macro_f1",
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Comparison:
    """Compare decisions of two systems, (R, n) or (n,) each, on the same rows and groups.

    `name` is any figure of decisions. Both systems see the same replicates.
    """
    if name not in OF_DECISIONS:
        raise ValueError(f"{name!r} is no figure of decisions: {', '.join(OF_DECISIONS)}")
    both = [np.atleast_2d(decision) for decision in (decision_a, decision_b)]

    def difference(weights: np.ndarray | None) -> np.ndarray:
        a, b = (replicated(y, d, None, n_classes, 1, weights, (name,))[name] for d in both)
        moved: np.ndarray = a - b
        return moved

    moved = np.concatenate(
        [difference(weights) for weights in _chunks(groups, replicates, seed, len(y))]
    )
    estimate = float(difference(None)[0])
    interval = _interval(moved, estimate, LEVEL) or (estimate, estimate)
    right_a, right_b = both[0][0] == y, both[1][0] == y
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return Comparison(
        estimate, *interval, two_sided(moved), mcnemar(only_a, only_b), only_a, only_b
    )


def two_sided(differences: np.ndarray) -> float:
    """The two-sided p-value of replicated differences (B,): twice the smaller share beyond zero."""
    known = differences[np.isfinite(differences)]
    beyond = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (beyond + 1) / (len(known) + 1)))


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact two-sided p-value from the rows that one system alone has right."""
    # scipy.stats takes longer to load than most commands take.
    from scipy.stats import binomtest

    both = only_a + only_b
    return float(binomtest(only_a, both).pvalue) if both else 1.0
