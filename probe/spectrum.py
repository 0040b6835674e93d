"""One decomposition of the training rows, from which linear models at every penalty follow.

Let Z (n, d) be the rows after standardising their columns, and Z = U diag(s) V' its singular value
decomposition with r <= min(n, d) values above rounding. A linear model with an L2 penalty has its
weights in the span of the rows: w = V b, since a part of w that is orthogonal to all rows changes
no logit and only costs. As V has orthonormal columns, |w| = |b| and Z w = (U diag(s)) b: the same
model on r columns instead of d (Hastie and Tibshirani, "Efficient quadratic regularization for
expression arrays", 2004). Ridge is then diagonal, and every penalty costs one division:

    b = diag(s / (s^2 + alpha)) U' y

The decomposition comes from a symmetric eigenproblem of the smaller side, as in big_vision's
few-shot evaluator:

    n >= d: the d x d covariance  Z'Z = V diag(s^2) V',  and U = Z V / s;
    n <  d: the n x n Gram matrix ZZ' = U diag(s^2) U',  and V = Z' U / s, never formed: V b is
            Z' (U (b / s)), two products with as many columns as there are models.

Why not an SVD: on 1,280 x 2,432 rows, one thread, LAPACK's gesdd takes three times as long as
the product and eigh together. Squaring halves the digits of small singular values, which does no
harm here: those below 1e-5 of the largest are cut, and any penalty worth trying drowns them.
"""

import threading
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from archiveprobe.probe.base import standardiser

# Of the largest eigenvalue, which is the square of a singular value.
_SMALLEST = 1e-10
_last = threading.local()


@dataclass(frozen=True)
class Spectrum:
    """Standardised rows Z = U diag(root) V': mean, scale (d,), u (n, r), root (r,) descending.

    `rows` is Z where there are fewer rows than columns, `v` (d, r) is V otherwise.
    """

    mean: np.ndarray
    scale: np.ndarray
    u: np.ndarray
    root: np.ndarray
    rows: np.ndarray | None = None
    v: np.ndarray | None = None

    @property
    def rotated(self) -> np.ndarray:
        """Return the rows (n, r) in the basis of the decomposition."""
        return np.asarray(self.u * self.root)

    def coefficients(self, weights: np.ndarray) -> np.ndarray:
        """Turn weights (r, m) on rotated rows into weights (d, m) on the columns as given."""
        if self.v is not None:
            standardised = self.v @ weights
        else:
            assert self.rows is not None
            standardised = self.rows.T @ (self.u @ (weights / self.root[:, None]))
        return np.asarray(standardised / self.scale[:, None])


def decompose(x: np.ndarray) -> Spectrum:
    """Decompose rows x (n, d) after standardising their columns.

    Every thread keeps the result for its last read-only array, which cannot change, so that the
    probes of one training part share it: it is most of what the linear ones cost.
    """
    if x.flags.writeable:
        return _decompose(x)
    if getattr(_last, "rows", None) is not x:
        _last.rows, _last.spectrum = x, _decompose(x)
    spectrum: Spectrum = _last.spectrum
    return spectrum


def _decompose(x: np.ndarray) -> Spectrum:
    mean, scale = standardiser(x)
    rows = x - mean
    rows /= scale
    if len(rows) <= rows.shape[1]:
        values, u = _positive(rows @ rows.T)
        return Spectrum(mean, scale, u, np.sqrt(values), rows=rows)
    values, v = _positive(rows.T @ rows)
    root = np.sqrt(values)
    return Spectrum(mean, scale, rows @ (v / root), root, v=v)


def _positive(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues that are not rounding, descending, with their vectors."""
    values, vectors = eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    kept = values > _SMALLEST * max(values[-1], _SMALLEST)
    return values[kept][::-1], vectors[:, kept][:, ::-1]
