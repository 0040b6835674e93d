"""Do intervals hold the truth, and are nested figures unbiased? Answered where the truth is known.

    .venv/bin/python benchmarks/interval_truth.py [--tasks 200] [--archive "10 groups"]...

Draws small archives from known sources (benchmarks/drawn_archives.py: plain, hard, noisy, skewed,
heavy-tailed, in few groups, twelve systems at chance) and runs on each what `archiveprobe probe`
runs: cross_validate, assemble and leaderboard, 5 x 5 grouped folds, on linear probes and the mean
of them. The truth of a line is the mean macro-F1 of its fold models, each at its own threshold, on
20,000 new rows of the source, of new groups where it has groups; beside it stands how often the
same interval holds the figure of the model that is refitted on all rows. The truth of model
selection is that of the system recommended, and that of a difference is the difference of the two
truths. Coverage has a Monte Carlo error of .015 at 200 archives; a target is met within that error.
A draw takes .2 to 2 seconds of one core.
"""

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402
from common import Figure, arguments, cores, load, report  # noqa: E402
from drawn_archives import SOURCES, Drawn, Source  # noqa: E402

from archiveprobe.evaluate import calibration, thresholding  # noqa: E402
from archiveprobe.evaluate.combine import combine  # noqa: E402
from archiveprobe.evaluate.dataset import Dataset, Rows  # noqa: E402
from archiveprobe.evaluate.intervals import compare  # noqa: E402
from archiveprobe.evaluate.leaderboard import SELECTION, leaderboard, nested_score  # noqa: E402
from archiveprobe.evaluate.metrics import from_confusion  # noqa: E402
from archiveprobe.evaluate.model_selection import candidates_of  # noqa: E402
from archiveprobe.evaluate.predictions import Predictions  # noqa: E402
from archiveprobe.evaluate.system import Assembled, assemble  # noqa: E402
from archiveprobe.probe.base import Probe  # noqa: E402
from archiveprobe.probe.choice import Choice  # noqa: E402
from archiveprobe.probe.crossval import ProbeResult, cross_validate  # noqa: E402
from archiveprobe.probe.features import Features  # noqa: E402
from archiveprobe.probe.table import PROBES as TABLE  # noqa: E402
from archiveprobe.task.balanced_folds import balanced_folds  # noqa: E402
from archiveprobe.task.config import Task, load_task  # noqa: E402

FOLDS, REPEATS = 5, 5
LOW, HIGH, OPTIMISM = 0.93, 0.97, 0.003
MEAN, DIFFERENCE = "mean", "difference of the first two"
# Shorter paths than the defaults, which cost most of the time and say the same.
PROBES: dict[str, dict[str, Any]] = {
    "ridge": {"alphas": tuple(np.logspace(0, 4, 9))},
    "lda": {"shrinkages": (0.01, 0.1, 0.3, 0.6, 0.9)},
}
OTHER_RULES = {"plain, 400 rows": ("exact", "grid", "half")}
TASK = 'name = "drawn"\nlabels = ["intact", "destroyed"]\npositive = "destroyed"\n'


def dataset_of(task: Task, drawn: Drawn, seed: int) -> Dataset:
    """Return a drawn archive as a dataset with folds."""
    n, y = len(drawn.y), drawn.y
    groups = np.unique(drawn.groups, return_inverse=True)[1]
    assigned = balanced_folds(y, groups, [None] * n, folds=FOLDS, repeats=REPEATS, seed=seed)
    ids = np.array([f"{row}.jpg" for row in range(n)])
    rows, none = Rows(ids, [], []), Rows(ids[:0], [], [])
    return Dataset(task, task.labels, 1, 0, rows, y, groups, np.array(assigned).T, none)


@dataclass
class Linear:
    """A linear probe, cross-validated by the project, its models kept."""

    name: str
    made: list[Probe] = field(default_factory=list)

    def make(self) -> Probe:
        """Give the next probe; the first is fitted on all rows, the others on parts in order."""
        self.made.append(TABLE[self.name].make(**PROBES[self.name]))
        return self.made[-1]

    def margins(self, held: ProbeResult, x: np.ndarray) -> np.ndarray:
        """Margins (1 + R * folds, N) of rows, candidates averaged as `held` says."""
        weights = np.concatenate([held.final[None], held.weights.reshape(-1, len(held.final))])
        both = list(zip(self.made, weights, strict=True))
        slopes = [np.tensordot(own, np.diff(model.coef_)[..., 0], 1) for model, own in both]
        levels = [np.diff(model.intercept_)[:, 0] @ own for model, own in both]
        return np.asarray(np.array(slopes) @ x.T + np.array(levels)[:, None])


