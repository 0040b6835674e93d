"""Linear probes with a whole path of penalties: logistic regression and ridge."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_softmax

from archiveprobe.base.blocks import blocks_of, product
from archiveprobe.probe.base import Probe, both_logits
from archiveprobe.probe.spectrum import Spectrum, decompose

DEFAULT_CS = tuple(float(c) for c in np.logspace(-6, -1, 11))
# What a step may lower the loss by is rounding then.
_NO_CHANGE = 1e-14
_STEPS = 1000
DEFAULT_ALPHAS = tuple(float(alpha) for alpha in np.logspace(0, 6, 25))


@dataclass(kw_only=True, eq=False, repr=False)
class Linear(Probe):
    """A path of models whose logits are linear: coef_ (c, d, K), intercept_ (c, K)."""

    fitted: ClassVar[tuple[str, ...]] = ("coef_", "intercept_")

    def _path_logits(self, x: np.ndarray) -> np.ndarray:
        c, d, k = self.coef_.shape
        flat = product(x, self.coef_.transpose(1, 0, 2).reshape(d, c * k))
        return np.asarray(flat.reshape(len(x), c, k).swapaxes(0, 1) + self.intercept_[:, None])

    def _keep(self, spectrum: Spectrum, weights: np.ndarray, intercept: np.ndarray) -> None:
        """Keep weights (r, c, k) on rotated rows and intercepts (c, k) in the columns' own terms.

        A logit (x - mean) w + b is x w + (b - mean w).
        """
        r, c, k = weights.shape
        coefficients = spectrum.coefficients(weights.reshape(r, c * k)).reshape(-1, c, k)
        intercept = intercept - np.tensordot(spectrum.mean, coefficients, 1)
        self.coef_ = np.ascontiguousarray(both_logits(coefficients).swapaxes(0, 1))
        self.intercept_ = both_logits(intercept)


@dataclass(kw_only=True, eq=False, repr=False)
class Logistic(Linear):
    """Logistic regression on standardised columns, at every inverse penalty in `Cs`.

    The models are those of scikit-learn's LogisticRegression, whose solver takes ten times as many
    steps, each of them over rotated rows that it must be given. From the strongest penalty to the
    weakest, each fit starts where the last one ended; `tol` ends it, as a share of the gradient
    that no weights at all have.
    """

    name: ClassVar[str] = "logistic"
    Cs: Sequence[float] = DEFAULT_CS
    tol: float = 1e-4

    def candidates(self) -> list[dict[str, Any]]:
        """Return one per inverse penalty."""
        return [{"C": float(c)} for c in self.Cs]

    def _fit_path(self, x: np.ndarray, y: np.ndarray) -> None:
        spectrum = decompose(x)
        columns = 1 if self.n_classes_ == 2 else self.n_classes_
        fit = np.zeros((1 + len(spectrum.root), columns))
        path = np.zeros((len(self.Cs), *fit.shape))
        problem = _Problem(spectrum, y, self.n_classes_)
        # Rows that are all equal leave no column to learn from.
        for at in np.argsort(self.Cs) if len(spectrum.root) else ():
            path[at] = fit = problem.fit(self.Cs[at], fit, self.tol)
        self._keep(spectrum, path[:, 1:].swapaxes(0, 1), path[:, 0])


class _Problem:
    """The log-loss of rows by the weights on them: theta (1 + r, k), the intercepts first.

    With B the weights, Z the rows, m = Z V B + b their margins and y the classes, minimise

        f = sum_i loss(m_i, y_i) / n + |B|^2 / (2 C n).

    For two classes k is 1 and m the second one's logit less the first's, else k is K.

    Newton's matrix is V'Z' diag(p (1 - p)) Z V / n + 1 / (C n), p the probabilities. Were p (1 - p)
    the same for all rows, w, it would be the diagonal H = w diag(s^2) / n + 1 / (C n), because
    V'Z'Z V = diag(s^2). It is nearly so, and scaled by the root of H all directions are about
    equally steep: L-BFGS then takes some ten steps instead of hundreds.
    """

    def __init__(self, spectrum: Spectrum, y: np.ndarray, classes: int) -> None:
        self._spectrum = spectrum
        # Where there are fewer rows than columns, they are smaller after rotating them.
        self._rows = spectrum.rows if spectrum.u is None else spectrum.u * spectrum.root
        self._target = np.eye(classes)[y][:, (1 if classes == 2 else 0) :]
        self._n = len(y)

    def fit(self, strength: float, start: np.ndarray, tol: float) -> np.ndarray:
        """Return theta (1 + r, k) of an inverse penalty, from that of a stronger penalty."""
        penalty = 1 / (strength * self._n)
        spread = self._target.mean(0) * (1 - self._target.mean(0))
        steep = spread * self._spectrum.root[:, None] ** 2 / self._n + penalty
        scale = 1 / np.sqrt(np.concatenate([spread[None], steep]))

        def scaled(values: np.ndarray) -> tuple[float, np.ndarray]:
            loss, gradient = self._loss(values.reshape(scale.shape) * scale, penalty)
            return loss, (gradient * scale).ravel()

        # Where no weight is, the intercept is known: the logit of the classes' shares.
        share = self._target.mean(0)
        none = np.zeros_like(start)
        none[0] = np.log(share) - (np.log1p(-share) if len(share) == 1 else 0)
        first = none if not start.any() else start
        limit = tol * np.abs(scaled((none / scale).ravel())[1]).max()
        found = minimize(
            scaled,
            (first / scale).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"gtol": limit, "ftol": _NO_CHANGE, "maxiter": _STEPS, "maxcor": 20},
        )
        return np.asarray(found.x.reshape(scale.shape) * scale)

    def _loss(self, theta: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        """Return f and its gradient (1 + r, k)."""
        rows, v = self._rows, self._spectrum.v
        weights = theta[1:] if v is None else v @ theta[1:]
        narrow = weights.astype(rows.dtype, copy=False)
        total, slope = 0.0, np.zeros_like(weights)
        offset = np.zeros(theta.shape[1])
        for part in blocks_of(rows):
            loss, residual = _log_loss(rows[part] @ narrow + theta[0], self._target[part])
            total += loss
            offset += residual.sum(0)
            slope += rows[part].T @ residual.astype(rows.dtype, copy=False)
        gradient = np.concatenate([offset[None], slope if v is None else v.T @ slope]) / self._n
        gradient[1:] += penalty * theta[1:]
        return total / self._n + penalty * (theta[1:] ** 2).sum() / 2, gradient


def _log_loss(margins: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the log-loss of margins (n, k) and its slopes (n, k); see `_Problem`."""
    if margins.shape[1] == 1:
        loss = np.logaddexp(0, margins).sum() - (target * margins).sum()
        return float(loss), expit(margins) - target
    logs = log_softmax(margins, 1)
    return float(-(target * logs).sum()), np.exp(logs) - target


@dataclass(kw_only=True, eq=False, repr=False)
class Ridge(Linear):
    """Least squares on class indicators (-1 and 1) at every penalty in `alphas`.

    Also known as the least-squares support vector machine (Suykens and Vandewalle, 1999), and as
    scikit-learn's RidgeClassifier, which solves every penalty again: 25 of them take about five
    times as long as one decomposition.
    """

    name: ClassVar[str] = "ridge"
    alphas: Sequence[float] = DEFAULT_ALPHAS

    def candidates(self) -> list[dict[str, Any]]:
        """Return one per penalty."""
        return [{"alpha": float(alpha)} for alpha in self.alphas]

    def _fit_path(self, x: np.ndarray, y: np.ndarray) -> None:
        spectrum = decompose(x)
        target = 2 * np.eye(self.n_classes_)[y] - 1
        # Columns of Z have mean zero, so the free intercept is the mean of the target.
        centre = target.mean(0)
        projected = spectrum.project(target - centre)
        shrunk = 1 / (spectrum.root[:, None] ** 2 + np.asarray(self.alphas))
        weights = shrunk[..., None] * projected[:, None]
        self._keep(spectrum, weights, np.tile(centre, (len(self.alphas), 1)))
