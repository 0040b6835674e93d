"""From logits to probabilities: Platt scaling for two classes, one temperature for several.

What is applied to the rows of a fold is fitted on that repeat's rows outside it.

Both are the same small problem. With scores z_ik = x_ik' theta of row i and class k and targets
t_ik that sum to one, minimise the log-loss

    L(theta) = sum_i [log sum_k exp(z_ik) - sum_k t_ik z_ik].

- Platt scaling: z_i1 = slope * margin_i + intercept and z_i0 = 0, so x_i1 = (margin_i, 1).
- Temperature: z_ik = theta * logit_ik, so x_ik = logit_ik, and theta is the inverse temperature.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, softmax

PLATT, TEMPERATURE = "platt", "temperature"
_IDENTITY = {PLATT: (1.0, 0.0), TEMPERATURE: (1.0,)}
_STEPS = 50
_HALVINGS = 30
_SMALL_STEP = 1e-7
_ROUNDING = 1e-10
_FLATTEST = 1e-3
_DIGITS = 12


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
        if self.method not in _IDENTITY:
            raise ValueError(f"no calibration {self.method!r}: one of {', '.join(_IDENTITY)}")
        expected = len(_IDENTITY[self.method])
        if len(self.parameters) != expected or not np.isfinite(self.parameters).all():
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
        return _apply(logits, np.expand_dims(own, tuple(range(2, logits.ndim - 1))))

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
        # Rounded, so that logits that were equal before are equal again.
        margin = np.round(margin, _DIGITS)
        return np.concatenate([0 * margin, margin], -1)


def fit(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """Fit on out-of-fold logits (R, n, K) of all repeats; rows with NaN are left out."""
    repeats, n, k = logits.shape
    rows, everything = logits.reshape(repeats * n, k), np.ones(repeats * n, bool)
    parameters = _fit(rows, np.tile(labels, repeats), everything, repeats)
    return Calibration(_method(k), tuple(parameters.tolist()))


def cross_fitted(logits: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> CrossFitted:
    """Fit on logits (R, n, K), for every fold on its repeat's rows outside it; fold is (R, n)."""
    folds = range(int(fold.max()) + 1)
    parameters = [
        [_fit(rows, labels, fold_of != held) for held in folds]
        for rows, fold_of in zip(logits, fold, strict=True)
    ]
    return CrossFitted(np.array(parameters))


def plain(classes: int) -> Calibration:
    """Return the calibration that changes nothing: probabilities are the softmax of the logits."""
    method = _method(classes)
    return Calibration(method, _IDENTITY[method])


def _method(classes: int) -> str:
    return PLATT if classes == 2 else TEMPERATURE


