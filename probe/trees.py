"""Boosted trees on principal components; the numbers of trees along one run are the candidates."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from archiveprobe.base.blocks import blocks_of
from archiveprobe.probe.base import Probe, both_logits
from archiveprobe.probe.spectrum import decompose

_FIXED = {
    # More threads than cores to themselves cost seconds instead of tenths of one.
    "num_threads": 1,
    "force_col_wise": True,
    "deterministic": True,
    "max_bin": 63,
    # Random thresholds: macro-F1 0.957 instead of 0.944 on 64 components of two MobileNets.
    "extra_trees": True,
    "verbosity": -1,
}


@dataclass(kw_only=True, eq=False, repr=False)
class LightGBM(Probe):
    """LightGBM on the first principal components of the standardised columns.

    `trees` are points along one run of boosting. The model is LightGBM's own text, in which classes
    are numbers.
    """

    name: ClassVar[str] = "lightgbm"
    fitted: ClassVar[tuple[str, ...]] = ("mean_", "basis_", "text_", "digest_")
    components: int = 64
    trees: Sequence[int] = (50, 100, 200, 400)
    learning_rate: float = 0.1
    leaves: int = 4
    feature_fraction: float = 0.3

    def candidates(self) -> list[dict[str, Any]]:
        """Return one per number of trees."""
        return [{"trees": int(count)} for count in self.trees]

    def _fit_path(self, x: np.ndarray, y: np.ndarray) -> None:
        import lightgbm

        spectrum = decompose(x)
        count = min(self.components, len(spectrum.root))
        self.mean_ = spectrum.mean
        # Rows that are all equal still need a column.
        axes = spectrum.coefficients(np.eye(len(spectrum.root))[:, :count])
        self.basis_ = np.ascontiguousarray(axes if count else np.zeros((x.shape[1], 1)))
        settings = {
            **_FIXED,
            "learning_rate": self.learning_rate,
            "num_leaves": self.leaves,
            "feature_fraction": self.feature_fraction,
            "seed": self.seed,
            "objective": "binary",
        }
        if self.n_classes_ > 2:
            settings |= {"objective": "multiclass", "num_class": self.n_classes_}
        rows = lightgbm.Dataset(self._components(x), y, params=settings)
        text = lightgbm.train(settings, rows, num_boost_round=max(self.trees)).model_to_string()
        self.text_ = np.frombuffer(text.encode(), np.uint8)
        self.digest_ = _digest(self.text_)
        self._booster = _parse(self.text_)

    def _components(self, x: np.ndarray) -> np.ndarray:
        out = np.empty((len(x), self.basis_.shape[1]))
        for part in blocks_of(x):
            out[part] = (x[part] - self.mean_) @ self.basis_
        return out

    def _path_logits(self, x: np.ndarray) -> np.ndarray:
        rows = self._components(x)
        raw = [
            self._booster.predict(rows, num_iteration=int(count), raw_score=True, num_threads=1)
            for count in self.trees
        ]
        return both_logits(np.stack(raw).reshape(len(self.trees), len(x), -1))

    def with_arrays(self, arrays: Mapping[str, np.ndarray], classes: Sequence[Any]) -> Self:
        """Take over what `arrays` gave; `self` has the same settings.

        Raises:
            KeyError: an array is missing.
            ValueError: the model's text is not what was saved. It is compared before it is parsed:
                LightGBM's parser ends the whole process on a damaged text.
        """
        super().with_arrays(arrays, classes)
        if not np.array_equal(self.digest_, _digest(self.text_)):
            raise ValueError("the trees are not those that were saved: run that system again")
        self._booster = _parse(self.text_)
        return self


def _digest(text: np.ndarray) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(text.tobytes()).digest(), np.uint8)


def _parse(text: np.ndarray) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=text.tobytes().decode())