@dataclass(frozen=True)
class Scored:
    """A system, and what its models, the refitted one first, say of new rows.

    Probabilities (1 + R * folds, N) of the positive class, and the macro-F1 (1 + R * folds,).
    """

    predictions: Predictions
    p: np.ndarray
    scores: np.ndarray

    @property
    def truth(self) -> tuple[float, float]:
        """Of the fold models, on average, and of the refitted one."""
        return float(self.scores[1:].mean()), float(self.scores[0])


def calibrated(done: Assembled, logits: np.ndarray, margins: np.ndarray) -> np.ndarray:
    """Calibrate margins to probabilities (1 + R * folds, N), each by its own model."""
    rows = done.predictions
    held = calibration.cross_fitted(logits, rows.labels, rows.fold).parameters.reshape(-1, 2)
    parameters = [done.calibration.parameters, *held.tolist()]
    both = np.stack([-margins / 2, margins / 2], -1)
    used = [calibration.Calibration(calibration.PLATT, each) for each in parameters]
    return np.stack([one.apply(own)[:, 1] for one, own in zip(used, both, strict=True)])


def true_scores(p: np.ndarray, thresholds: np.ndarray, fresh: Drawn) -> np.ndarray:
    """Return Macro-F1 (M,) of deciding p (M, N) > thresholds (M,) on new rows."""
    above = (p > thresholds[:, None]).astype(np.float64)
    parts = [fresh.weight * (fresh.y == label) for label in (0, 1)]
    cells = np.stack([np.stack([(1 - above) @ part, above @ part], -1) for part in parts], -2)
    return from_confusion(cells)["macro_f1"]


def score(done: Assembled, p: np.ndarray, fresh: Drawn) -> Scored:
    """Return an assembled system with the truth about its models."""
    rows = done.predictions
    return Scored(
        rows, p, true_scores(p, np.append(rows.threshold, rows.thresholds.ravel()), fresh)
    )


def probe_line(dataset: Dataset, drawn: Drawn, fresh: Drawn, line: str, view: slice) -> Scored:
    """Cross-validate and assemble a probe on the columns of its view, and score its models."""
    probe = Linear(line.split()[0])
    x = drawn.x[:, None, view]
    features = Features(Choice(("drawn",)), x, x[:0], {})
    held = cross_validate({line: probe.make}, features, dataset, workers=1)[line]
    done = assemble(dataset, held.logits, held.unlabelled, {"system": line})
    margins = probe.margins(held, fresh.x[:, view])
    return score(done, calibrated(done, held.logits, margins), fresh)


def ensemble_line(dataset: Dataset, members: list[Scored], fresh: Drawn) -> Scored:
    """Return the mean of all lines."""
    combined = combine([one.predictions for one in members], MEAN)
    done = assemble(dataset, combined.logits, combined.unlabelled, {"system": MEAN})
    inside = [np.clip(one.p, 1e-7, 1 - 1e-7) for one in members]
    margins = np.mean([np.log(p) - np.log1p(-p) for p in inside], 0)
    return score(done, calibrated(done, combined.logits, margins), fresh)


@dataclass(frozen=True)
class Trial:
    """One archive, one line: figure, optimistic figure, interval, and the two truths."""

    line: str
    figure: float
    optimistic: float
    low: float
    high: float
    truth: float
    refitted: float


def trials(folder: Path, name: str, seed: int) -> list[Trial]:
    """Draw an archive of a source, run everything on it, and look at the truth of its lines.

    Of many lines that are alike only the first two are looked at, and what picking makes of all.
    """
    source: Source = SOURCES[name]
    drawn, fresh = source.archive(seed), source.fresh(seed)
    dataset = dataset_of(load_task(folder / "task.toml"), drawn, seed)
    views = source.views()
    lines = [probe_line(dataset, drawn, fresh, line, view) for line, view in views.items()]
    first, second = lines[:2]
    if not source.systems:
        lines.append(ensemble_line(dataset, lines, fresh))
    board = leaderboard([one.predictions for one in lines], seconds=0.0)
    every = {one.predictions.system: one.truth for one in lines}
    truths = dict([*every.items()][: len(lines) if MEAN in every else 2])
    # Also where the leaderboard recommends nothing: picking is about the pick.
    candidates = candidates_of([one.predictions for one in lines], 1.0)
    truths[SELECTION] = every[candidates.systems[candidates.pick(candidates.scores)].system]
    shown = [
        Trial(
            line.system, line.macro_f1, line.optimistic, line.low, line.high, *truths[line.system]
        )
        for line in filter(None, [*board.lines, board.selection])
        if line.system in truths
    ]
    others = [other_rule(first, fresh, method) for method in OTHER_RULES.get(name, ())]
    return [*shown, difference(dataset, first, second), *others]


