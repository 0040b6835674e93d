"""Weighing the candidates of a path by their held-out logits: the good ones count alike."""

from collections.abc import Callable
from functools import partial

import numpy as np
from scipy.special import expit, logsumexp, softmax

_Derivatives = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
_STEPS = 12
_CLOSE = 1e-7
_LARGEST_SLOPE = 1e3
_PRIOR = 1e-3


def average_good(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Weights (c,) over candidates, from held-out logits (c, n, K) and y (n,).

    Every candidate whose log-loss is within one standard error of the best one's, paired row by
    row, counts alike: the mean of near-equals is steadier than the luckiest of them (Breiman et
    al., "Classification and Regression Trees", 1984, for the one-standard-error rule). Logits are
    rescaled by a temperature per candidate first, so that margins compare with probabilities.
    Rows with NaN are left out.
    """
    known = np.isfinite(logits).all((0, 2))
    if not known.any():
        return np.ones(len(logits)) / len(logits)
    losses = row_losses(logits[:, known], y[known])
    best = losses.mean(1).argmin()
    worse = losses - losses[best]
    error = worse.std(1) / np.sqrt(worse.shape[1])
    good = worse.mean(1) <= error + 1e-12
    weights: np.ndarray = good / good.sum()
    return weights


def row_losses(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Log-loss (c, n) of every row, each candidate at the temperature that suits it best."""
    slopes = fit_slopes(logits, y)[:, None]
    if logits.shape[2] == 2:
        return np.asarray(np.logaddexp(0.0, -slopes * _margins(logits, y)))
    scaled = slopes[..., None] * logits
    losses = logsumexp(scaled, axis=2)
    losses -= np.take_along_axis(scaled, y[None, :, None], 2)[..., 0]
    return np.asarray(losses)


def fit_slopes(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The factor (c,) per candidate that makes logits (c, n, K) fit best, by least log-loss."""
    if logits.shape[2] == 2:
        margins = _margins(logits, y)
        # Half of a margin, either way, is what the mean of two logits leaves of each.
        size = _size(margins[..., None] / 2)
        derivatives: _Derivatives = partial(_slope_of_margins, margins / size[:, None])
        return np.asarray(_newton(len(logits), derivatives) / size)
    centred = logits - logits.mean(-1, keepdims=True)
    size = _size(centred)
    centred = centred / size[:, None, None]
    true = np.take_along_axis(centred, y[None, :, None], 2)[..., 0]
    return np.asarray(_newton(len(logits), partial(_slope_of_logits, centred, true)) / size)


def _size(logits: np.ndarray) -> np.ndarray:
    """The root mean square (c,): margins of any size start at the size of ordinary logits."""
    return np.asarray(np.maximum(np.sqrt((logits**2).mean((1, 2))), 1e-300))


def _margins(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The true class's logit less the other one's, (c, n)."""
    return np.asarray((logits[..., 1] - logits[..., 0]) * np.where(y == 1, 1.0, -1.0))


def _newton(count: int, derivatives: _Derivatives) -> np.ndarray:
    """Slopes (count,) at which the mean losses, with a weak pull to zero, are least."""
    slope = np.ones(count)
    for _ in range(_STEPS):
        first, second = derivatives(slope)
        step = (first + _PRIOR * slope) / (second + _PRIOR)
        # Newton's step, never so far that it leaves the region where it means something.
        new = np.clip(slope - np.clip(step, -1.5, 0.7 * slope), 1e-3, _LARGEST_SLOPE)
        still = np.abs(new - slope) > _CLOSE * slope
        slope = new
        if not still.any():
            break
    return slope


def _slope_of_margins(margins: np.ndarray, slope: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and second derivatives (c,) of the mean log-loss of margins (c, n)."""
    wrong = expit(-slope[:, None] * margins)
    pulled = wrong * margins
    return -pulled.mean(1), np.einsum("cn,cn->c", pulled, margins - pulled) / margins.shape[1]


def _slope_of_logits(
    centred: np.ndarray, true: np.ndarray, slope: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The same of logits (c, n, K), of which `true` (c, n) are those of the true class."""
    probability = softmax(slope[:, None, None] * centred, axis=-1)
    mean = (probability * centred).sum(2)
    variance = (probability * centred**2).sum(2) - mean**2
    return (mean - true).mean(1), variance.mean(1)