def _apply(logits: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """Compute probabilities of logits (..., K) by parameters (..., P)."""
    logits = np.where(np.isfinite(logits).all(-1, keepdims=True), logits, np.nan)
    if logits.shape[-1] == 2:
        z = parameters[..., 0] * (logits[..., 1] - logits[..., 0]) + parameters[..., 1]
        return np.stack([expit(-z), expit(z)], -1)
    result: np.ndarray = softmax(parameters * logits, -1)
    return result


def _fit(logits: np.ndarray, labels: np.ndarray, used: np.ndarray, copies: int = 1) -> np.ndarray:
    """Fit parameters (P,) on those rows of logits (n, K) that are used (n,) and have no NaN.

    A row counts once, though there are `copies` of it: one from every repeat.
    """
    k = logits.shape[1]
    finite = np.isfinite(logits).all(1)
    rows, y, used = logits[finite].astype(np.float64), labels[finite], used[finite]
    if not used.any():
        return np.array(_IDENTITY[_method(k)])
    if k == 2:
        return _fit_platt((rows[:, 1] - rows[:, 0])[used], y[used] == 1, copies)
    # The softmax does not see a row's mean. One scale for all folds of a repeat keeps numbers near
    # one; where rows are constant but for rounding there is nothing to scale.
    centred = rows - rows.mean(1, keepdims=True)
    scale = float(np.sqrt((centred**2).mean()))
    if scale <= 1e-12 * np.abs(rows).max():
        scale = 1.0
    return _fit_temperature(centred[used] / scale, y[used], copies) / scale


def _fit_platt(margin: np.ndarray, is_second: np.ndarray, copies: int) -> np.ndarray:
    """Fit slope and intercept on margins (n,), the second class's logit less the first's.

    The targets are those of Platt, "Probabilistic outputs for support vector machines" (1999):
    (N+ + 1) / (N+ + 2) and 1 / (N- + 2) instead of 1 and 0, so that classes which the margin
    separates still have a finite optimum.
    """
    seconds = is_second.sum() / copies
    others = len(margin) / copies - seconds
    target = np.where(is_second, (seconds + 1) / (seconds + 2), 1 / (others + 2))
    centre, scale = margin.mean(), margin.std()
    if scale <= 1e-12 * max(1, abs(centre)):
        scale = np.inf
    x = np.zeros((2, len(margin), 2))
    x[1, :, 0], x[1, :, 1] = (margin - centre) / scale, 1
    flat = np.array([0, logit(target.mean())])
    slope, intercept = _newton(x, np.stack([1 - target, target]), flat)
    # The loss is convex: where its optimum has a negative slope, the best other one is flat. But
    # never quite, as a temperature: the order of the rows must survive.
    if slope <= 0:
        slope, intercept = _FLATTEST, flat[1]
    return np.array([slope / scale, intercept - slope / scale * centre])


def _fit_temperature(logits: np.ndarray, labels: np.ndarray, copies: int) -> np.ndarray:
    """Fit the inverse temperature (1,) on logits (n, K).

    Guo et al., "On Calibration of Modern Neural Networks" (2017), with one row's worth of the
    targets spread over all classes, so that faultless logits still have a finite optimum.
    """
    n, k = logits.shape
    spread = 1 / (n / copies + k)
    target = spread + (1 - k * spread) * np.eye(k)[:, labels]
    # Never zero: the order of a row's classes must survive.
    return np.asarray(np.maximum(_newton(logits.T[:, :, None], target, np.zeros(1)), 1e-3))


def _newton(x: np.ndarray, target: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Minimise the log-loss L of the module's head over theta (P,); x (K, n, P), target (K, n).

    With p_i = softmax(z_i) the gradient is sum_ik (p_ik - t_ik) x_ik. The Hessian is the sum over
    rows of the covariance of x_ik under p_i: sum_k p_ik x_ik x_ik' - m_i m_i', m_i the mean. It is
    positive semi-definite, so Newton's step goes down, and is halved while it overshoots, as Lin,
    Lin and Weng, "A note on Platt's probabilistic outputs" (2007), do. Least squares take the place
    of the inverse, which does not exist where no parameter matters.

    Some six steps are enough; scipy.optimize.minimize (BFGS) takes over twice the time.
    """
    # Classes come first, and (class, row) is one axis: numpy is slow along short last axes.
    pairs = x.reshape(-1, len(start))

    def evaluate(theta: np.ndarray) -> tuple[float, np.ndarray]:
        # Less the largest, which the softmax does not see, nothing overflows.
        z = (pairs @ theta).reshape(target.shape)
        z -= z.max(0)
        p = np.exp(z)
        total = p.sum(0)
        return float(np.log(total).sum() - (target * z).sum()), p / total

    theta = start
    loss, p = evaluate(theta)
    for _ in range(_STEPS):
        weighted = p.reshape(-1, 1) * pairs
        mean = weighted.reshape(x.shape).sum(0)
        gradient = pairs.T @ (p - target).ravel()
        step = -np.linalg.lstsq(pairs.T @ weighted - mean.T @ mean, gradient)[0]
        for _ in range(_HALVINGS):
            moved, p = evaluate(theta + step)
            if moved <= loss + _ROUNDING * abs(loss):
                break
            step = step / 2
        theta, loss = theta + step, moved
        # Newton's steps get smaller by their square: the next one would be nothing.
        if (np.abs(step) <= _SMALL_STEP * (1 + np.abs(theta))).all():
            break
    return theta
