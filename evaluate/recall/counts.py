"""How many positives a set may hold, from a random sample of it: exact limits of a count.

Of `total` images `drawn` were drawn at random without replacement and `positive` of them are
positive. If the set holds K positives, the sample holds X of them, X hypergeometric, and
P(X <= positive | K) falls with K. Whatever K is, the K for which that probability is at most alpha
are seen with probability at most alpha, so the largest K above alpha is an upper limit that holds
with probability 1 - alpha or more. These are the limits of Clopper and Pearson (1934) for a finite
set; Buonaccorsi, "A note on confidence intervals for proportions in finite populations" (1987).
"""

from collections.abc import Callable

from scipy import stats


def largest(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """Find the largest integer of low..high for which `holds`, which is true up to it; else low."""
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def check_sample(positive: int, drawn: int, total: int) -> None:
    """Refuse counts that no sample can have. Raises ValueError."""
    if not 0 <= positive <= drawn <= total:
        raise ValueError(f"{positive} positive of {drawn} drawn from {total} images cannot be")


def tail(positive: int, drawn: int, total: int, count: int) -> float:
    """Compute the probability of at most `positive` in the sample if the set holds `count`."""
    return float(stats.hypergeom.cdf(positive, total, count, drawn))


def highest_count(positive: int, drawn: int, total: int, alpha: float) -> int:
    """Compute the upper limit of the positives in the set, which fails with probability <= alpha.

    It counts those of the sample. A sample of nothing says nothing: `total`. A sample of all is
    exact. Raises ValueError for counts that cannot be.
    """
    check_sample(positive, drawn, total)
    # What was seen to be negative is not positive.
    most = total - (drawn - positive)
    return largest(positive, most, lambda count: tail(positive, drawn, total, count) > alpha)


def lowest_count(positive: int, drawn: int, total: int, alpha: float) -> int:
    """Compute the lower limit: negatives are at most so many, and the rest is positive."""
    return total - highest_count(drawn - positive, drawn, total, alpha)


def highest_trials(successes: int, chance: float, alpha: float) -> int:
    """Compute the upper limit of the trials of which `successes` succeeded, each with a chance.

    The largest number of trials for which so few successes have a probability above alpha.
    `chance` is positive.
    """
    most = successes + 1
    while stats.binom.cdf(successes, most, chance) > alpha:
        most *= 2
    return largest(
        successes, most, lambda trials: bool(stats.binom.cdf(successes, trials, chance) > alpha)
    )


def highest_share(positive: int, drawn: int, alpha: float) -> float:
    """Compute the upper limit of a chance, seen `positive` times in `drawn` (Clopper-Pearson)."""
    return (
        1.0 if positive == drawn else float(stats.beta.isf(alpha, positive + 1, drawn - positive))
    )
