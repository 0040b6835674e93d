"""Looking more than once at a growing sample: a limit that holds at every look, whenever one stops.

A limit for one look, asked again and again until it pleases, fails far more often than it says.
Waudby-Smith and Ramdas, "Confidence sequences for sampling without replacement" (NeurIPS 2020):
take any prior of the count K, beta-binomial here. For the true K the ratio

    R(n) = prior mean of P(data | K') / P(data | K)

has the mean 1 at every sample size and is a martingale as images are drawn one by one, since they
come in random order. So by Ville's inequality it ever reaches 1 / alpha with probability at most
alpha, and the K with R < 1 / alpha hold the truth at all sizes at once. With the counts of the
sample the numerator is a beta-binomial and the denominator a hypergeometric probability. The prior
costs width where it is wrong, never validity.
"""

import numpy as np
from scipy import stats

from archiveprobe.evaluate.recall.counts import check_sample, largest
from archiveprobe.evaluate.recall.strata import log_binomial

# Strength of the prior: it is worth so many positives seen.
_STRENGTH = 1.0


def highest_at_any_time(
    positive: int, drawn: int, total: int, alpha: float, expected: float
) -> int:
    """Compute an upper limit of the positives in the set that holds at every sample size at once.

    `expected` is the share of positives that was expected before the first image was looked at,
    between 0 and 1, both excluded. Raises ValueError for counts that cannot be.
    """
    check_sample(positive, drawn, total)
    if not 0 < expected < 1:
        raise ValueError(f"expected share {expected} is not between 0 and 1")
    if not drawn:
        return total
    prior = _STRENGTH, _STRENGTH * (1 - expected) / expected
    least = np.log(alpha) + stats.betabinom.logpmf(positive, drawn, *prior)
    # As a function of K the denominator rises to its mode and falls from there.
    mode = min(max(positive, (total + 1) * positive // drawn), total - drawn + positive)

    samples = log_binomial(total, np.array(drawn))

    def within(count: int) -> bool:
        others = log_binomial(total - count, np.array(drawn - positive))
        return bool(log_binomial(count, np.array(positive)) + others - samples > least)

    return largest(mode, total - drawn + positive, within)
