"""Drawn predictions and datasets, small tasks, and the check that an error is one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archiveprobe.evaluate.dataset import Dataset, Rows
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system import assemble
from archiveprobe.task.config import Task, load_task

NAMES = ("intact", "damaged", "destroyed", "gone")


@pytest.fixture(scope="session")
def make_task() -> Callable[..., Task]:
    def make_task(folder: Path, k: int = 2, settings: str = "", table: str = "") -> Task:
        """A task with k labels in `folder`, and its table if there is one."""
        (folder / "images").mkdir(parents=True, exist_ok=True)
        head = f'name = "t"\nlabels = {list(NAMES[:k])}\n'
        if table:
            (folder / "labels.csv").write_text(table, "utf-8")
            settings = f'[images]\nroot = "images"\ntable = "labels.csv"\n{settings}'
        file = folder / "task.toml"
        file.write_text(head + settings, "utf-8")
        return load_task(file)

    return make_task


@pytest.fixture
def draw_dataset(make_task: Callable[..., Task], tmp_path: Path) -> Callable[..., Dataset]:
    def draw_dataset(
        n: int = 60, m: int = 7, k: int = 2, repeats: int = 2, seed: int = 0
    ) -> Dataset:
        """Rows in groups of one to three, in five folds that keep groups together."""
        rng = np.random.default_rng(seed)
        groups = np.sort(rng.integers(0, n * 2 // 3, n))
        groups = np.unique(groups, return_inverse=True)[1]
        labels = rng.integers(0, k, groups.max() + 1)[groups]
        labels[np.unique(groups, return_index=True)[1][:k]] = range(k)
        placed = np.stack([rng.permutation(groups.max() + 1) % 5 for _ in range(repeats)])
        ids = np.array([f"{row}.jpg" for row in range(n + m)])
        return Dataset(
            task=make_task(tmp_path / f"task{seed}-{k}", k),
            classes=NAMES[:k],
            positive=k - 1,
            unreadable=0,
            labelled=Rows(ids[:n], [None] * n, [None] * n),
            labels=labels,
            groups=groups,
            fold=placed[:, groups],
            unlabelled=Rows(ids[n:], [None] * m, [None] * m),
        )

    return draw_dataset


@pytest.fixture
def draw_logits() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    def draw_logits(
        dataset: Dataset, skill: float = 1.5, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits (R, n, K) and (m, K) that know the labels a little."""
        rng = np.random.default_rng([seed, 7])
        k = len(dataset.classes)
        truth = skill * np.eye(k)[dataset.labels]
        own = rng.standard_normal((len(dataset), k))
        noise = rng.standard_normal((len(dataset.fold), len(dataset), k))
        return truth + own + 0.3 * noise, rng.standard_normal((len(dataset.unlabelled), k))

    return draw_logits


@pytest.fixture
def draw_system(draw_logits: Callable[..., Any]) -> Callable[..., Predictions]:
    def draw_system(
        dataset: Dataset, name: str = "one", skill: float = 1.5, seed: int = 0, **origin: Any
    ) -> Predictions:
        """Assemble a system on drawn logits; thresholds are 0.5 unless `threshold_rule` differs."""
        logits, unlabelled = draw_logits(dataset, skill, seed)
        method = origin.setdefault("threshold_rule", "exact")
        return assemble(
            dataset, logits, unlabelled, {"system": name, **origin}, method=method
        ).predictions

    return draw_system