def difference(dataset: Dataset, one: Scored, other: Scored) -> Trial:
    """Return the paired comparison of two lines."""
    decisions = one.predictions.decision, other.predictions.decision
    found = compare(dataset.labels, *decisions, dataset.groups, 2, fold=dataset.fold)
    truth = [a - b for a, b in zip(one.truth, other.truth, strict=True)]
    return Trial(DIFFERENCE, found.difference, found.difference, found.low, found.high, *truth)


def other_rule(one: Scored, fresh: Drawn, method: str) -> Trial:
    """Return the line of a system with its thresholds found in another way."""
    rows = one.predictions
    p = rows.oof[..., 1]
    found = thresholding.nested(rows.labels, p, rows.fold, rows.groups, 1, method)
    threshold = thresholding.final(rows.labels, p, rows.groups, 1, method)
    truth = true_scores(one.p, np.append(threshold.value, found.thresholds.ravel()), fresh)
    figure, low, high = nested_score(rows, found.decision)
    name = f"{rows.system}, {method} threshold"
    return Trial(name, figure, threshold.score, low, high, float(truth[1:].mean()), float(truth[0]))


def summary(name: str, found: list[Trial]) -> Iterator[Figure]:
    """Return the rows of the table about one line of one archive."""
    low, high, truth, refitted, figure, optimistic = (
        np.array([getattr(each, part) for each in found])
        for part in ("low", "high", "truth", "refitted", "figure", "optimistic")
    )
    for words, wanted in (("cover", truth), ("cover of the refitted model", refitted)):
        held = float(((low <= wanted) & (wanted <= high)).mean())
        # That of .95: a line that always holds the truth has an error too.
        error = float(np.sqrt(0.95 * 0.05 / len(found)))
        met = LOW - error <= held <= HIGH + error
        target = f"{LOW} to {HIGH}"
        about = (target, met) if wanted is truth else ("", None)
        yield Figure(f"{name}: {words}", round(held, 3), f"± {error:.3f}", *about)
    bias, of_refitted = figure - truth, figure - refitted
    error = float(bias.std() / np.sqrt(len(found)))
    limit = (f"<= {OPTIMISM}", bool(bias.mean() - error <= OPTIMISM))
    about = limit if name.endswith(SELECTION) else ("", None)
    yield Figure(f"{name}: bias", round(float(bias.mean()), 4), f"± {error:.4f}", *about)
    yield Figure(f"{name}: bias for the refitted model", round(float(of_refitted.mean()), 4))
    yield Figure(f"{name}: optimistic bias", round(float((optimistic - truth).mean()), 4))
    yield Figure(f"{name}: mean width", round(float((high - low).mean()), 4))
    yield Figure(f"{name}: mean truth", round(float(truth.mean()), 4))


def simulate(name: str, tasks: int, workers: int) -> dict[str, list[Trial]]:
    """Return the trials of every line over many archives of one source."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "images").mkdir()
        (folder / "task.toml").write_text(TASK, "utf-8")
        one = partial(trials, folder, name)
        lines: dict[str, list[Trial]] = {}
        with ProcessPoolExecutor(max(1, workers)) as pool:
            for found in pool.map(one, range(tasks)) if workers else map(one, range(tasks)):
                for each in found:
                    lines.setdefault(each.line, []).append(each)
    return lines


def main(words: list[str] | None = None) -> None:
    """Run the simulation and print the table."""
    parser: argparse.ArgumentParser = arguments(__doc__, "interval_truth")
    parser.add_argument("--tasks", type=int, default=200, help="Archives to draw of each source.")
    parser.add_argument("--archive", action="append", choices=SOURCES, help="Repeatable.")
    parser.add_argument("--workers", type=int, default=cores(), help="Processes; 0: this one only.")
    options = parser.parse_args(words)
    before = load()
    figures: list[Figure] = []
    for name in options.archive or SOURCES:
        found = simulate(name, options.tasks, options.workers)
        figures += [each for line in found for each in summary(f"{name}, {line}", found[line])]
    report(options.json, figures, before)


if __name__ == "__main__":
    main()
