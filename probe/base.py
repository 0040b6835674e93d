"""What a probe is: a scikit-learn classifier that fits a path of candidates and averages the good.

A probe implements `candidates`, `_fit_path` and `_path_logits`, names its fitted arrays in
`fitted`, and is one entry of the table in probe/table.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from archiveprobe.base.blocks import blocks_of
from archiveprobe.probe.selection import average_good

_INNER_FOLDS = 4
# So many numbers are computed with in double precision, 256 MB; more stay as they are.
_MOST_DOUBLE = 1 << 25


@dataclass(kw_only=True, eq=False, repr=False)
class Probe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier whose fit gives one model per candidate hyper-parameter.

    The candidates share one decomposition or one run of training wherever the method allows it, so
    a whole path costs little more than a single model. `weights_` (c,) multiply the candidates'
    logits before they are added up; zero leaves a candidate out. Settings are dataclass fields,
    which scikit-learn reads as parameters.
    """

    name: ClassVar[str]
    fitted: ClassVar[tuple[str, ...]]
    """Attributes that hold the fitted model, numpy arrays; the first is (d,) or (_, d, ...)."""

    seed: int = 0

    def candidates(self) -> list[dict[str, Any]]:
        """Return the hyper-parameters of every candidate, in the order of the path."""
        raise NotImplementedError

    def _fit_path(self, x: np.ndarray, y: np.ndarray) -> None:
        """Fit every candidate on x (n, d), in either precision, and y (n,) in 0..K-1."""
        raise NotImplementedError

    def _path_logits(self, x: np.ndarray) -> np.ndarray:
        """Return logits (c, n, K) float64 of every candidate for x (n, d)."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:  # noqa: N803
        """Fit the path on X (n, d) and y (n,), and weigh the candidates on inner folds of the rows.

        Rows of one group stay together in the inner folds.

        Raises:
            ValueError: NaN or infinite numbers, a single class, numbers that name no classes, or
                hyper-parameters that are none or negative.
        """
        self._check_candidates()
        x, encoded = self._validated(X, y)
        several = len(self.candidates()) > 1
        weights = self._inner_weights(x, encoded, groups) if several else None
        self._fit_path(x, encoded)
        self.weights_ = self._equal_weights() if weights is None else weights
        return self

    def fit_path(self, X: Any, y: Any) -> Self:  # noqa: N803
        """Fit the path; all candidates count alike, for callers that weigh them themselves."""
        self._fit_path(*self._validated(X, y))
        self.weights_ = self._equal_weights()
        return self

    def _equal_weights(self) -> np.ndarray:
        count = len(self.candidates())
        return np.full(count, 1 / count)

    def _check_candidates(self) -> None:
        """Refuse hyper-parameters that nothing can be fitted with."""
        candidates = self.candidates()
        if not candidates:
            raise ValueError(f"{self.name} needs one hyper-parameter or more, got none")
        for name, value in (item for candidate in candidates for item in candidate.items()):
            # A name is for the probe itself to know.
            if not isinstance(value, str) and not value >= 0:
                raise ValueError(f"{self.name}: {name} must not be negative, got {value}")

    def _validated(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        x, y = validate_data(self, x, y, dtype=precisions(x))
        check_classification_targets(y)
        self.classes_, encoded = np.unique(y, return_inverse=True)
        self.n_classes_ = len(self.classes_)
        if self.n_classes_ < 2:
            raise ValueError(f"{self.name} needs two classes, got one class: {y.tolist()[0]!r}")
        return x, encoded

    def _inner_weights(self, x: np.ndarray, y: np.ndarray, groups: Any) -> np.ndarray | None:
        """Weigh candidates on inner grouped folds, fewer where a class has few groups."""
        members = np.arange(len(y)) if groups is None else np.asarray(groups)
        count = min(_INNER_FOLDS, *(len(np.unique(members[y == label])) for label in set(y)))
        if count < 2:
            return None
        logits = np.full((len(self.candidates()), len(y), self.n_classes_), np.nan)
        folds = StratifiedGroupKFold(count, shuffle=True, random_state=self.seed)
        for train, rest in folds.split(x, y, members):
            if len(np.unique(y[train])) == self.n_classes_:
                self._fit_path(x[train], y[train])
                logits[:, rest] = self._path_logits(x[rest])
        return average_good(logits, y)

    def path_logits(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return logits (c, n, K) of every candidate for X (n, d)."""
        check_is_fitted(self)
        return self._path_logits(validate_data(self, X, dtype=precisions(X), reset=False))

    def decision_logits(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the weighted sum of the candidates' logits, (n, K)."""
        logits = self.path_logits(X)
        return np.asarray(np.tensordot(self.weights_, logits, 1))

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return probabilities (n, K), columns in the order of `classes_`."""
        return np.asarray(softmax(self.decision_logits(X), -1))

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the likeliest class of every row."""
        likeliest = self.decision_logits(X).argmax(1)
        return np.asarray(self.classes_[likeliest])

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the fitted model as arrays, for safetensors; the settings are `get_params()`."""
        check_is_fitted(self)
        return {
            name.rstrip("_"): np.ascontiguousarray(getattr(self, name))
            for name in ("weights_", *self.fitted)
        }

    def with_arrays(self, arrays: Mapping[str, np.ndarray], classes: Sequence[Any]) -> Self:
        """Take over what `arrays` gave; `self` has the same settings.

        Raises:
            KeyError: an array is missing.
        """
        self.classes_ = np.asarray(classes)
        self.n_classes_ = len(self.classes_)
        for name in ("weights_", *self.fitted):
            setattr(self, name, np.asarray(arrays[name.rstrip("_")]))
        first = getattr(self, self.fitted[0])
        self.n_features_in_ = int(first.shape[min(1, first.ndim - 1)])
        return self


def precisions(x: Any) -> Any:
    """Return the types of numbers that rows x (n, d) may have; others become the first of them.

    Double precision, but single precision stays where the copy would take much memory: the sums
    over so many rows hide its rounding.
    """
    size = x.size if isinstance(x, np.ndarray) else 0
    return np.float64 if size <= _MOST_DOUBLE else (np.float64, np.float32)


def standardiser(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale (d,) float64; constant columns have scale one, so they vanish.

    As scikit-learn's StandardScaler, whose two arrays a stored probe would have to keep as well.
    """
    mean = x.mean(0, dtype=np.float64)
    squares = sum(((x[part] - mean) ** 2).sum(0) for part in blocks_of(x))
    scale = np.sqrt(squares / len(x))
    # A column that is constant up to rounding must not be blown up to noise.
    scale[scale <= 1e-9 * np.maximum(1, np.abs(mean))] = 1.0
    return mean, scale


def standardised(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return (x - mean) / scale in the precision of x (n, d), computed in double precision."""
    out = np.empty_like(x, order="C")
    for part in blocks_of(x):
        out[part] = (x[part] - mean) / scale
    return out


def both_logits(margins: np.ndarray) -> np.ndarray:
    """Return logits (..., K); one margin (..., 1), for two classes, becomes two of half its size.

    The softmax of (-m/2, m/2) is the logistic function of m.
    """
    if margins.shape[-1] > 1:
        return margins
    return np.concatenate([-margins / 2, margins / 2], -1)
