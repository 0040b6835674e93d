"""Linear probes with a whole path of penalties: logistic regression and ridge."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.linear_model import LogisticRegression

from archiveprobe.probe.base import Probe, both_logits
from archiveprobe.probe.spectrum import Spectrum, decompose

DEFAULT_CS = tuple(float(c) for c in np.logspace(-6, -1, 11))
DEFAULT_ALPHAS = tuple(float(alpha) for alpha in np.logspace(0, 6, 25))


@dataclass(kw_only=True, eq=False, repr=False)
class Linear(Probe):
    """A path of models whose logits are linear: coef_ (c, d, K), intercept_ (c, K)."""

    fitted: ClassVar[tuple[str, ...]] = ("coef_", "intercept_")

    def _path_logits(self, x: np.ndarray) -> np.ndarray:
        c, d, k = self.coef_.shape
        flat = x @ self.coef_.transpose(1, 0, 2).reshape(d, c * k)
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
    """scikit-learn's LogisticRegression on standardised columns, at every inverse penalty in `Cs`.

    From the strongest penalty to the weakest, each fit starts where the last one ended
    (`warm_start`): neighbours on the path differ little, so that most take a few steps. The rows
    are rotated first (probe/spectrum.py), which leaves the models as they are and costs less where
    there are fewer rows than columns.
    """

    name: ClassVar[str] = "logistic"
    Cs: Sequence[float] = DEFAULT_CS
    tol: float = 1e-4

    def candidates(self) -> list[dict[str, Any]]:
        """Return one per inverse penalty."""
        return [{"C": float(c)} for c in self.Cs]

    def _fit_path(self, x: np.ndarray, y: np.ndarray) -> None:
        spectrum = decompose(x)
        # In double precision: single precision ends the strongest penalties before their intercept
        # is found, because a step lowers the loss by less than it can tell.
        rotated = spectrum.rotated
        columns = 1 if self.n_classes_ == 2 else self.n_classes_
        weights = np.zeros((rotated.shape[1], len(self.Cs), columns))
        intercept = np.zeros((len(self.Cs), columns))
        model = LogisticRegression(tol=self.tol, max_iter=10_000, warm_start=True)
        # Rows that are all equal leave no column to learn from.
        for at in np.argsort(self.Cs) if rotated.shape[1] else ():
            model.set_params(C=self.Cs[at]).fit(rotated, y)
            weights[:, at], intercept[at] = model.coef_.T, model.intercept_
        self._keep(spectrum, weights, intercept)


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
        projected = spectrum.u.T @ (target - centre)
        shrunk = spectrum.root[:, None] / (spectrum.root[:, None] ** 2 + np.asarray(self.alphas))
        weights = shrunk[..., None] * projected[:, None]
        self._keep(spectrum, weights, np.tile(centre, (len(self.alphas), 1)))
