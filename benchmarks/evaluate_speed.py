"""How long figures, intervals, thresholds and the leaderboard take on drawn predictions.

    .venv/bin/python benchmarks/evaluate_speed.py [--rows 1600] [--systems 24]

Everything runs on one thread and nothing is read from disk. A time is the median of several runs.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from common import Figure, arguments, at_most, load, report, timed  # noqa: E402

from archiveprobe.evaluate import calibration, threshold_curve, thresholding  # noqa: E402
from archiveprobe.evaluate.combine import METHODS, combine  # noqa: E402
from archiveprobe.evaluate.compare import paired_differences  # noqa: E402
from archiveprobe.evaluate.dataset import Dataset, Rows  # noqa: E402
from archiveprobe.evaluate.intervals import REPLICATES, compare, intervals  # noqa: E402
from archiveprobe.evaluate.leaderboard import leaderboard  # noqa: E402
from archiveprobe.evaluate.metrics import METRICS  # noqa: E402
from archiveprobe.evaluate.system import assemble  # noqa: E402
from archiveprobe.task.balanced_folds import balanced_folds  # noqa: E402
from archiveprobe.task.config import load_task  # noqa: E402

RUNS = 5
TASK = 'name = "drawn"\nlabels = ["intact", "destroyed"]\npositive = "destroyed"\n'


def draw(folder: Path, n: int) -> Dataset:
    """Return rows at prevalence .353 in 5 x 5 folds, a fifth of them copies of others."""
    (folder / "images").mkdir()
    (folder / "task.toml").write_text(TASK, "utf-8")
    task = load_task(folder / "task.toml")
    rng = np.random.default_rng(0)
    groups = np.unique(rng.integers(0, n * 5 // 2, n), return_inverse=True)[1]
    y = (rng.random(groups.max() + 1) < 0.353).astype(np.int64)[groups]
    fold = balanced_folds(y, groups, [None] * n, folds=5, repeats=5, seed=0)
    ids = np.array([f"{row}.jpg" for row in range(n + n // 4)])
    return Dataset(
        task=task,
        classes=task.labels,
        positive=1,
        unreadable=0,
        labelled=Rows(ids[:n], [], []),
        labels=y,
        groups=groups,
        fold=np.array(fold).T,
        unlabelled=Rows(ids[n:], [], []),
    )


def logits_of(dataset: Dataset, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (R, n, 2) and (m, 2) of a middling system."""
    rng = np.random.default_rng(seed)
    shape = (len(dataset.fold), len(dataset))
    margin = 3 * (dataset.labels - 0.4) + rng.standard_normal(shape[1])
    margin = margin + 0.3 * rng.standard_normal(shape)
    rest = rng.standard_normal(len(dataset.unlabelled))
    return np.stack([-margin, margin], -1), np.stack([-rest, rest], -1)


def milliseconds(action: Callable[[], Any]) -> float:
    """Return the median time of an action that has run once before."""
    action()
    return round(median(timed(action)[1] for _ in range(RUNS)) * 1e3, 2)


def measure(dataset: Dataset, systems: int) -> list[Figure]:
    """Return all figures, with targets where the rows are those of the shared task."""
    n, y, groups, fold = len(dataset), dataset.labels, dataset.groups, dataset.fold
    logits, unlabelled = logits_of(dataset, 0)
    one = assemble(dataset, logits, unlabelled, {"system": "one"}).predictions
    p = one.oof[..., 1]
    members = [
        assemble(dataset, *logits_of(dataset, at), {"system": f"s{at}"}).predictions
        for at in range(systems)
    ]

    def figures_of(one_repeat: bool) -> Callable[[], Any]:
        some = slice(0, 1) if one_repeat else slice(None)
        return lambda: intervals(y, one.decision[some], groups, 2)

    def nested_thresholds(method: str) -> Callable[[], Any]:
        return lambda: thresholding.nested(y, p, fold, groups, 1, method)

    return [
        at_most(
            f"all thresholds of {n} rows",
            milliseconds(lambda: threshold_curve.scan(y == 1, p[0])),
            1,
            "ms",
        ),
        at_most(
            f"{REPLICATES} replicates of all {len(METRICS)} figures, {n} rows",
            milliseconds(figures_of(one_repeat=True)),
            2000,
            "ms",
        ),
        Figure("the same, five repeats", milliseconds(figures_of(one_repeat=False)), "ms"),
        Figure(
            f"{REPLICATES} replicates of a comparison, five repeats",
            milliseconds(lambda: compare(y, one.decision, members[-1].decision, groups, 2)),
            "ms",
        ),
        Figure(
            "calibration, 5 x 5 folds",
            milliseconds(lambda: calibration.cross_fitted(logits, y, fold)),
            "ms",
        ),
        *(
            Figure(
                f"nested thresholds, 5 x 5 folds, {name}",
                milliseconds(nested_thresholds(name)),
                "ms",
            )
            for name in thresholding.THRESHOLD_RULES
        ),
        *(
            Figure(
                f"ensemble of {systems}, {name}",
                milliseconds(lambda m=name: combine(members, m)),
                "ms",
            )
            for name in METHODS
        ),
        Figure(
            f"leaderboard of {systems} systems, five repeats",
            milliseconds(lambda: leaderboard(members, seconds=0.0)),
            "ms",
        ),
        Figure(
            f"paired differences of {systems} systems from one, five repeats",
            milliseconds(lambda: paired_differences(members, 0)),
            "ms",
        ),
    ]


def main(words: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser: argparse.ArgumentParser = arguments(__doc__, "evaluate_speed")
    parser.add_argument("--rows", type=int, default=1600)
    parser.add_argument("--systems", type=int, default=24)
    options = parser.parse_args(words)
    before = load()
    with TemporaryDirectory() as folder:
        dataset = draw(Path(folder), options.rows)
    report(options.json, measure(dataset, options.systems), before)


if __name__ == "__main__":
    main()
