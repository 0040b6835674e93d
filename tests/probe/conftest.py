"""Random rows that every test of a probe can learn from."""

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest

from archiveprobe.evaluate.dataset import Dataset, Rows
from archiveprobe.probe.base import Probe
from archiveprobe.probe.choice import Choice
from archiveprobe.probe.features import Features
from archiveprobe.probe.table import PROBES
from archiveprobe.task.config import Task

FOLDS, REPEATS, WIDTH = 4, 2, 6
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


@pytest.fixture
def make_data() -> Callable[..., tuple[Features, Dataset]]:
    """Features of 48 labelled rows and 5 to predict, and their dataset."""

    def make_data(
        views: str = "mean", labels: np.ndarray | None = None
    ) -> tuple[Features, Dataset]:
        rng = np.random.default_rng(0)
        n, m = 48, 5
        y = rng.permutation(np.arange(n) % 2)
        count = 1 if views == "mean" else 3
        x = rng.normal(size=(n + m, count, WIDTH)).astype(np.float32)
        x[:n, :, 0] += 1.5 * y[:, None]
        fold = np.stack([rng.permutation(n) % FOLDS for _ in range(REPEATS)])
        ids = np.arange(n + m).astype(np.str_)
        dataset = Dataset(
            cast(Task, None),
            ("intact", "damaged"),
            1,
            0,
            Rows(ids[:n], [None] * n, [None] * n),
            y if labels is None else labels,
            np.arange(n) // 2,
            fold,
            Rows(ids[n:], [None] * m, [None] * m),
        )
        return Features(Choice(("a",), views), x[:n], x[n:], {}), dataset

    return make_data
