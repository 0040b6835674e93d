"""Random rows that every test of a probe can learn from."""

from collections.abc import Callable

import numpy as np
import pytest

from archiveprobe.probe.base import Probe
from archiveprobe.probe.table import PROBES

# Settings that keep a test fast; what is tested does not depend on them.
SMALL = {
    "logistic": {"Cs": (1e-4, 1e-2)},
    "ridge": {"alphas": (1.0, 30.0, 1e3)},
    "lda": {"shrinkages": (0.1, 0.9)},
    "svm": {"scales": (0.25,), "Cs": (0.5, 2.0)},
    "knn": {"ks": (3, 9)},
    "lightgbm": {"trees": (20, 40), "components": 8},
}


@pytest.fixture(scope="session")
def draw() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Rows (n, d) of k classes whose centres lie apart, and their classes 0..k-1."""

    def draw(n: int = 60, d: int = 12, k: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        y = np.arange(n) % k
        centres = 4 * np.random.default_rng(99).normal(size=(k, d)) / np.sqrt(d)
        return centres[y] + rng.normal(size=(n, d)) / np.sqrt(d) * 1.5, y

    return draw


@pytest.fixture(scope="session")
def build() -> Callable[..., Probe]:
    """A small probe by its name; prompts, where it needs them, are the classes' true centres."""

    def build(name: str, d: int = 12, k: int = 2, **settings: object) -> Probe:
        given = {**SMALL.get(name, {}), **settings}
        if PROBES[name].prompts:
            centres = np.random.default_rng(99).normal(size=(k, d))
            given = {"prompts": centres, "scale": 10.0, **given}
        return PROBES[name].make(**given)

    return build
