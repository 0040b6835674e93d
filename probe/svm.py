"""Kernel support vector machines: a small grid on shared distances, predicted by numpy alone."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from archiveprobe.probe.base import Probe, standardiser

MOST_ROWS = 5_000
_CHUNK = 4_096


class SupportVectorPath(Probe):
    """Support vector machines with a Gaussian kernel on standardised columns.

    One candidate for every kernel width in `scales` (multiples of scikit-learn's gamma="scale", one
    over the number of columns) and every `Cs`; several classes one against the rest. Logits are
    the decision function; the margin has size one whatever the candidate.
    """

    name = "svm"
    _fitted: ClassVar[tuple[str, ...]] = (
        "mean_",
        "scale_",
        "gammas_",
        "support_",
        "duals_",
        "intercepts_",
    )
    mean_: np.ndarray
    scale_: np.ndarray
    gammas_: np.ndarray
    support_: np.ndarray
    duals_: np.ndarray
    intercepts_: np.ndarray

    def __init__(
        self,
        scales: Sequence[float] = (0.1, 0.25, 0.5),
        Cs: Sequence[float] = (0.5, 2.0, 8.0),  # noqa: N803
        tol: float = 1e-3,
        weights: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        self.scales = scales
        self.Cs = Cs
        self.tol = tol
        self.weights = weights
        self.seed = seed

    def candidates(self) -> list[dict[str, Any]]:
        """One per kernel width and C."""
        return [{"scale": float(s), "C": float(c)} for s in self.scales for c in self.Cs]

    def _fit_path(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:  # noqa: ARG002
        if len(x) > MOST_ROWS:
            raise ValueError(
                f"svm takes at most {MOST_ROWS} rows to learn from, not {len(x)}: use a linear "
                "probe, or average the views"
            )
        self.mean_, self.scale_ = standardiser(x)
        rows = (x - self.mean_) / self.scale_
        varying = max(1, int((rows != 0).any(0).sum()))
        self.gammas_ = np.asarray(self.scales, np.float64) / varying
        distances = squared_distances(rows, rows)
        targets = [y == label for label in range(self.n_classes_)]
        problems = targets[1:] if self.n_classes_ == 2 else targets
        duals = np.zeros((len(self.gammas_), len(x), len(self.Cs), len(problems)))
        intercepts = np.zeros((len(self.gammas_), len(self.Cs), len(problems)))
        for g, gamma in enumerate(self.gammas_):
            kernel = np.exp(-gamma * distances)
            for c, k, support, dual, intercept in self._machines(kernel, problems):
                duals[g, support, c, k] = dual
                intercepts[g, c, k] = intercept
        used = np.flatnonzero((duals != 0).any((0, 2, 3)))
        self.support_ = rows[used]
        self.duals_ = np.ascontiguousarray(duals[:, used])
        self.intercepts_ = intercepts

    def _machines(
        self, kernel: np.ndarray, problems: list[np.ndarray]
    ) -> Iterator[tuple[int, int, np.ndarray, np.ndarray, float]]:
        """For every C and problem: which rows support it, their dual coefficients, intercept."""
        from sklearn.svm import SVC

        for c, strength in enumerate(self.Cs):
            for k, target in enumerate(problems):
                machine = SVC(
                    C=strength, kernel="precomputed", tol=self.tol, random_state=self.seed
                ).fit(kernel, target)
                yield c, k, machine.support_, machine.dual_coef_[0], machine.intercept_[0]

    def _logits(self, x: np.ndarray) -> np.ndarray:
        g, _, c, k = self.duals_.shape
        margins = np.empty((g, len(x), c, k))
        for start in range(0, len(x), _CHUNK):
            part = slice(start, start + _CHUNK)
            distances = squared_distances((x[part] - self.mean_) / self.scale_, self.support_)
            for at, gamma in enumerate(self.gammas_):
                flat = np.exp(-gamma * distances) @ self.duals_[at].reshape(-1, c * k)
                margins[at, part] = flat.reshape(-1, c, k) + self.intercepts_[at]
        path = margins.swapaxes(1, 2).reshape(g * c, len(x), k)
        return np.concatenate([-path / 2, path / 2], 2) if k == 1 else path

    def _width(self) -> int:
        return int(self.support_.shape[1])


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (n, m) between the rows of a (n, d) and b (m, d)."""
    result: np.ndarray = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * (a @ b.T)
    np.maximum(result, 0.0, out=result)
    return result
