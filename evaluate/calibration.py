"""From logits to probabilities: Platt scaling for two classes, one temperature for several.

What is applied to the rows of a fold is fitted on that repeat's rows outside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, log_expit, logit, logsumexp, softmax

PLATT, TEMPERATURE = "platt", "temperature"
_COUNTS = {PLATT: 2, TEMPERATURE: 1}
_STEPS = 50
_HALVINGS = 30
_CLOSE = 1e-10


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration.

    "platt" has a slope and an intercept for the second class's logit less the first's;
    "temperature" has the inverse temperature that multiplies all logits.

    Raises:
        ValueError: an unknown method, or parameters that are not its finite numbers.
    """

    method: str
    parameters: Sequence[float]

    def __post_init__(self) -> None:
        if self.method not in _COUNTS:
            raise ValueError(f"no calibration {self.method!r}: one of {', '.join(_COUNTS)}")
        if len(self.parameters) != _COUNTS[self.method] or not np.isfinite(self.parameters).all():
            raise ValueError(f"{list(self.parameters)} are no parameters of {self.method}")

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Compute probabilities (..., K) of logits (..., K); NaN where a row has NaN."""
        return _apply(logits, np.array(self.parameters, np.float64))


@dataclass(frozen=True)
class CrossFitted:
    """Parameters (R, folds, P): those of a fold were fitted on its repeat's other rows."""

    parameters: np.ndarray

    def apply(self, logits: np.ndarray, fold: np.ndarray) -> np.ndarray:
        """Compute probabilities of logits (R, n, K) or (R, n, V, K) of rows in folds (R, n)."""
        own = np.take_along_axis(self.parameters, fold[..., None], 1)
        between = tuple(range(2, logits.ndim - 1))
        return _apply(logits, np.expand_dims(own, between))

    def of_every_fold(self, logits: np.ndarray) -> np.ndarray:
        """Compute probabilities (R, folds, n, K) of rows (R, n, K) by every fold's calibration."""
        return _apply(logits[:, None], self.parameters[:, :, None])

    def undo(self, proba: np.ndarray, fold: np.ndarray) -> np.ndarray:
        """Recover logits (R, n, K), up to a constant per row, from what `apply` made of them."""
        own = np.take_along_axis(self.parameters, fold[..., None], 1)
        logs = np.log(np.maximum(proba, np.finfo(float).tiny))
        scale = np.where(own[..., :1] > 0, own[..., :1], np.inf)
        if proba.shape[-1] > 2:
            return np.asarray(logs / scale)
        margin = (logs[..., 1:] - logs[..., :1] - own[..., 1:]) / scale
        return np.concatenate([0 * margin, margin], -1)


