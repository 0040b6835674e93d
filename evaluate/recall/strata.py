"""A draw from two strata of the images not reviewed: those with high scores, and the others.

Images that were missed mostly have high scores. Where these are drawn more densely, their number is
known well, and few images are drawn from the many others to show that hardly any is there. Scores
only say where to draw: the limit holds whatever they are.

The estimate is the stratified one, T = sum of size x positive / drawn over the strata. Wendell and
Schmee, "Exact inference for proportions from a stratified finite population" (JASA 1996): a pair of
counts (K1, K2) is given up if P(T <= seen) under it is at most alpha, and the limit is the largest
sum of a pair that is not. The true pair is given up with a probability of at most alpha, so no
correction for the number of strata is needed. P(T <= seen) falls with K1 and with K2: hence every
K1 has a largest K2 (by bisection), K1 + K2 cannot exceed b + K2(a) for K1 in a..b, and branch and
bound over K1 finds the largest sum without a look at every pair.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln

from archiveprobe.evaluate.recall.counts import check_sample, largest

# The search stops when the limit is known to this share; what is returned is its upper end.
_TOLERANCE = 0.002


@dataclass(frozen=True)
class Stratum:
    """Images of which `drawn` were drawn at random, without replacement, and their positives."""

    size: int
    drawn: int
    positive: int

    @property
    def most(self) -> int:
        """The most positives it can hold after what was seen."""
        return self.size - self.drawn + self.positive


def tail_of_two(seen: int, first: tuple[int, int, int], second: tuple[int, int, int]) -> float:
    """Compute P(T <= seen) of two strata (size, drawn, count), T scaled to whole numbers.

    T = size1 drawn2 X1 + size2 drawn1 X2, X hypergeometric.
    """
    (size, drawn, count), (size2, drawn2, count2) = first, second
    weight, weight2 = size * drawn2, size2 * drawn
    chance = _chances(min(drawn, count, seen // weight), size, count, drawn)
    left = (seen - weight * np.arange(len(chance))) // weight2
    below = np.cumsum(_chances(min(drawn2, count2, int(left[0])), size2, count2, drawn2))
    return float(chance @ below[np.minimum(left, len(below) - 1)])


def _chances(most: int, size: int, count: int, drawn: int) -> np.ndarray:
    """Compute the hypergeometric probabilities (most + 1,) of 0..most positives in the sample.

    scipy.stats.hypergeom takes a millisecond for what is needed a thousand times here. Of the
    binomials count over x and size - count over drawn - x, the second has no value where the
    sample is larger than what is left: gammaln is infinite there, and the probability 0.
    """
    x = np.arange(most + 1)
    logs = log_binomial(count, x) + log_binomial(size - count, drawn - x)
    result: np.ndarray = np.exp(logs - log_binomial(size, np.array(drawn)))
    return result


def log_binomial(n: int, k: np.ndarray) -> np.ndarray:
    """Compute the logarithm of n over k; minus infinity where k > n. k is not negative."""
    result: np.ndarray = np.where(
        k > n, -np.inf, gammaln(n + 1) - gammaln(k + 1) - gammaln(np.maximum(n - k, 0) + 1)
    )
    return result


def highest_in_two(first: Stratum, second: Stratum, alpha: float) -> int:
    """Compute the upper limit of the positives in two strata together, of which both were drawn.

    It fails with a probability of at most alpha. Raises ValueError for counts that cannot be.
    """
    for each in (first, second):
        check_sample(each.positive, each.drawn, each.size)
        if not each.drawn:
            raise ValueError("a stratum of which nothing was drawn has no limit")
    seen = first.size * second.drawn * first.positive + second.size * first.drawn * second.positive

    def highest_second(count: int, low: int, high: int) -> int:
        """Find the largest count of the second stratum beside one of the first; -1 for none."""

        def kept(other: int) -> bool:
            pair = (first.size, first.drawn, count), (second.size, second.drawn, other)
            return tail_of_two(seen, *pair) > alpha

        if low < second.positive and not kept(second.positive):
            return -1
        return largest(max(low, second.positive), high, kept)

    return _largest_sum((first.positive, first.most), second.most, highest_second)


def _largest_sum(ends: tuple[int, int], most: int, other: Callable[[int, int, int], int]) -> int:
    """Bound the largest a + b over a from one end to the other, with b = other(a), -1 for none.

    b falls with a, and other(a, low, high) looks for it in low..high. Exact, or above it by the
    tolerance.
    """
    start, end = ends
    high = other(start, -1, most)
    low = other(end, -1, high) if high >= 0 else -1
    best = max([a + b for a, b in ((start, high), (end, low)) if b >= 0], default=0)
    # Ranges of a with b at both ends, by the largest sum they could hold, the highest first.
    ranges = [(-(end - 1 + high), start, high, end, low)] if high >= 0 else []
    while ranges:
        bound, start, high, end, low = heapq.heappop(ranges)
        if -bound <= best * (1 + _TOLERANCE):
            return max(best, -bound)
        if end - start < 2:
            continue
        a = (start + end) // 2
        b = other(a, low, high)
        heapq.heappush(ranges, (-(a - 1 + high), start, high, a, b))
        if b >= 0:
            best = max(best, a + b)
            heapq.heappush(ranges, (-(end - 1 + b), a, b, end, low))
    return best
