"""Kernel support vector machines: scikit-learn's SVC on a small grid of shared distances."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.svm import SVC

from archiveprobe.base.errors import InputError
from archiveprobe.probe.base import Probe, both_logits, standardiser

MOST_ROWS = 5_000
_CHUNK = 4_096


@dataclass(kw_only=True, eq=False, repr=False)
class SVM(Probe):
    """Support vector machines with a Gaussian kernel on standardised columns.

    One candidate for every kernel width in `scales` (multiples of scikit-learn's gamma="scale", one
    over the number of columns) and every `Cs`; several classes one against the rest. Logits are
    the decision function. Distances are computed once for all candidates, and the fitted machine
    is kept as arrays: f(x) = sum_i duals_i exp(-gamma |x - support_i|^2) + intercept.
    """

    name: ClassVar[str] = "svm"
    fitted: ClassVar[tuple[str, ...]] = (
        "mean_",
        "scale_",
        "gammas_",
        "support_",
        "duals_",
        "intercepts_",
    )
    scales: Sequence[float] = (0.1, 0.25, 0.5)
    Cs: Sequence[float] = (0.5, 2.0, 8.0)
    tol: float = 1e-3

    def candidates(self) -> list[dict[str, Any]]:
        """Return one per kernel width and C."""
        return [{"scale": float(s), "C": float(c)} for s in self.scales for c in self.Cs]

    def _fit_path(self, x: np.ndarray, y: np.ndarray) -> None:
        if len(x) > MOST_ROWS:
            raise InputError(
                f"svm takes at most {MOST_ROWS} rows to learn from, got {len(x)}: use a linear "
                "probe, or average the views"
            )
        self.mean_, self.scale_ = standardiser(x)
        rows = (x - self.mean_) / self.scale_
        varying = max(1, int((rows != 0).any(0).sum()))
        self.gammas_ = np.asarray(self.scales, np.float64) / varying
        distances = euclidean_distances(rows, squared=True)
        targets = [y == label for label in range(self.n_classes_)]
        problems = targets[1:] if self.n_classes_ == 2 else targets
        duals = np.zeros((len(self.gammas_), len(x), len(self.Cs), len(problems)))
        self.intercepts_ = np.zeros((len(self.gammas_), len(self.Cs), len(problems)))
        for g, gamma in enumerate(self.gammas_):
            kernel = np.exp(-gamma * distances)
            for c, strength in enumerate(self.Cs):
                for k, target in enumerate(problems):
                    machine = SVC(
                        C=strength, kernel="precomputed", tol=self.tol, random_state=self.seed
                    ).fit(kernel, target)
                    duals[g, machine.support_, c, k] = machine.dual_coef_[0]
                    self.intercepts_[g, c, k] = machine.intercept_[0]
        used = (duals != 0).any((0, 2, 3))
        self.support_ = rows[used]
        self.duals_ = np.ascontiguousarray(duals[:, used])

    def _path_logits(self, x: np.ndarray) -> np.ndarray:
        g, _, c, k = self.duals_.shape
        margins = np.empty((g, len(x), c, k))
        for start in range(0, len(x), _CHUNK):
            part = slice(start, start + _CHUNK)
            rows = (x[part] - self.mean_) / self.scale_
            distances = euclidean_distances(rows, self.support_, squared=True)
            for at, gamma in enumerate(self.gammas_):
                flat = np.exp(-gamma * distances) @ self.duals_[at].reshape(-1, c * k)
                margins[at, part] = flat.reshape(-1, c, k) + self.intercepts_[at]
        return both_logits(margins.swapaxes(1, 2).reshape(g * c, len(x), k))
