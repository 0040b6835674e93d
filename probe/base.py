"""What a probe is: a classifier that fits a path of candidates and averages the good ones."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils.validation import (
    check_array,
    check_consistent_length,
    check_is_fitted,
    check_X_y,
)

from archiveprobe.probe.selection import average_good

_INNER_FOLDS = 4


class Probe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A scikit-learn classifier whose fit gives one model per candidate hyper-parameter.

    The candidates share one decomposition or one run of training wherever the method allows it, so
    a whole path costs little more than a single model. `weights` (c,) says how much each of them
    counts; without it they are weighed inside `fit`, on grouped inner folds of the rows given.
    Logits are averaged, never labels.

    A probe implements `_fit_path` and `_logits`, and names its fitted arrays in `_fitted`.
    """

    name: ClassVar[str]
    _fitted: ClassVar[tuple[str, ...]]
    """Attributes that hold the fitted model: numpy arrays, each ending in an underscore."""

    weights: Sequence[float] | None
    seed: int = 0

    def _fit_path(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:
        """Fit every candidate on x (n, d) float64 and y (n,) in 0..K-1; K is n_classes_."""
        raise NotImplementedError

    def _logits(self, x: np.ndarray) -> np.ndarray:
        """(c, n, K) float64 of every candidate; softmax over the last axis gives probabilities."""
        raise NotImplementedError

    def candidates(self) -> list[dict[str, Any]]:
        """The hyper-parameters of every candidate, in the order of the path."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:  # noqa: N803
        """Fit the path on X (n, d) and y (n,); rows of one group stay together inside.

        Raises:
            ValueError: NaN or infinite numbers, or a single class.
        """
        x, encoded, members = self._checked(X, y, groups)
        weights: Sequence[float] | np.ndarray | None = self.weights
        if weights is None and len(self.candidates()) > 1:
            weights = self._weigh(x, encoded, members)
        self._fit_path(x, encoded, members)
        self.weights_ = _as_weights(weights, len(self.candidates()))
        return self

    def fit_path(self, X: Any, y: Any, groups: Any = None) -> Self:  # noqa: N803
        """As `fit`, without weighing the candidates: for callers that weigh them themselves."""
        x, encoded, members = self._checked(X, y, groups)
        self._fit_path(x, encoded, members)
        self.weights_ = _as_weights(self.weights, len(self.candidates()))
        return self

    def _checked(self, x: Any, y: Any, groups: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x, y = check_X_y(x, y, dtype=np.float64, ensure_all_finite=False)
        self._check_finite(x)
        self.classes_, encoded = np.unique(y, return_inverse=True)
        self.n_classes_ = len(self.classes_)
        self.n_features_in_ = x.shape[1]
        if self.n_classes_ < 2:
            raise ValueError(f"{self.name} needs two classes, but all rows are {y.tolist()[0]!r}")
        check_consistent_length(x, groups)
        members = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
        return x, encoded, members

    def _check_finite(self, x: np.ndarray) -> None:
        bad = np.flatnonzero(~np.isfinite(x).all(1))
        if len(bad):
            raise ValueError(
                f"{self.name}: X has NaN or infinity in {len(bad)} of {len(x)} rows, first in row "
                f"{bad[0]}: leave such rows out"
            )

    def _weigh(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> np.ndarray:
        """Candidate weights from inner grouped folds, fewer where a class has few groups."""
        smallest = min(len(np.unique(groups[y == label])) for label in np.unique(y))
        count = min(_INNER_FOLDS, smallest)
        if count < 2:
            return np.ones(len(self.candidates()))
        held = np.full((len(self.candidates()), len(y), self.n_classes_), np.nan)
        splits = StratifiedGroupKFold(count, shuffle=True, random_state=self.seed)
        for train, rest in splits.split(x, y, groups):
            if len(np.unique(y[train])) == self.n_classes_:
                self._fit_path(x[train], y[train], groups[train])
                held[:, rest] = self._logits(x[rest])
        return average_good(held, y)

    def path_logits(self, X: Any) -> np.ndarray:  # noqa: N803
        """Logits (c, n, K) of every candidate for X (n, d)."""
        check_is_fitted(self)
        return self._logits(self._rows(X))

    def decision_logits(self, X: Any) -> np.ndarray:  # noqa: N803
        """The weighted mean of the candidates' logits, (n, K)."""
        result: np.ndarray = np.tensordot(self.weights_, self.path_logits(X), 1)
        return result

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Probabilities (n, K), columns in the order of `classes_`; rows sum to one."""
        return softmax(self.decision_logits(X))

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """The likeliest class of every row."""
        result: np.ndarray = self.classes_[self.decision_logits(X).argmax(1)]
        return result

    def _rows(self, x: Any) -> np.ndarray:
        rows: np.ndarray = check_array(x, dtype=np.float64, ensure_all_finite=False)
        self._check_finite(rows)
        if rows.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {rows.shape[1]} features, but {self.name} was fitted on "
                f"{self.n_features_in_}"
            )
        return rows

    def arrays(self) -> dict[str, np.ndarray]:
        """The fitted model as arrays, for safetensors; the settings are `get_params()`."""
        check_is_fitted(self)
        return {
            name.rstrip("_"): np.ascontiguousarray(getattr(self, name))
            for name in ("weights_", *self._fitted)
        }

    def with_arrays(self, arrays: Mapping[str, np.ndarray], classes: Sequence[Any]) -> Self:
        """Take over what `arrays` gave; `self` has the same settings.

        Raises:
            KeyError: an array is missing.
        """
        self.classes_ = np.asarray(classes)
        self.n_classes_ = len(self.classes_)
        for name in ("weights_", *self._fitted):
            setattr(self, name, np.asarray(arrays[name.rstrip("_")]))
        self.n_features_in_ = self._width()
        return self

    def _width(self) -> int:
        """The number of columns that the fitted arrays expect."""
        raise NotImplementedError


def _as_weights(weights: Sequence[float] | np.ndarray | None, count: int) -> np.ndarray:
    given = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if given.shape != (count,) or (given < 0).any() or given.sum() == 0:
        raise ValueError(f"weights must be {count} numbers, none negative, not all zero")
    result: np.ndarray = given / given.sum()
    return result


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    result: np.ndarray = shifted / shifted.sum(-1, keepdims=True)
    return result


def standardiser(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale (d,) of the columns; constant columns have scale one, so that they vanish."""
    mean, scale = x.mean(0), x.std(0)
    # A column that is constant up to rounding must not be blown up to noise.
    scale[scale <= 1e-9 * np.maximum(1, np.abs(mean))] = 1.0
    return mean, scale
