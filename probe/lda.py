"""Linear discriminant analysis at every shrinkage, from one decomposition."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from archiveprobe.probe.linear import Linear
from archiveprobe.probe.spectrum import Spectrum, decompose

LEDOIT_WOLF = "ledoit-wolf"
# Of the whole variance: without any within classes (copies of one row each) nothing is solvable.
_LEAST = 1e-6
DEFAULT_SHRINKAGES = (0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, LEDOIT_WOLF)


@dataclass(kw_only=True, eq=False, repr=False)
class LDA(Linear):
    """Linear discriminant on standardised columns, at every shrinkage in `shrinkages`.

    The covariance within classes is (1 - s) S + s tr(S) / d I, as in scikit-learn's
    LinearDiscriminantAnalysis(solver="lsqr", shrinkage=s), which solves a d x d system for every
    s; "ledoit-wolf" stands for the amount of Ledoit and Wolf, "A well-conditioned estimator for
    large-dimensional covariance matrices", 2004.
    """

    name: ClassVar[str] = "lda"
    shrinkages: Sequence[float | str] = DEFAULT_SHRINKAGES

    def candidates(self) -> list[dict[str, Any]]:
        """Return one per shrinkage."""
        return [{"shrinkage": amount} for amount in self.shrinkages]

    def _fit_path(self, x: np.ndarray, y: np.ndarray) -> None:
        spectrum = decompose(x)
        rotated = spectrum.rotated
        share = np.bincount(y) / len(y)
        means = np.stack([rotated[y == label].mean(0) for label in range(self.n_classes_)])
        within = rotated - means[y]
        amounts = np.array([_amount(s, within, x.shape[1]) for s in self.shrinkages])
        # Traces of the covariances, within classes and of all rows.
        trace, whole = (within**2).sum() / len(y), (spectrum.root**2).sum() / len(y)
        ridges = np.maximum(amounts * trace, _LEAST * whole) / x.shape[1]
        weights = np.stack(
            [
                _solve(spectrum, means, share, amount, ridge)
                for amount, ridge in zip(amounts, ridges, strict=True)
            ],
            1,
        )
        intercept = np.log(share) - 0.5 * np.einsum("rck,kr->ck", weights, means)
        self._keep(spectrum, weights, intercept)


def _solve(
    spectrum: Spectrum, means: np.ndarray, share: np.ndarray, amount: float, ridge: float
) -> np.ndarray:
    """Return W^-1 M' (r, K): the shrunk covariance within classes, inverted, times the means.

    Classes with means M (K, r) and shares P = diag(p) have the covariance within
    S = T - M' P M, where T = diag(root^2) / n is that of all rows, whose mean is zero. Shrunk by a:

        W = D - (1 - a) M' P M   with   D = (1 - a) T + ridge I,   diagonal.

    M' P M has rank K at most, so the Woodbury identity (Golub and Van Loan, "Matrix Computations",
    2013, 2.1.4) inverts a K x K matrix instead of an r x r one, and no second decomposition is
    needed: with B = D^-1 M',

        W^-1 M' = B (I - (1 - a) P M B)^-1.
    """
    diagonal = (1 - amount) * spectrum.root**2 / len(spectrum.u) + ridge
    solved = (means / diagonal).T
    small = np.eye(len(means)) - (1 - amount) * share[:, None] * (means @ solved)
    return np.asarray(solved @ np.linalg.inv(small))


def _amount(shrinkage: float | str, within: np.ndarray, width: int) -> float:
    """Return the shrinkage as a number; Ledoit and Wolf's from rows (n, r) within classes.

    Raises:
        ValueError: it is neither above 0 and at most 1, nor "ledoit-wolf".
    """
    if shrinkage == LEDOIT_WOLF:
        return _ledoit_wolf(within, width)
    if isinstance(shrinkage, str) or not 0 < shrinkage <= 1:
        raise ValueError(f"a shrinkage is above 0 and at most 1, or {LEDOIT_WOLF!r}: {shrinkage!r}")
    return float(shrinkage)


def _ledoit_wolf(within: np.ndarray, width: int) -> float:
    """Return Ledoit and Wolf's amount for centred rows (n, r) that stand for `width` columns.

    scikit-learn's ledoit_wolf_shrinkage forms products of d columns and divides by their number;
    here there are r <= d rotated ones, and only sums over the spectrum, the same in both bases.
    """
    n = len(within)
    squared = (within**2).sum(1)
    # Rows and columns have the same Gram matrix up to zeros: the smaller one is enough.
    short = within @ within.T if n <= within.shape[1] else within.T @ within
    size = (short**2).sum() / n**2
    spread = (size - (squared.sum() / n) ** 2 / width) / width
    noise = ((squared**2).sum() / n - size) / (width * n)
    return 1.0 if spread <= 0 else float(np.clip(noise / spread, 1e-3, 1.0))
