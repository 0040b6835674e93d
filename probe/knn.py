"""Nearest neighbours by cosine, weighted as DINO does, for several numbers of them at once."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from archiveprobe.probe.base import Probe, standardiser

_CHUNK = 1_024
# Equal rows shall be equally far whatever the order in which a product was summed.
_DECIMALS = 9


class NeighbourPath(Probe):
    """Votes of the k nearest rows by cosine, weighted by exp(cosine / temperature).

    The protocol of Caron et al., "Emerging properties in self-supervised vision transformers"
    (DINO), 2021, after Wu et al., "Unsupervised feature learning via non-parametric instance
    discrimination", 2018, temperature 0.07. One more vote, weighing as much as the neighbours do on
    average, is cast by the shares of the classes, so that no probability is zero. Columns are
    standardised first unless `standardise` is false.
    """

    name = "knn"
    _fitted: ClassVar[tuple[str, ...]] = ("mean_", "scale_", "rows_", "labels_", "shares_")
    mean_: np.ndarray
    scale_: np.ndarray
    rows_: np.ndarray
    labels_: np.ndarray
    shares_: np.ndarray

    def __init__(
        self,
        ks: Sequence[int] = (5, 10, 20, 50, 100, 200),
        temperature: float = 0.07,
        standardise: bool = True,
        weights: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        self.ks = ks
        self.temperature = temperature
        self.standardise = standardise
        self.weights = weights
        self.seed = seed

    def candidates(self) -> list[dict[str, Any]]:
        """One per number of neighbours; where there are fewer rows, all of them vote."""
        return [{"k": int(k)} for k in self.ks]

    def _fit_path(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:  # noqa: ARG002
        width = x.shape[1]
        plain = np.zeros(width), np.ones(width)
        self.mean_, self.scale_ = standardiser(x) if self.standardise else plain
        self.rows_ = self._units(x)
        self.labels_ = y.astype(np.int64)
        self.shares_ = np.bincount(y, minlength=self.n_classes_) / len(y)

    def _units(self, x: np.ndarray) -> np.ndarray:
        rows = (x - self.mean_) / self.scale_
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.where(length > 0, length, 1.0))

    def _logits(self, x: np.ndarray) -> np.ndarray:
        parts = [self._votes(x[at : at + _CHUNK]) for at in range(0, len(x), _CHUNK)]
        empty = np.zeros((len(self.ks), 0, self.n_classes_))
        return np.asarray(np.log(np.concatenate(parts or [empty], 1)))

    def _votes(self, x: np.ndarray) -> np.ndarray:
        """Shares of the votes, (c, n, K)."""
        cosine = np.round(self._units(x) @ self.rows_.T, _DECIMALS)
        most = min(max(self.ks), len(self.rows_))
        order = np.argsort(-cosine, axis=1, kind="stable")[:, :most]
        near = np.take_along_axis(cosine, order, 1)
        weight = np.exp((near - near[:, :1]) / self.temperature)
        of_class = weight[..., None] * np.eye(self.n_classes_)[self.labels_[order]]
        last = np.minimum(self.ks, most) - 1
        votes = np.cumsum(of_class, 1)[:, last]
        total, squares = np.cumsum(weight, 1)[:, last], np.cumsum(weight**2, 1)[:, last]
        # Votes count as many as equal ones would (Kish, "Survey sampling", 1965).
        count = (total**2 / squares)[..., None]
        shares = (count * votes / total[..., None] + self.shares_) / (count + 1)
        return np.asarray(shares.swapaxes(0, 1))

    def _width(self) -> int:
        return int(self.rows_.shape[1])
