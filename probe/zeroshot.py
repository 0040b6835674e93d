"""Probes that know the classes' prompts: similarity alone, and a linear probe pulled towards it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from archiveprobe.probe.base import Probe
from archiveprobe.probe.linear import LogisticPath
from archiveprobe.probe.newton import Problem, solve
from archiveprobe.probe.spectrum import decompose

DEFAULT_CS = tuple(float(c) for c in np.logspace(-6, -1, 11))


class ZeroShot(Probe):
    """The class whose prompts are nearest: logits are `scale` times the cosine, plus `bias`.

    Nothing is learned from the labels (Radford et al., "Learning transferable visual models from
    natural language supervision", CLIP, 2021). `prompts` (K, d) holds one text embedding per class,
    in the order of the sorted classes; X are image embeddings of the same CLIP.
    """

    name = "zeroshot"
    _fitted: ClassVar[tuple[str, ...]] = ("coef_", "bias_")
    coef_: np.ndarray
    bias_: np.ndarray

    def __init__(
        self,
        prompts: np.ndarray | None = None,
        scale: float = 100.0,
        bias: float = 0.0,
        weights: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        self.prompts = prompts
        self.scale = scale
        self.bias = bias
        self.weights = weights
        self.seed = seed

    def candidates(self) -> list[dict[str, Any]]:
        """A single one."""
        return [{}]

    def _fit_path(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:  # noqa: ARG002
        shape = (self.n_classes_, x.shape[1])
        self.coef_ = self.scale * checked_prompts(self.name, self.prompts, shape)
        self.bias_ = np.array([self.bias], np.float64)

    def _logits(self, x: np.ndarray) -> np.ndarray:
        result: np.ndarray = unit(x) @ self.coef_.T + self.bias_
        return result[None]

    def _width(self) -> int:
        return int(self.coef_.shape[1])


class PromptedPath(LogisticPath):
    """Logistic regression on unit rows whose weights are pulled towards those of the prompts.

    The penalty is on the distance from the weights of `ZeroShot`, measured on standardised columns,
    so that a strong one leaves zero-shot classification with a free intercept, and a weak one plain
    logistic regression (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022, and Lin et
    al., "Multimodality helps unimodality", 2023, start from these weights as well).
    """

    name = "prompted"

    def __init__(
        self,
        prompts: np.ndarray | None = None,
        scale: float = 100.0,
        bias: float = 0.0,
        Cs: Sequence[float] = DEFAULT_CS,  # noqa: N803
        weights: Sequence[float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(Cs=Cs, weights=weights, seed=seed)
        self.prompts = prompts
        self.scale = scale
        self.bias = bias

    def _fit_path(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> None:  # noqa: ARG002
        shape = (self.n_classes_, x.shape[1])
        start = self.scale * checked_prompts(self.name, self.prompts, shape).T
        rows = unit(x)
        spectrum = decompose(rows)
        target, offset = np.eye(self.n_classes_)[y], rows @ start
        if self.n_classes_ == 2:
            target, offset = target[:, 1:], offset[:, 1:] - offset[:, :1]
        problem = Problem(
            spectrum.with_intercept,
            target,
            np.append(spectrum.root**2, len(rows)),
            offset,
        )
        solution = solve(problem, 1 / np.asarray(self.Cs, np.float64))
        self._keep(spectrum, solution[:-1], solution[-1])
        self.coef_ = self.coef_ + start

    def _logits(self, x: np.ndarray) -> np.ndarray:
        return super()._logits(unit(x))


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows (n, d) at length one; zero rows stay zero."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1.0))


def checked_prompts(name: str, prompts: np.ndarray | None, shape: tuple[int, int]) -> np.ndarray:
    """The prompts as unit rows, one per class.

    Raises:
        ValueError: there are none, or they are no finite (K, d) that fits classes and columns.
    """
    if prompts is None:
        raise ValueError(f"{name} needs the prompts of every class: write [prompts] in task.toml")
    given = np.asarray(prompts, np.float64)
    if given.shape != shape or not np.isfinite(given).all():
        raise ValueError(
            f"{name} needs one finite prompt for each of {shape[0]} classes, {shape[1]} wide, not "
            f"an array of {given.shape}"
        )
    return unit(given)
