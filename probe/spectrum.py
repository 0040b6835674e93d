"""One decomposition of the training rows, from which linear models at every penalty follow."""

from dataclasses import dataclass
from hashlib import blake2b
from threading import Lock

import numpy as np
from scipy.linalg import eigh

from archiveprobe.base.cores import usable_cores
from archiveprobe.probe.base import standardiser

_SMALLEST = 1e-10
_recent: dict[object, "Spectrum"] = {}
_lock = Lock()


@dataclass(frozen=True)
class Spectrum:
    """Standardised rows Z = U diag(root) V', rotated to at most min(n, d) columns.

    Any L2-penalised linear model is unchanged by the rotation (Hastie and Tibshirani, "Efficient
    quadratic regularization for expression arrays", 2004), so that the costs of fitting it do not
    depend on the width of the embeddings where there are fewer rows than columns.
    """

    mean: np.ndarray
    scale: np.ndarray
    u: np.ndarray
    root: np.ndarray
    rows: np.ndarray | None = None
    v: np.ndarray | None = None
    """Z where there are fewer rows than columns, V otherwise: whichever is there already."""

    @property
    def rotated(self) -> np.ndarray:
        """The rows (n, r) in the basis of the decomposition."""
        result: np.ndarray = self.u * self.root
        return result

    @property
    def with_intercept(self) -> np.ndarray:
        """The rows (n, r + 1) in the basis of the decomposition, behind them a column of ones."""
        result = np.empty((len(self.u), len(self.root) + 1))
        np.multiply(self.u, self.root, out=result[:, :-1])
        result[:, -1] = 1.0
        return result

    def coefficients(self, weights: np.ndarray) -> np.ndarray:
        """Weights (r, m) on rotated rows as weights (d, m) on the columns as they were given."""
        if self.v is None:
            assert self.rows is not None
            standardised = self.rows.T @ (self.u @ (weights / self.root[:, None]))
        else:
            standardised = self.v @ weights
        result: np.ndarray = standardised / self.scale[:, None]
        return result


def decompose(x: np.ndarray) -> Spectrum:
    """Decompose rows x (n, d) after standardising their columns.

    The last results are kept, one per core, so that probes fitted on the same rows share them.
    """
    key = x.shape, blake2b(np.ascontiguousarray(x).view(np.uint8).data, digest_size=16).digest()
    with _lock:
        known = _recent.get(key)
    if known is None:
        known = _decompose(x)
        with _lock:
            _recent[key] = known
            while len(_recent) > usable_cores():
                _recent.pop(next(iter(_recent)))
    return known


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
    """The eigenvalues that are not rounding, descending, with their vectors."""
    values, vectors = eigh(gram, driver="evd", overwrite_a=True, check_finite=False)
    kept = values > _SMALLEST * max(values[-1], _SMALLEST)
    return values[kept][::-1], vectors[:, kept][:, ::-1]
