"""Linear probes with a whole path of penalties: logistic regression and ridge."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from archiveprobe.probe.base import Probe
from archiveprobe.probe.newton import Problem, solve
from archiveprobe.probe.selection import average_good, fit_slopes
from archiveprobe.probe.spectrum import Spectrum, decompose

DEFAULT_CS = tuple(float(c) for c in np.logspace(-6, -1, 21))
EXACT_TO = 0.1
_BLOCK = 8192
DEFAULT_ALPHAS = tuple(float(a) for a in np.logspace(0, 6, 49))


class LinearPath(Probe):
    """A path of models whose logits are linear: coef_ (c, d, K), intercept_ (c, K)."""

    _fitted: ClassVar[tuple[str, ...]] = ("coef_", "intercept_")
    coef_: np.ndarray
    intercept_: np.ndarray

    def _logits(self, x: np.ndarray) -> np.ndarray:
        c, d, k = self.coef_.shape
        flat = x @ self.coef_.transpose(1, 0, 2).reshape(d, c * k)
        result: np.ndarray = flat.reshape(len(x), c, k).swapaxes(0, 1) + self.intercept_[:, None]
        return result

    def _width(self) -> int:
        return int(self.coef_.shape[1])

    def _keep(self, spectrum: Spectrum, weights: np.ndarray, intercept: np.ndarray) -> None:
        """Keep weights (r, c, k) on rotated rows and intercepts (c, k) in the columns' own terms.

        One logit (k = 1) becomes two, half of it each.
        """
        r, c, k = weights.shape
        coefficients = spectrum.coefficients(weights.reshape(r, c * k)).reshape(-1, c, k)
        intercept = intercept - np.tensordot(spectrum.mean, coefficients, 1)
        if k == 1:
            coefficients = np.concatenate([-coefficients / 2, coefficients / 2], 2)
            intercept = np.concatenate([-intercept / 2, intercept / 2], 1)
        self.coef_ = np.ascontiguousarray(coefficients.swapaxes(0, 1))
        self.intercept_ = intercept


class LogisticPath(LinearPath):
    """Logistic regression on standardised columns, at every inverse penalty in `Cs`.

    The objective is scikit-learn's: C * log-loss + |w|^2 / 2, the intercept left free; softmax for
    several classes. All penalties are solved together (probe/newton.py): to 1e-6 in every
    probability up to C = 0.1; weaker penalties stop when those have converged.
    """

    name = "logistic"

    def __init__(
        self,
        Cs: Sequence[float] = DEFAULT_CS,  # noqa: N803
        weights: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        self.Cs = Cs
        self.weights = weights
        self.seed = seed

    def candidates(self) -> list[dict[str, Any]]:
        """One per inverse penalty."""
        return [{"C": float(c)} for c in self.Cs]

    def _fit_path(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:  # noqa: ARG002
        spectrum = decompose(x)
        target = np.eye(self.n_classes_)[y]
        problem = Problem(
            spectrum.with_intercept,
            target[:, 1:] if self.n_classes_ == 2 else target,
            np.append(spectrum.root**2, len(x)),
        )
        penalties = 1 / np.asarray(self.Cs, np.float64)
        # A hair below, for rounding.
        solution = solve(problem, penalties, 0.999 / EXACT_TO)
        self._keep(spectrum, solution[:-1], solution[-1])


class RidgePath(LinearPath):
    """Least squares on class indicators (-1 and 1) at every penalty in `alphas`.

    Also known as the least-squares support vector machine (Suykens and Vandewalle, 1999). One
    decomposition gives every penalty, and the exact scores of every row with its own group left
    out, which weigh the penalties and turn scores into logits.
    """

    name = "ridge"
    _fitted: ClassVar[tuple[str, ...]] = ("coef_", "intercept_")

    def __init__(
        self,
        alphas: Sequence[float] = DEFAULT_ALPHAS,
        weights: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        self.alphas = alphas
        self.weights = weights
        self.seed = seed

    def candidates(self) -> list[dict[str, Any]]:
        """One per penalty."""
        return [{"alpha": float(alpha)} for alpha in self.alphas]

    def _fit_path(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:
        spectrum = decompose(x)
        target = 2 * np.eye(self.n_classes_)[y] - 1
        centre = target.mean(0)
        projected = spectrum.u.T @ (target - centre)
        values = spectrum.root**2
        alphas = np.asarray(self.alphas, np.float64)
        shrunk = values[:, None] / (values[:, None] + alphas)
        self.left_out_ = left_out(spectrum.u, shrunk, projected, target, centre, groups)
        slopes = fit_slopes(self.left_out_, y)
        weights = projected[:, None] * (shrunk / spectrum.root[:, None])[..., None]
        self._keep(spectrum, weights * slopes[:, None], centre * slopes[:, None])

    def _weigh(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:
        self._fit_path(x, y, groups)
        return average_good(self.left_out_, y)


def _leverage(u: np.ndarray, shrunk: np.ndarray) -> np.ndarray:
    """(n, c): what every row weighs in its own prediction, block by block to save memory."""
    blocks = [u[at : at + _BLOCK] ** 2 @ shrunk for at in range(0, len(u), _BLOCK)]
    return np.concatenate(blocks)


def left_out(
    u: np.ndarray,
    shrunk: np.ndarray,
    projected: np.ndarray,
    target: np.ndarray,
    centre: np.ndarray,
    groups: np.ndarray,
) -> np.ndarray:
    """Scores (c, n, K) of every row by the ridge model that was fitted without its group.

    Exact: residuals of the rows of a group G, left out, are (I - H_GG)^-1 times those of the whole
    fit, with H the hat matrix, which contains the mean (Cook and Weisberg, "Residuals and Influence
    in Regression", 1982). Columns stay standardised by all rows.
    """
    n = len(u)
    fitted = np.einsum("nr,rc,rk->cnk", u, shrunk, projected, optimize=True) + centre
    hat = _leverage(u, shrunk).T + 1 / n
    residual = target - fitted
    result = target - residual / np.maximum(1 - hat, 1e-12)[..., None]
    _, member, size = np.unique(groups, return_inverse=True, return_counts=True)
    for group in np.flatnonzero(size > 1):
        rows = np.flatnonzero(member == group)
        part = u[rows]
        block = np.einsum("ar,rc,br->cab", part, shrunk, part, optimize=True) + 1 / n
        kept = np.eye(len(rows)) - block + 1e-12 * np.eye(len(rows))
        result[:, rows] = target[rows] - np.linalg.solve(kept, residual[:, rows])
    return np.asarray(result)
