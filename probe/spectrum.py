"""One decomposition of the training rows, from which linear models at every penalty follow.

Let Z (n, d) be the rows after standardising their columns, and Z = U diag(s) V' its singular value
decomposition with r <= min(n, d) values above rounding. A linear model with an L2 penalty has its
weights in the span of the rows: w = V b, since a part of w that is orthogonal to all rows changes
no logit and only costs. As V has orthonormal columns, |w| = |b| and Z w = (U diag(s)) b: the same
model on r columns instead of d (Hastie and Tibshirani, "Efficient quadratic regularization for
expression arrays", 2004). Ridge is then diagonal, and every penalty costs one division:

    b = diag(1 / (s^2 + alpha)) (Z V)' y

The decomposition comes from a symmetric eigenproblem of the smaller side, as in big_vision's
few-shot evaluator:

    n >= d: the d x d covariance  Z'Z = V diag(s^2) V';
    n <  d: the n x n Gram matrix ZZ' = U diag(s^2) U',  and V = Z' U / s, never formed: V b is
            Z' (U (b / s)), two products with as many columns as there are models.

Z V is never formed where n >= d: it costs twice as much as Z'Z, and whoever needs a product with it
takes one with Z and one with V.

Why not an SVD: on 1,280 x 2,432 rows, one thread, LAPACK's gesdd takes three times as long as
the product and eigh together. Squaring halves the digits of small singular values, which does no
harm here: those below 1e-5 of the largest are dropped, and any penalty worth trying drowns them.
"""

import threading
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from archiveprobe.base.blocks import blocks_of
from archiveprobe.probe.base import standardised, standardiser

# Of the largest eigenvalue, which is the square of a singular value.
_SMALLEST = 1e-10
_last = threading.local()


@dataclass(frozen=True)
class Spectrum:
    """Standardised rows Z = U diag(root) V': mean, scale (d,), rows = Z (n, d), root (r,) falling.

    `u` (n, r) is U where there are fewer rows than columns, `v` (d, r) is V otherwise.
    """

    mean: np.ndarray
    scale: np.ndarray
    rows: np.ndarray
    root: np.ndarray
    u: np.ndarray | None = None
    v: np.ndarray | None = None

    def standard(self, weights: np.ndarray) -> np.ndarray:
        """Turn weights (r, m) on rotated rows Z V into weights (d, m) on the rows Z."""
        if self.v is not None:
            return np.asarray(self.v @ weights)
        assert self.u is not None
        return np.asarray(self.rows.T @ (self.u @ (weights / self.root[:, None])))

    def coefficients(self, weights: np.ndarray) -> np.ndarray:
        """Turn weights (r, m) on rotated rows into weights (d, m) on the columns as given."""
        return np.asarray(self.standard(weights) / self.scale[:, None])

    def project(self, targets: np.ndarray) -> np.ndarray:
        """Return (Z V)' t, (r, m), of targets t (n, m)."""
        if self.u is not None:
            return np.asarray(self.root[:, None] * (self.u.T @ targets))
        assert self.v is not None
        total = np.zeros((self.rows.shape[1], targets.shape[1]))
        for part in blocks_of(self.rows):
            total += self.rows[part].T @ targets[part].astype(self.rows.dtype, copy=False)
        return np.asarray(self.v.T @ total)


def decompose(x: np.ndarray) -> Spectrum:
    """Decompose rows x (n, d) after standardising their columns.

    Every thread keeps the result for its last read-only array, which cannot change, so that the
    probes of one training part share it: it is most of what the linear ones cost.
    """
    if x.flags.writeable:
        return _decompose(x)
    if getattr(_last, "rows", None) is not x:
        # What was there is given back first: two decompositions need twice the memory.
        forget()
        _last.rows, _last.spectrum = x, _decompose(x)
    spectrum: Spectrum = _last.spectrum
    return spectrum


def forget() -> None:
    """Give back the memory of this thread's last decomposition."""
    _last.rows = _last.spectrum = None


def _decompose(x: np.ndarray) -> Spectrum:
    mean, scale = standardiser(x)
    rows = standardised(x, mean, scale)
    if len(rows) <= rows.shape[1]:
        values, u = _positive((rows @ rows.T).astype(np.float64, copy=False))
        return Spectrum(mean, scale, rows, np.sqrt(values), u=u)
    gram = np.zeros((rows.shape[1], rows.shape[1]))
    for part in blocks_of(rows):
        # In double precision, of which the small eigenvalues have half the digits.
        block = rows[part].astype(np.float64, copy=False)
        gram += block.T @ block
    values, v = _positive(gram)
    return Spectrum(mean, scale, rows, np.sqrt(values), v=v)


def _positive(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues that are not rounding, descending, with their vectors."""
    values, vectors = eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    kept = values > _SMALLEST * max(values[-1], _SMALLEST)
    return values[kept][::-1], vectors[:, kept][:, ::-1]