def fit(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """Fit on out-of-fold logits (R, n, K) of all repeats; rows with NaN are left out."""
    repeats, n, k = logits.shape
    rows = logits.reshape(1, repeats * n, k)
    used = np.ones((1, repeats * n))
    # A row counts once, however many repeats have a logit of it.
    parameters = _fit(rows[0], np.tile(labels, repeats), used / max(1, repeats))[0]
    return Calibration(_method(k), tuple(parameters.tolist()))


def cross_fitted(logits: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> CrossFitted:
    """Fit on logits (R, n, K), for every fold on its repeat's rows outside it; fold is (R, n)."""
    folds = np.arange(int(fold.max()) + 1)
    outside = (fold[:, None] != folds[:, None]).astype(np.float64)
    return CrossFitted(
        np.stack([_fit(own, labels, used) for own, used in zip(logits, outside, strict=True)])
    )


def plain(classes: int) -> Calibration:
    """Return the calibration that changes nothing: probabilities are the softmax of the logits."""
    return Calibration(_method(classes), (1.0, 0.0) if classes == 2 else (1.0,))


def _method(classes: int) -> str:
    return PLATT if classes == 2 else TEMPERATURE


def _apply(logits: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Compute probabilities of logits (..., K) by parameters (..., P)."""
    logits = np.where(np.isfinite(logits).all(-1, keepdims=True), logits, np.nan)
    if logits.shape[-1] == 2:
        moved = parameters[..., 0] * (logits[..., 1] - logits[..., 0]) + parameters[..., 1]
        return np.stack([expit(-moved), expit(moved)], -1)
    result: np.ndarray = softmax(parameters * logits, -1)
    return result


def _fit(logits: np.ndarray, labels: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Fit parameters (J, P) on rows (n, K), one fit for every line of weights (J, n)."""
    known = np.isfinite(logits).all(1)
    rows, weights = np.asarray(logits[known], np.float64), used[:, known]
    if not len(rows):
        identity = [1.0, 0.0] if logits.shape[1] == 2 else [1.0]
        return np.tile(identity, (len(used), 1))
    if logits.shape[1] == 2:
        return _platt(rows[:, 1] - rows[:, 0], labels[known] == 1, weights)
    return _temperature(rows, labels[known], weights)


def _platt(margin: np.ndarray, is_second: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fit slopes and intercepts (J, 2) on margins (n,).

    The targets are Platt's, "Probabilistic outputs for support vector machines" (1999), so that
    classes which the margin separates still have an optimum. Newton with halved steps, after Lin,
    Lin and Weng, "A note on Platt's probabilistic outputs" (2007).
    """
    total = np.maximum(weights.sum(1), np.finfo(float).tiny)
    seconds = weights @ is_second
    high, low = (seconds + 1) / (seconds + 2), 1 / (total - seconds + 2)
    targets = np.where(is_second, high[:, None], low[:, None])
    centre = weights @ margin / total
    scale = np.sqrt((weights * (margin - centre[:, None]) ** 2).sum(1) / total)
    scale[scale <= 1e-12 * np.maximum(1, np.abs(centre))] = np.inf
    x = (margin - centre[:, None]) / scale[:, None]

    def loss(at: np.ndarray) -> np.ndarray:
        z = at[:, :1] * x + at[:, 1:]
        return np.asarray(-(weights * (targets * z + log_expit(-z))).sum(1))

    def step(at: np.ndarray) -> np.ndarray:
        p = expit(at[:, :1] * x + at[:, 1:])
        pull, curve = weights * (targets - p), weights * p * (1 - p)
        bent = curve * x
        return _solved((pull * x).sum(1), pull.sum(1), (bent * x).sum(1), bent.sum(1), curve.sum(1))

    used = np.asarray(weights.any(1))
    mean = logit((weights * targets).sum(1) / total, where=used, out=np.zeros(len(total)))
    flat = np.stack([np.zeros_like(mean), mean], 1)
    solution = _newton(flat.copy(), loss, step)
    # The loss is convex: where its optimum has a negative slope, the best other one is flat.
    solution = np.where(solution[:, :1] > 0, solution, flat)
    slope = solution[:, 0] / scale
    parameters = np.stack([slope, solution[:, 1] - slope * centre], 1)
    return np.where(used[:, None], parameters, [1.0, 0.0])


def _solved(
    first: np.ndarray, second: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray
) -> np.ndarray:
    """Solve the symmetric systems [[a, b], [b, c]], kept apart from singular: (J, 2)."""
    a, c = a + 1e-12, c + 1e-12
    determinant = np.maximum(a * c - b * b, 1e-12 * a * c)
    solved = np.stack([(c * first - b * second), (a * second - b * first)], 1)
    return np.asarray(solved / determinant[:, None])


def _temperature(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Inverse temperatures (J, 1) on logits (n, K).

    Guo et al., "On Calibration of Modern Neural Networks" (2017), with one row's worth of the
    targets spread over all classes, so that faultless logits still have an optimum.
    """
    n, k = logits.shape
    centred = logits - logits.mean(1, keepdims=True)
    scale = np.sqrt((centred**2).mean()) or 1.0
    x = centred / scale
    total = weights.sum(1)
    spread = 1 / (total + k)
    own = x[np.arange(n), labels]
    # The rows of x sum to zero, so the spread part of the targets has no share in this product.
    target = (1 - k * spread)[:, None] * own

    def loss(at: np.ndarray) -> np.ndarray:
        lost = logsumexp(at[:, :, None] * x, axis=2) - at * target
        return np.asarray((weights * lost).sum(1))

    def step(at: np.ndarray) -> np.ndarray:
        p = softmax(at[:, :, None] * x, 2)
        mean = (p * x).sum(2)
        curve = (weights * ((p * x**2).sum(2) - mean**2)).sum(1)
        pull = (weights * (target - mean)).sum(1)
        return np.asarray(pull / np.maximum(curve, 1e-12))[:, None]

    solution = _newton(np.zeros((len(weights), 1)), loss, step)
    # Never zero: the order of a row's classes must survive.
    solution = np.maximum(solution, 1e-3) / scale
    return np.where(total[:, None] > 0, solution, 1.0)


def _newton(
    at: np.ndarray,
    loss: Callable[[np.ndarray], np.ndarray],
    step: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Minimise convex losses (J,) over parameters (J, P), all at once, by halved Newton steps."""
    value = loss(at)
    for _ in range(_STEPS):
        move = step(at)
        for _ in range(_HALVINGS):
            moved = loss(at + move)
            worse = moved > value + _CLOSE * np.abs(value)
            if not worse.any():
                break
            move[worse] /= 2
        move[worse] = 0
        at, before, value = at + move, value, np.where(worse, value, moved)
        if (np.abs(move) <= _CLOSE * (1 + np.abs(at))).all() or np.array_equal(before, value):
            break
    return at
