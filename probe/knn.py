"""Nearest neighbours by cosine, weighted as DINO does, for several numbers of them at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.preprocessing import normalize

from archiveprobe.probe.base import Probe, standardised, standardiser

# Cosines at a time, 32 MB: fewer rows at a time make products dearer, more leave the cache.
_COSINES = 1 << 23
# Equal rows shall be equally far whatever the order in which a product was summed. This is why
# scikit-learn's NearestNeighbors does not do: rows that are equally far come in no certain order
# there, and with them the votes. Single precision has fewer decimals to round to.
_DECIMALS = {np.dtype(np.float64): 9, np.dtype(np.float32): 6}
_PLACE_BITS = 28


@dataclass(kw_only=True, eq=False, repr=False)
class KNN(Probe):
    """Votes of the k nearest rows by cosine, weighted by exp(cosine / temperature).

    The protocol of Caron et al., "Emerging properties in self-supervised vision transformers"
    (DINO), 2021, after Wu et al., "Unsupervised feature learning via non-parametric instance
    discrimination", 2018, temperature 0.07. One more vote, weighing as much as the neighbours do on
    average, is cast by the shares of the classes, so that no probability is zero. Columns are
    standardised first unless `standardise` is false.
    """

    name: ClassVar[str] = "knn"
    fitted: ClassVar[tuple[str, ...]] = ("mean_", "scale_", "rows_", "labels_", "shares_")
    ks: Sequence[int] = (5, 10, 20, 50, 100, 200)
    temperature: float = 0.07
    standardise: bool = True

    def candidates(self) -> list[dict[str, Any]]:
        """Return one per number of neighbours; where there are fewer rows, all of them vote."""
        return [{"k": int(k)} for k in self.ks]

    def _fit_path(self, x: np.ndarray, y: np.ndarray) -> None:
        self.mean_, self.scale_ = standardiser(x)
        if not self.standardise:
            self.mean_, self.scale_ = np.zeros(x.shape[1]), np.ones(x.shape[1])
        self.rows_ = normalize(standardised(x, self.mean_, self.scale_), copy=False)
        self.labels_ = y.astype(np.int64)
        self.shares_ = np.bincount(y) / len(y)

    def _path_logits(self, x: np.ndarray) -> np.ndarray:
        step = max(1, _COSINES // len(self.rows_))
        parts = [self._votes(x[at : at + step]) for at in range(0, len(x), step)]
        return np.asarray(np.log(np.concatenate(parts, 1)))

    def _votes(self, x: np.ndarray) -> np.ndarray:
        """Return shares of the votes, (c, n, K)."""
        rows = standardised(x.astype(self.rows_.dtype, copy=False), self.mean_, self.scale_)
        most = min(max(self.ks), len(self.rows_))
        near, order = nearest(normalize(rows, copy=False) @ self.rows_.T, most)
        weight = np.exp((near - near[:, :1]) / self.temperature)
        of_class = weight[..., None] * np.eye(self.n_classes_)[self.labels_[order]]
        # The votes of the first k are a running sum, so that one search serves every k.
        last = np.minimum(self.ks, most) - 1
        votes = np.cumsum(of_class, 1)[:, last]
        total, squares = np.cumsum(weight, 1)[:, last], np.cumsum(weight**2, 1)[:, last]
        # Votes count as many as equal ones would (Kish, "Survey sampling", 1965).
        count = (total**2 / squares)[..., None]
        shares = (count * votes / total[..., None] + self.shares_) / (count + 1)
        return np.asarray(shares.swapaxes(0, 1))


def nearest(cosines: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `most` highest cosines of every row (n, m), highest first, and their places.

    Of equal ones the first come first. A partition of the numbers, not of the places, which numpy
    does ten times as fast, says which of them can be among the highest; only those are ordered, by
    one whole number each: its distance in steps of the last decimal, and behind it the place.
    """
    steps = 10.0 ** _DECIMALS[cosines.dtype]
    count = cosines.shape[1]
    least = np.partition(cosines, count - most, axis=1)[:, count - most]
    # What rounds to the same number as the last of them is as far.
    row, place = np.nonzero(cosines >= (least - cosines.dtype.type(1 / steps))[:, None])
    keys = np.rint(cosines[row, place] * -steps).astype(np.int64) << _PLACE_BITS
    keys += place
    ordered = keys[np.lexsort((keys, row))]
    first = np.searchsorted(row, np.arange(len(cosines)))
    keys = ordered[first[:, None] + np.arange(most)]
    return -(keys >> _PLACE_BITS) / steps, keys & ((1 << _PLACE_BITS) - 1)
