"""Linear discriminant analysis at every shrinkage, from one decomposition."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from archiveprobe.probe.linear import LinearPath
from archiveprobe.probe.spectrum import Spectrum, decompose

LEDOIT_WOLF = "ledoit-wolf"
# Of the whole variance: without any within classes (copies of one row each) nothing is solvable.
_LEAST = 1e-6
DEFAULT_SHRINKAGES = (0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, LEDOIT_WOLF)


class DiscriminantPath(LinearPath):
    """Linear discriminant on standardised columns, at every shrinkage in `shrinkages`.

    The covariance within classes is S (1 - s) + s tr(S) / d I, as in scikit-learn's
    LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s); "ledoit-wolf" stands for the amount of
    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004.
    """

    name = "lda"
    _fitted: ClassVar[tuple[str, ...]] = ("coef_", "intercept_", "amounts_")
    amounts_: np.ndarray

    def __init__(
        self,
        shrinkages: Sequence[float | str] = DEFAULT_SHRINKAGES,
        weights: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        self.shrinkages = shrinkages
        self.weights = weights
        self.seed = seed

    def candidates(self) -> list[dict[str, Any]]:
        """One per shrinkage."""
        return [{"shrinkage": amount} for amount in self.shrinkages]

    def _fit_path(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:  # noqa: ARG002
        spectrum = decompose(x)
        share = np.bincount(y, minlength=self.n_classes_) / len(y)
        rotated = spectrum.rotated
        means = _class_means(rotated, y, self.n_classes_)
        within = rotated - means[y]
        total = (within**2).sum() / len(y)
        self.amounts_ = np.array([_amount(s, within, x.shape[1]) for s in self.shrinkages])
        whole = (spectrum.root**2).sum() / len(y)
        floor = np.maximum(self.amounts_ * total, _LEAST * whole) / x.shape[1]
        weights = np.stack(
            [
                _solve(spectrum, means, share, amount, least)
                for amount, least in zip(self.amounts_, floor, strict=True)
            ],
            1,
        )
        intercept = np.log(share) - 0.5 * np.einsum("rck,kr->ck", weights, means)
        self._keep(spectrum, weights, intercept)


def _class_means(rows: np.ndarray, y: np.ndarray, classes: int) -> np.ndarray:
    """(K, r)."""
    return np.stack([rows[y == label].mean(0) for label in range(classes)])


def _solve(
    spectrum: Spectrum, means: np.ndarray, share: np.ndarray, amount: float, floor: float
) -> np.ndarray:
    """The inverse of the shrunk covariance within classes times the means (K, r), as (r, K).

    The covariance within is the whole one, diagonal here, less that of the class means, which has
    as many dimensions as there are classes: the Woodbury identity (Golub and Van Loan, "Matrix
    Computations", 2013, 2.1.4) saves a second decomposition.
    """
    diagonal = (1 - amount) * spectrum.root**2 / len(spectrum.u) + floor
    solved: np.ndarray = (means / diagonal).T
    between = np.eye(len(means)) - (1 - amount) * share[:, None] * (means @ solved)
    return np.asarray(solved @ np.linalg.inv(between))


def _amount(shrinkage: float | str, within: np.ndarray, width: int) -> float:
    """The shrinkage as a number; Ledoit and Wolf's from rows (n, r) that vary in `width` columns.

    Raises:
        ValueError: it is neither above 0 and at most 1, nor "ledoit-wolf".
    """
    if shrinkage == LEDOIT_WOLF:
        return _ledoit_wolf(within, width)
    if isinstance(shrinkage, str) or not 0 < shrinkage <= 1:
        raise ValueError(f"a shrinkage is above 0 and at most 1, or {LEDOIT_WOLF!r}: {shrinkage!r}")
    return float(shrinkage)


def _ledoit_wolf(within: np.ndarray, width: int) -> float:
    n = len(within)
    squared = (within**2).sum(1)
    # Rows and columns have the same Gram matrix up to zeros: the smaller one is enough.
    short = within @ within.T if n <= within.shape[1] else within.T @ within
    size = (short**2).sum() / n**2
    spread = (size - (squared.sum() / n) ** 2 / width) / width
    noise = ((squared**2).sum() / n - size) / (width * n)
    return 1.0 if spread <= 0 else float(np.clip(noise / spread, 1e-3, 1.0))
