"""Linear discriminant analysis at every shrinkage, from one decomposition."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from archiveprobe.base.blocks import blocks_of
from archiveprobe.probe.linear import Linear
from archiveprobe.probe.spectrum import Spectrum, decompose

LEDOIT_WOLF = "ledoit-wolf"
# Of the whole variance: without any within classes (copies of one row each) nothing is solvable.
_LEAST = 1e-6
_ROUNDING = 1e-12
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
        share = np.bincount(y) / len(y)
        members = np.eye(self.n_classes_)[y] / np.bincount(y)
        means = spectrum.project(members).T
        within = _Within(spectrum, means, share, y)
        amounts = np.array([_amount(s, within) for s in self.shrinkages])
        whole = (spectrum.root**2).sum() / len(y)
        ridges = np.maximum(amounts * within.trace, _LEAST * whole) / x.shape[1]
        weights = np.stack(
            [
                _solve(spectrum, means, share, amount, ridge)
                for amount, ridge in zip(amounts, ridges, strict=True)
            ],
            1,
        )
        intercept = np.log(share) - 0.5 * np.einsum("rck,kr->ck", weights, means)
        self._keep(spectrum, weights, intercept)


@dataclass(frozen=True)
class _Within:
    """The covariance S within classes: means (K, r), shares (K,), and the classes y (n,).

    S = D - M' P M with D = diag(root^2) / n, so sums over it need no product of all rows.
    """

    spectrum: Spectrum
    means: np.ndarray
    share: np.ndarray
    y: np.ndarray

    @property
    def trace(self) -> float:
        """Return tr S."""
        whole = (self.spectrum.root**2).sum() / len(self.y)
        return max(0.0, float(whole - self.share @ (self.means**2).sum(1)))

    def size(self) -> float:
        """Return the sum of the squares of S, tr S S = tr D D - 2 tr M D M' P + tr (P M M')^2."""
        diagonal = self.spectrum.root**2 / len(self.y)
        crossed = self.share[:, None] * (self.means @ self.means.T)
        mixed = self.share @ (self.means**2 @ diagonal)
        return float((diagonal**2).sum() - 2 * mixed + np.trace(crossed @ crossed))

    def fourth(self) -> float:
        """Return the mean over rows of |z - m|^4, z a row and m the mean of its class.

        |z - m|^2 = |z|^2 - 2 z'm + |m|^2; distances do not change with the basis.
        """
        rows, centres = self.spectrum.rows, self.spectrum.standard(self.means.T)
        lengths, total = (self.means**2).sum(1), 0.0
        for part in blocks_of(rows):
            block, own = rows[part].astype(np.float64, copy=False), self.y[part]
            towards = np.take_along_axis(block @ centres, own[:, None], 1)[:, 0]
            squares = (block**2).sum(1) - 2 * towards + lengths[own]
            total += float((squares**2).sum())
        return total / len(self.y)


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
    diagonal = (1 - amount) * spectrum.root**2 / len(spectrum.rows) + ridge
    solved = (means / diagonal).T
    small = np.eye(len(means)) - (1 - amount) * share[:, None] * (means @ solved)
    return np.asarray(solved @ np.linalg.inv(small))


def _amount(shrinkage: float | str, within: _Within) -> float:
    """Return the shrinkage as a number.

    Raises:
        ValueError: it is neither above 0 and at most 1, nor "ledoit-wolf".
    """
    if shrinkage == LEDOIT_WOLF:
        return _ledoit_wolf(within)
    if isinstance(shrinkage, str) or not 0 < shrinkage <= 1:
        raise ValueError(f"a shrinkage is above 0 and at most 1, or {LEDOIT_WOLF!r}: {shrinkage!r}")
    return float(shrinkage)


def _ledoit_wolf(within: _Within) -> float:
    """Return Ledoit and Wolf's amount for the rows within classes.

    scikit-learn's ledoit_wolf_shrinkage forms products of d columns and divides by their number;
    here there are r <= d rotated ones, and only sums over the spectrum, the same in both bases.
    """
    n, width = within.spectrum.rows.shape
    size, trace = within.size(), within.trace
    spread = (size - trace**2 / width) / width
    noise = (within.fourth() - size) / (width * n)
    # Of copies of one row per class nothing but rounding is left.
    whole = (within.spectrum.root**2).sum() / n
    if spread <= 0 or trace <= _ROUNDING * whole:
        return 1.0
    return float(np.clip(noise / spread, 1e-3, 1.0))
