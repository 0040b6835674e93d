"""Do intervals hold the truth, and are nested figures unbiased? Answered where the truth is known.

    .venv/bin/python benchmarks/interval_truth.py [--tasks 500] [--rows 400] [--source usual|hard]

Draws small archives from a known distribution (two Gaussian classes seen through two backbones,
mislabelled rows, a fifth near-duplicates in groups) and runs on each what `archiveprobe probe`
runs: cross_validate, assemble and leaderboard, 5 x 5 grouped folds, linear probes on one backbone
and on both, and their ensemble. The truth of a line is the mean true macro-F1 of its fold models,
each at its own cut; for a linear model it follows from the distribution without drawing a row. The
refitted model's truth is held against the same intervals. Takes about ten minutes on two cores.
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
from common import Figure, arguments, at_most, cores, load, report  # noqa: E402
from scipy.special import expit, logit, ndtr  # noqa: E402

from evaluate import calibration, threshold  # noqa: E402
from evaluate.dataset import Dataset, Rows  # noqa: E402
from evaluate.ensemble import combine  # noqa: E402
from evaluate.leaderboard import SELECTED, leaderboard, nested_figure, picks  # noqa: E402
from evaluate.metrics import from_confusion  # noqa: E402
from evaluate.predictions import Predictions  # noqa: E402
from evaluate.system import Assembled, assemble  # noqa: E402
from probe.base import Probe  # noqa: E402
from probe.crossval import Held, cross_validate  # noqa: E402
from probe.features import Choice, Features  # noqa: E402
from probe.table import make_probe  # noqa: E402
from task.config import Task, load_task  # noqa: E402
from task.cut import balanced_cut  # noqa: E402

FOLDS, REPEATS = 5, 5
FRESH = 10_000
MISLABELLED = 0.02
DUPLICATES = 0.2
LIKENESS = 0.98
BIAS_LIMIT = 0.003
WIDTH = 24
TELLING = slice(6, 18)
BACKBONES = {"a": slice(0, 16), "b": slice(8, 24), "a+b": slice(0, WIDTH)}
# Shorter paths than the defaults, which cost most of the time and say the same.
PROBES: dict[str, dict[str, Any]] = {
    "ridge": {"alphas": tuple(np.logspace(0, 4, 9))},
    "lda": {"shrinkages": (0.01, 0.1, 0.3, 0.6, 0.9)},
    "logistic": {"Cs": tuple(np.logspace(-4, -1, 7))},
}
OTHER_CUTS = ("exact", "grid", "half")
TASK = 'name = "drawn"\nlabels = ["intact", "destroyed"]\npositive = "destroyed"\n'


@dataclass(frozen=True)
class Source:
    """A distribution of rows: two Gaussian classes, `distance` apart in the columns TELLING.

    Each of the two backbones sees most of these columns, so that all lines are nearly as good.
    """

    prevalence: float
    distance: float

    def mean(self) -> np.ndarray:
        """Half the way (d,) from one class to the other."""
        way = np.zeros(WIDTH)
        way[TELLING] = self.distance / 2 / np.sqrt(TELLING.stop - TELLING.start)
        return way

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Fresh rows (n, d) and their labels (n,)."""
        noise, middle, y = self._parts(rng, n)
        return noise + middle, y

    def _parts(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Noise and class means (n, d) of fresh rows, and their labels (n,)."""
        true = rng.random(n) < self.prevalence
        middle = np.where(true, 1, -1)[:, None] * self.mean()
        y = (true ^ (rng.random(n) < MISLABELLED)).astype(np.int64)
        return rng.standard_normal((n, WIDTH)), middle, y

    def archive(self, seed: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows (n, d), labels and groups (n,); a fifth are near-copies of an earlier row."""
        rng = np.random.default_rng([seed, 1])
        noise, middle, y = self._parts(rng, n)
        groups = np.arange(n)
        for row in np.flatnonzero(rng.random(n) < DUPLICATES)[1:]:
            like = rng.integers(row)
            groups[row], y[row], middle[row] = groups[like], y[like], middle[like]
            # A copy alone must look like any other row, or the archive is harder than the truth.
            noise[row] = LIKENESS * noise[like] + np.sqrt(1 - LIKENESS**2) * noise[row]
        return noise + middle, y, groups

    def score(self, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The true macro-F1 (...) of deciding x @ w + b > 0, for w (..., d) and b (...)."""
        size = np.maximum(np.sqrt((w**2).sum(-1)), 1e-300)
        way = w @ self.mean()
        hit, alarm = ndtr((b + way) / size), ndtr((b - way) / size)
        cells = np.zeros((*np.shape(b), 2, 2))
        for true, share, above in ((1, self.prevalence, hit), (0, 1 - self.prevalence, alarm)):
            for label in (0, 1):
                weight = share * (1 - MISLABELLED if label == true else MISLABELLED)
                cells[..., label, 1] += weight * above
                cells[..., label, 0] += weight * (1 - above)
        return from_confusion(cells)["macro_f1"]


SOURCES = {"usual": Source(0.353, 2.8), "hard": Source(0.2, 1.8)}


def dataset_of(task: Task, source: Source, seed: int, n: int) -> tuple[Dataset, np.ndarray]:
    """A drawn archive as a dataset with folds, and its embeddings (n, d)."""
    x, y, groups = source.archive(seed, n)
    cut = balanced_cut(y, groups, [None] * n, folds=FOLDS, repeats=REPEATS, seed=seed)
    ids = np.array([f"{row}.jpg" for row in range(n)])
    fold, rows, none = np.array(cut).T, Rows(ids, [], []), Rows(ids[:0], [], [])
    return Dataset(task, task.labels, 1, 0, rows, y, groups, fold, none), x


@dataclass
class Linear:
    """A probe on one choice of backbones, cross-validated by the project, its models kept."""

    name: str
    choice: str
    made: list[Probe] = field(default_factory=list)

    def make(self) -> Probe:
        """The next probe; the first is fitted on all rows, the others on the parts in order."""
        self.made.append(make_probe(self.name, **PROBES[self.name]))
        return self.made[-1]

    def models(self, held: Held) -> tuple[np.ndarray, np.ndarray]:
        """Margins' slopes (1 + R * folds, d) and intercepts, candidates averaged as `held` says."""
        weights = np.concatenate([held.final[None], held.weights.reshape(-1, len(held.final))])
        slopes = np.zeros((len(self.made), WIDTH))
        for at, (model, own) in enumerate(zip(self.made, weights, strict=True)):
            slopes[at, BACKBONES[self.choice]] = np.tensordot(own, np.diff(model.coef_)[..., 0], 1)
        levels = [np.diff(model.intercept_)[:, 0] for model in self.made]
        return slopes, (np.array(levels) * weights).sum(1)


@dataclass(frozen=True)
class Scored:
    """A system, and the true macro-F1 (1 + R * folds,) of its models, the refitted one first.

    `w` (1 + R * folds, d) and `b` give a linear model's calibrated margins.
    """

    predictions: Predictions
    scores: np.ndarray
    w: np.ndarray
    b: np.ndarray

    @property
    def truth(self) -> np.ndarray:
        """Of the fold models, (R, folds)."""
        return self.scores[1:].reshape(self.predictions.cuts.shape)


def scale_of(done: Assembled, logits: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Platt's slope and intercept (1 + R * folds, 2), those of the refitted model first."""
    held = calibration.cross_fitted(logits, dataset.labels, dataset.fold).parameters
    return np.concatenate([np.array(done.calibration.parameters)[None], held.reshape(-1, 2)])


def probe_line(dataset: Dataset, x: np.ndarray, source: Source, one: Linear, rank: int) -> Scored:
    """Cross-validate and assemble a probe, and score its models."""
    embedded = x[:, None, BACKBONES[one.choice]]
    features = Features(Choice((one.choice,)), embedded, embedded[:0], {})
    system = f"{one.name} {one.choice}"
    held = cross_validate({system: one.make}, features, dataset, workers=1)[system]
    about = {"system": system, "complexity": rank}
    done = assemble(dataset, held.logits, held.unlabelled, about)
    scale = scale_of(done, held.logits, dataset)
    slopes, levels = one.models(held)
    w, b = scale[:, :1] * slopes, scale[:, 0] * levels + scale[:, 1]
    return Scored(done.predictions, source.score(w, b - logit(cuts_of(done.predictions))), w, b)


def cuts_of(predictions: Predictions) -> np.ndarray:
    """The final cut and those of the folds, (1 + R * folds,)."""
    return np.append(predictions.cut, predictions.cuts.ravel())


def ensemble_line(dataset: Dataset, source: Source, members: list[Scored], seed: int) -> Scored:
    """The mean of all lines; its models are not linear, so fresh rows score them."""
    combined = combine([one.predictions for one in members], "mean")
    about = {"system": "mean", "complexity": 1000}
    done = assemble(dataset, combined.logits, combined.unlabelled, about)
    scale = scale_of(done, combined.logits, dataset)
    x, y = source.rows(np.random.default_rng([seed, 2]), FRESH)
    # The same rows score a linear model, whose true score is known: what they flatter is removed.
    known = members[0]
    scores = np.empty(len(scale))
    for at, cut in enumerate(cuts_of(done.predictions)):
        margins = np.zeros(FRESH)
        for one in members:
            p = np.clip(expit(x @ one.w[at] + one.b[at]), 1e-7, 1 - 1e-7)
            margins += logit(p) / len(members)
        decided = expit(scale[at, 0] * margins + scale[at, 1])
        level = known.b[at] - logit(cuts_of(known.predictions)[at])
        flattered = threshold.score_at(y == 1, x @ known.w[at] + level, 0.0)
        own = threshold.score_at(y == 1, decided, cut)
        scores[at] = own - flattered + source.score(known.w[at], level)
    return Scored(done.predictions, scores, np.empty(0), np.empty(0))


@dataclass(frozen=True)
class Trial:
    """One archive, one line: nested and naive figure, interval, and the two truths."""

    line: str
    nested: float
    naive: float
    low: float
    high: float
    truth: float
    refitted: float


def trials(folder: Path, source: Source, rows: int, seed: int) -> list[Trial]:
    """Draw an archive, run everything on it, and look at the truth of every line."""
    task = load_task(folder / "task.toml")
    dataset, x = dataset_of(task, source, seed, rows)
    lines = [
        probe_line(dataset, x, source, Linear(name, choice), rank)
        for rank, (choice, name) in enumerate((c, p) for c in BACKBONES for p in PROBES)
    ]
    lines.append(ensemble_line(dataset, source, lines, seed))
    systems = [one.predictions for one in lines]
    board = leaderboard(systems, seconds=0.0)
    picked = picks(systems)
    by_name = {one.predictions.system: one for one in lines}
    truths = {name: (one.truth.mean(), one.scores[0]) for name, one in by_name.items()}
    chosen = np.take_along_axis(np.stack([one.truth for one in lines]), picked[None], 0)
    truths[SELECTED] = (chosen.mean(), by_name[board.best].scores[0])
    shown = [
        Trial(line.system, line.macro_f1, line.naive, line.low, line.high, *truths[line.system])
        for line in board.lines
    ]
    return shown + [other_cut(by_name["ridge a+b"], source, method) for method in OTHER_CUTS]


def other_cut(one: Scored, source: Source, method: str) -> Trial:
    """The line of a system with its cuts found in another way."""
    rows = one.predictions
    p = rows.oof[..., 1]
    found = threshold.nested(rows.labels, p, rows.fold, rows.groups, 1, method)
    cut = threshold.final(rows.labels, p, rows.groups, 1, method)
    truth = source.score(one.w, one.b - logit(np.append(cut.value, found.cuts.ravel())))
    score, low, high = nested_figure(rows, found.decision)
    name = f"{rows.system}, {method} cut"
    return Trial(name, score, cut.score, low, high, float(truth[1:].mean()), float(truth[0]))


def summary(name: str, found: list[Trial]) -> Iterator[Figure]:
    """The rows of the table about one line."""
    low, high, truth, refitted, nested, naive = (
        np.array([getattr(each, part) for each in found])
        for part in ("low", "high", "truth", "refitted", "nested", "naive")
    )
    bias = nested - truth
    cover = float(((low <= truth) & (truth <= high)).mean())
    of_refitted = float(((low <= refitted) & (refitted <= high)).mean())
    error = bias.std() / np.sqrt(len(found))
    yield Figure(f"{name}: cover", round(cover, 3), "", "0.93 to 0.97", 0.93 <= cover <= 0.97)
    yield Figure(f"{name}: cover of the refitted model", round(of_refitted, 3))
    yield at_most(f"{name}: size of the nested bias", round(abs(float(bias.mean())), 4), BIAS_LIMIT)
    yield Figure(f"{name}: nested bias", f"{bias.mean():+.4f} ± {error:.4f}")
    yield Figure(f"{name}: naive bias", f"{(naive - truth).mean():+.4f}")
    yield Figure(f"{name}: mean width", round(float((high - low).mean()), 4))
    yield Figure(f"{name}: truth and refitted, mean", f"{truth.mean():.4f}, {refitted.mean():.4f}")


def simulate(source: Source, tasks: int, rows: int, workers: int) -> dict[str, list[Trial]]:
    """The trials of every line over many archives."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "images").mkdir()
        (folder / "task.toml").write_text(TASK, "utf-8")
        one = partial(trials, folder, source, rows)
        lines: dict[str, list[Trial]] = {}
        with ProcessPoolExecutor(max(1, workers)) as pool:
            for found in pool.map(one, range(tasks)) if workers else map(one, range(tasks)):
                for each in found:
                    lines.setdefault(each.line, []).append(each)
    return lines


def main(words: list[str] | None = None) -> None:
    """Run the simulation and print the table."""
    parser: argparse.ArgumentParser = arguments(__doc__, "interval_truth")
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--source", choices=SOURCES, default="usual")
    options = parser.parse_args(words)
    before = load()
    found = simulate(SOURCES[options.source], options.tasks, options.rows, cores())
    report(options.json, [each for name in found for each in summary(name, found[name])], before)


if __name__ == "__main__":
    main()
