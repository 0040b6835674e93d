"""The share of positives in a whole archive, from the predictions for all and a random sample.

A threshold counts what the model calls positive, and is wrong by as much as the model is. A random
sample alone is right on average, and wide. Prediction-powered inference uses both: with predictions
f of all N images and answers y of the n sampled ones,

    estimate = lambda mean_N(f) + mean_n(y - lambda f),

which is right on average whatever f is, and varies only with what f leaves unexplained.
Angelopoulos, Bates, Fannjiang, Jordan, Zrnic, "Prediction-powered inference" (Science 2023), with
the lambda of least variance, cov(y, f) / var(f), of "PPI++" (Angelopoulos, Duchi, Zrnic 2023); in
a finite archive of which the sample is a part that is the regression estimator of survey sampling,
and the variance has the factor 1 - n / N (Cochran, "Sampling techniques", 1977, chapter 7). Strata
of the score are estimated one by one and weighted by their sizes (Fisch et al., "Stratified
prediction-powered inference", 2024).

Where the system is good, y - lambda f is 0 but for the few errors in the sample, which is then
likely to show too few of them: 95 % intervals by Student's t held in 86 to 95 % of simulated
samples. As Agresti and Min, "Effects and non-effects of paired identical observations in comparing
proportions with binary matched-pairs data" (2005) add half an observation to each of the four cells
of matched pairs, half an observation of every pair of an answer and a prediction of 0 or 1 is added
to the sample; then the intervals hold (benchmarks/prevalence_truth.py).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.recall.counts import highest_count, lowest_count

# Below so many of either answer in the sample only an exact limit is to be trusted.
_FEWEST = 5
# The pairs of answer and prediction that are added, and the weight of each.
_ANSWERS, _PREDICTIONS, _WEIGHT = np.array([0.0, 0, 1, 1]), np.array([0.0, 1, 0, 1]), 0.5


@dataclass(frozen=True)
class Share:
    """A share with an interval of a confidence, and how it was computed."""

    estimate: float
    low: float
    high: float
    confidence: float
    method: str

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class Part:
    """A stratum: predictions (N,) of all its images; of the sample predictions and answers (n,)."""

    predictions: np.ndarray
    sampled: np.ndarray
    answers: np.ndarray


def plain_share(answers: np.ndarray, images: int, confidence: float = 0.95) -> Share:
    """Estimate from a plain random sample of true and false answers (n,) alone, exactly.

    Raises InputError: nothing was sampled.
    """
    drawn, positive = len(answers), int(np.sum(answers))
    if not drawn:
        raise InputError("nothing was sampled: no estimate without a random sample")
    alpha = (1 - confidence) / 2
    low = lowest_count(positive, drawn, images, alpha) / images
    high = highest_count(positive, drawn, images, alpha) / images
    return Share(positive / drawn, low, high, confidence, "exact hypergeometric, sample alone")


def predicted_share(parts: Sequence[Part], confidence: float = 0.95) -> Share:
    """Estimate from strata of predictions and samples; an interval by Student's t.

    Predictions lie between 0 and 1. The degrees of freedom are those of Satterthwaite. Where the
    sample has fewer than five positives or negatives the limits use no predictions, and are exact:
    of one stratum; of several, each with its share of 1 - confidence (Bonferroni).

    Raises:
        InputError: a stratum has fewer than two sampled images, and more than those.
    """
    answers = np.concatenate([each.answers for each in parts]).astype(float)
    images = sum(len(each.predictions) for each in parts)
    if min(answers.sum(), len(answers) - answers.sum()) < _FEWEST:
        return _exact_share(parts, images, confidence)
    weights = np.array([len(each.predictions) for each in parts]) / images
    means, variances, freedom = np.array([_estimate(each, len(answers)) for each in parts]).T
    estimate = float(weights @ means)
    terms = weights**2 * variances
    total = terms.sum()
    half = 0.0
    if total:
        degrees = total**2 / (terms**2 / np.maximum(freedom, 1)).sum()
        half = float(stats.t.isf((1 - confidence) / 2, degrees) * np.sqrt(total))
    # What was seen cannot be undone: positives of the sample are there, negatives are not.
    least, most = answers.sum() / images, 1 - (len(answers) - answers.sum()) / images
    low, high = (float(np.clip(each, least, most)) for each in (estimate - half, estimate + half))
    method = "prediction-powered, lambda of least variance"
    method += f", {len(parts)} strata" if len(parts) > 1 else ""
    return Share(float(np.clip(estimate, least, most)), low, high, confidence, method)


def _exact_share(parts: Sequence[Part], images: int, confidence: float) -> Share:
    """Estimate without predictions."""
    if len(parts) == 1:
        return plain_share(parts[0].answers, images, confidence)
    shares = [
        plain_share(each.answers, len(each.predictions), 1 - (1 - confidence) / len(parts))
        for each in parts
    ]
    weights = [len(each.predictions) / images for each in parts]
    estimate, low, high = (
        sum(weight * getattr(share, name) for weight, share in zip(weights, shares, strict=True))
        for name in ("estimate", "low", "high")
    )
    method = f"exact hypergeometric, sample alone, {len(parts)} strata"
    return Share(estimate, low, high, confidence, method)


def _estimate(part: Part, sampled: int) -> tuple[float, float, float]:
    """Estimate the share of a stratum, its variance and its degrees of freedom.

    The lambda is fitted on the sample, which costs a degree of freedom. Of the pairs that are added
    to the whole sample a stratum gets its part.
    """
    n, images = len(part.answers), len(part.predictions)
    if n == images and n:
        return float(part.answers.mean()), 0.0, 1.0
    if n < 2:
        raise InputError(f"a stratum of {images} images has {n} sampled: sample two or more of it")
    y, f = np.append(part.answers, _ANSWERS), np.append(part.sampled, _PREDICTIONS)
    weights = np.append(np.ones(n), np.full(len(_ANSWERS), _WEIGHT * n / sampled))
    total = weights.sum()
    y_mean, f_mean = weights @ y / total, weights @ f / total
    slope = weights @ ((y - y_mean) * (f - f_mean)) / (weights @ (f - f_mean) ** 2)
    residual = y - slope * f
    mean = weights @ residual / total
    freedom = max(total - 2, 1)
    variance = weights @ (residual - mean) ** 2 / freedom / total * (1 - n / images)
    return float(slope * part.predictions.mean() + mean), float(variance), float(freedom)
