"""Weighing the candidates of a path by their held-out logits: the good ones count alike."""

import numpy as np

_STEPS = 12
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
    scaled = fit_slopes(logits, y)[:, None, None] * logits
    top = scaled.max(2)
    losses: np.ndarray = top + np.log(np.exp(scaled - top[..., None]).sum(2))
    losses -= np.take_along_axis(scaled, y[None, :, None], 2)[..., 0]
    return losses


def fit_slopes(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The factor (c,) per candidate that makes logits (c, n, K) fit best, by least log-loss."""
    centred = logits - logits.mean(-1, keepdims=True)
    # Margins of any size start at the size of ordinary logits.
    size = np.maximum(np.sqrt((centred**2).mean((1, 2))), 1e-300)
    centred = centred / size[:, None, None]
    slope = np.ones(len(logits))
    true = np.take_along_axis(centred, y[None, :, None], 2)[..., 0]
    for _ in range(_STEPS):
        probability = _softmax(slope[:, None, None] * centred)
        mean = (probability * centred).sum(2)
        variance = (probability * centred**2).sum(2) - mean**2
        gradient = (mean - true).mean(1) + _PRIOR * slope
        step = gradient / (variance.mean(1) + _PRIOR)
        # Newton's step, never so far that it leaves the region where it means something.
        slope = np.clip(slope - np.clip(step, -1.5, 0.7 * slope), 1e-3, _LARGEST_SLOPE)
    result: np.ndarray = slope / size
    return result


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    result: np.ndarray = shifted / shifted.sum(-1, keepdims=True)
    return result
