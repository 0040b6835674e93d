"""Weighing the candidates of a path by their held-out logits: the good ones count alike."""

import numpy as np
from scipy.special import softmax

_STEPS = 12
_CLOSE = 1e-7
_LARGEST_SLOPE = 1e3
_PRIOR = 1e-3


def average_good(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return weights (c,) for candidates, from held-out logits (c, n, K) and y (n,).

    Every candidate whose log-loss is within one standard error of the best one's, paired row by
    row, counts alike: the mean of near-equals is steadier than the luckiest of them (Breiman et
    al., "Classification and Regression Trees", 1984, for the one-standard-error rule). Candidates
    are compared and added up at the temperature that suits each of them best, so that margins and
    scores of any size mix with logits; that factor is part of the weight. A single candidate has
    weight one; rows with NaN are left out.
    """
    known = np.isfinite(logits).all((0, 2))
    if len(logits) == 1 or not known.any():
        return np.full(len(logits), 1 / len(logits))
    slopes, losses = fit_slopes(logits[:, known], y[known])
    worse = losses - losses[losses.mean(1).argmin()]
    good = worse.mean(1) <= worse.std(1) / np.sqrt(worse.shape[1]) + 1e-12
    return np.asarray(good / good.sum() * slopes)


def fit_slopes(logits: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the factor (c,) that makes logits (c, n, K) fit best, and the log-losses (c, n) there.

    Newton's method on one number per candidate, all candidates at once. With z the centred logits
    of a row, t that of its true class and p = softmax(s z), the loss log sum exp(s z) - s t has the
    derivatives E_p[z] - t and Var_p[z]: convex, so that a clipped step suffices. A weak pull to
    zero, prior * s^2 / 2, keeps the slope of separable logits finite.
    """
    centred = logits - logits.mean(-1, keepdims=True)
    # Logits of any size start at the size of ordinary ones.
    size = np.maximum(np.sqrt((centred**2).mean((1, 2))), 1e-300)
    centred /= size[:, None, None]
    true = np.take_along_axis(centred, y[None, :, None], 2)[..., 0]
    slope = np.ones(len(logits))
    for _ in range(_STEPS):
        mean, variance = _moments(slope, centred)
        first = (mean - true).mean(1) + _PRIOR * slope
        second = variance.mean(1) + _PRIOR
        # Never so far that the second-order model means nothing, and never below zero.
        step = np.clip(first / second, -1.5, 0.7 * slope)
        before, slope = slope, np.clip(slope - step, 1e-3, _LARGEST_SLOPE)
        if (np.abs(slope - before) <= _CLOSE * before).all():
            break
    scaled = slope[:, None, None] * centred
    losses = np.logaddexp.reduce(scaled, axis=2) - slope[:, None] * true
    return slope / size, np.asarray(losses)


def _moments(slope: np.ndarray, centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance (c, n) of a row's centred logits under their own softmax."""
    if centred.shape[2] == 2:
        # Two centred logits are -a and a, and their probabilities differ by tanh(slope a), which
        # takes a quarter of the time of scipy's softmax.
        a = centred[..., 1]
        mean = a * np.tanh(slope[:, None] * a)
        return mean, a**2 - mean**2
    p = softmax(slope[:, None, None] * centred, axis=-1)
    mean = (p * centred).sum(2)
    return mean, (p * centred**2).sum(2) - mean**2
