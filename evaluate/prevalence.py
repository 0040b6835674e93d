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
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.recall.counts import highest_count, lowest_count

# Below so many of either answer in the sample a normal limit is not to be trusted.
_FEWEST = 10
# Fewer sampled rows than these cannot tell what a lambda is.
_FEWEST_OF_STRATUM = 10


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

    The degrees of freedom are those of Satterthwaite. Where the sample has fewer than ten positives
    or negatives the interval of a plain sample is returned, which is exact; for that the sample
    must be one stratum.

    Raises:
        InputError: a stratum has fewer than two sampled images (and more than those), or the
            sample is too one-sided for an interval of several strata.
    """
    answers = np.concatenate([each.answers for each in parts]).astype(float)
    images = sum(len(each.predictions) for each in parts)
    if min(answers.sum(), len(answers) - answers.sum()) < _FEWEST:
        if len(parts) == 1:
            return plain_share(answers, images, confidence)
        raise InputError(
            f"the sample has {int(answers.sum())} positives of {len(answers)}: an interval needs "
            f"{_FEWEST} of either answer, sample more images"
        )
    weights = np.array([len(each.predictions) for each in parts]) / images
    means, variances, freedom = np.array([_estimate(each) for each in parts]).T
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


def _estimate(part: Part) -> tuple[float, float, float]:
    """Estimate the share of a stratum, its variance and its degrees of freedom.

    The lambda is fitted on the sample, which costs a degree of freedom.
    """
    y, f = part.answers.astype(float), part.sampled.astype(float)
    n, images = len(y), len(part.predictions)
    if n == images and n:
        return float(y.mean()), 0.0, 1.0
    if n < 2:
        raise InputError(f"a stratum of {images} images has {n} sampled: sample two or more of it")
    spread = float(f.var())
    fits = n >= _FEWEST_OF_STRATUM and spread > 0
    slope = float(((y - y.mean()) * (f - f.mean())).mean() / spread) if fits else 0.0
    residual = y - slope * f
    freedom = n - 2 if fits else n - 1
    variance = float(((residual - residual.mean()) ** 2).sum() / freedom / n) * (1 - n / images)
    return slope * float(part.predictions.mean()) + float(residual.mean()), variance, freedom
