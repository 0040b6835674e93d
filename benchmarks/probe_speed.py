"""How fast probes are: the paths against scikit-learn, many rows, and the default leaderboard.

Everything is drawn: images are points of a few dimensions, seen through random directions of a
decaying spectrum, one slightly different view after the other; labels depend on the points, with
noise. Each part says what it measures. The grid is CLIP's (Radford et al., 2021): C from 1e-6 to
1e6, here at 97 points. scikit-learn's logistic regression is timed on some of the 25 training parts
and scaled to all of them: as it comes (a loop, its own threads), and on one thread, which is
compared with the processor time of our paths.
"""

import argparse
import json
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from common import Figure, arguments, at_least, at_most, load, report, run, timed
from drawn import pin_caches
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from archiveprobe.cache.spec import folder_name
from archiveprobe.cache.store import Writer
from archiveprobe.evaluate.dataset import Dataset, Rows
from archiveprobe.evaluate.system_names import systems
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.probe.base import Probe
from archiveprobe.probe.choice import Choice
from archiveprobe.probe.crossval import ProbeResult, cross_validate
from archiveprobe.probe.features import Features
from archiveprobe.probe.linear import Logistic, Ridge
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.probe.selection import average_good
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.decoding import Observation
from archiveprobe.task.manifest import Entry, write_manifest

_POINTS = 32
_BACKBONES = {"clip-vit-b32": 512, "convnextv2-nano-384": 640, "mobilenetv2": 1280}
_GRID = np.logspace(-6, 6, 97)
_EXACT = 41  # The points up to C = 0.1.
_ALPHAS = np.logspace(-6, 6, 97)


def draw_points(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, _POINTS) and labels (n,), about 35 % of them 1."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, _POINTS))
    score = 2.2 * points[:, :6].sum(1) / np.sqrt(6) + rng.logistic(size=n) * 0.6
    return points, (score > np.quantile(score, 0.65)).astype(np.int64)


def see(points: np.ndarray, width: int, views: int = 1, seed: int = 0) -> np.ndarray:
    """Embeddings (n, views, width) float32 of points."""
    rng = np.random.default_rng([seed, width])
    turn = rng.normal(size=(_POINTS, width))
    decay = (rng.normal(size=(width, width)) / (1 + np.arange(width)[:, None]) ** 0.5).astype("f4")
    own = rng.standard_normal((len(points), width), "f4") @ decay
    views_noise = rng.standard_normal((len(points), views, width), "f4")
    signal = (points @ turn).astype("f4") / np.float32(np.sqrt(_POINTS))
    return (signal + own)[:, None] + np.float32(0.5) * views_noise


def draw_dataset(y: np.ndarray, repeats: int) -> Dataset:
    """Return rows without a task: enough for cross-validation."""
    rng = np.random.default_rng(1)
    n = len(y)
    fold = np.stack([rng.permutation(n) % 5 for _ in range(repeats)])
    ids = np.arange(n).astype(np.str_)
    rows, none = Rows(ids, [None] * n, [None] * n), Rows(ids[:0], [], [])
    return Dataset(
        cast(Task, None), ("intact", "destroyed"), 1, 0, rows, y, np.arange(n), fold, none
    )


def fit(probe: Probe, x: np.ndarray, dataset: Dataset, workers: int | None = None) -> ProbeResult:
    """Cross-validate one probe on embeddings (n, d)."""
    features = Features(Choice(("drawn",)), x[:, None], np.empty((0, 1, x.shape[1]), "f4"), {})
    makes = {"probe": lambda: type(probe)(**probe.get_params())}
    return cross_validate(makes, features, dataset, workers=workers)["probe"]


def peers_part(
    x: np.ndarray, y: np.ndarray, outside: np.ndarray, grid: np.ndarray, tol: float = 1e-4
) -> np.ndarray:
    """scikit-learn's probabilities (c, rows) for the rows of one fold, at every C of the grid."""
    # In float32 it stops far from its optimum.
    x = x.astype(np.float64)
    scaler = StandardScaler().fit(x[outside])
    train, rest = scaler.transform(x[outside]), scaler.transform(x[~outside])
    return np.stack(
        [
            LogisticRegression(C=c, tol=tol, max_iter=100_000)
            .fit(train, y[outside])
            .predict_proba(rest)[:, 1]
            for c in grid
        ]
    )


def measure_paths(n: int, width: int, parts: int) -> list[Figure]:
    """Return 97 penalties on 5 x 5 folds: both paths, and scikit-learn's logistic regression."""
    points, y = draw_points(n)
    x = see(points, width)[:, 0]
    dataset = draw_dataset(y, 5)
    logistic, fast = timed(lambda: fit(Logistic(Cs=tuple(_GRID)), x, dataset))
    ridge, faster = timed(lambda: fit(Ridge(alphas=tuple(_ALPHAS)), x, dataset))
    outsides = [dataset.fold[0] != fold for fold in range(parts)]
    theirs, slow = timed(lambda: [peers_part(x, y, outside, _GRID) for outside in outsides])
    with threadpool_limits(1):
        _, alone = timed(lambda: peers_part(x, y, outsides[0], _GRID))
    # Ours fit all rows as well.
    whole = 25 + 1 / 0.8
    slow, alone = slow * whole / parts, alone * whole
    rows = np.flatnonzero(dataset.fold[0] < parts)
    peer = peers_score(y, rows, dataset.fold[0], theirs)
    lost = [
        peer - f1_score(y[rows], one.logits[0, rows].argmax(1), average="macro")
        for one in (logistic, ridge)
    ]
    return [
        Figure("scikit-learn LogisticRegression", round(slow, 1), f"s, from {parts} of 25 parts"),
        Figure("the same, one thread", round(alone, 1), "s, from 1 of 25 parts"),
        Figure("logistic path", round(fast, 2), "s"),
        Figure("least-squares path", round(faster, 2), "s"),
        Figure("logistic path against scikit-learn", round(slow / fast, 1), "times as fast"),
        at_least("least squares against it", round(slow / faster, 1), 20, "times as fast"),
        Figure("logistic path, by processor time", round(alone / logistic.seconds, 1), "times"),
        Figure("least squares, by processor time", round(alone / ridge.seconds, 1), "times"),
        Figure("macro-F1 of scikit-learn on those rows", round(float(peer), 4)),
        at_most("macro-F1 lost by the logistic path", round(float(lost[0]), 4), 0.002),
        at_most("macro-F1 lost by least squares", round(float(lost[1]), 4), 0.002),
        Figure("largest difference of probabilities", farthest(x, y, outsides[0])),
    ]


def peers_score(
    y: np.ndarray, rows: np.ndarray, fold: np.ndarray, theirs: Sequence[np.ndarray]
) -> float:
    """Return Macro-F1 of scikit-learn's path, averaged over its good penalties as ours is."""
    path = np.full((len(_GRID), len(y)), np.nan)
    for number, found in enumerate(theirs):
        path[:, fold == number] = np.clip(found, 1e-12, 1 - 1e-12)
    margins = np.log(path[:, rows]) - np.log1p(-path[:, rows])
    held = np.stack([-margins / 2, margins / 2], 2)
    averaged = np.tensordot(average_good(held, y[rows]), held, 1)
    return float(f1_score(y[rows], averaged.argmax(1), average="macro"))


def farthest(x: np.ndarray, y: np.ndarray, outside: np.ndarray) -> float:
    """Between the path and scikit-learn run to the end, where ours is exact, in one part."""
    exact = slice(0, _EXACT, 10)
    theirs = peers_part(x, y, outside, _GRID[exact], 1e-12)
    model = Logistic(Cs=tuple(_GRID)).fit_path(x[outside], y[outside])
    return float(np.abs(softmax(model.path_logits(x[~outside])[exact], 2)[..., 1] - theirs).max())


def many_rows(n: int, width: int) -> dict[str, float]:
    """Both linear paths on many rows, 5 folds, once."""
    points, y = draw_points(n)
    x = see(points, width)[:, 0]
    dataset = draw_dataset(y, 1)
    features = Features(Choice(("drawn",)), x[:, None], np.empty((0, 1, width), "f4"), {})
    makes = {"ridge": Ridge, "logistic": Logistic}
    held, seconds = timed(lambda: cross_validate(makes, features, dataset))
    score = f1_score(y, held["logistic"].logits[0].argmax(1), average="macro")
    return {"seconds": seconds, "macro_f1": float(score)}


def draw_task(folder: Path, labelled: int, rows: int) -> Task:
    """Return a task with three caches of six views."""
    points, y = draw_points(labelled + rows)
    lines = [
        f"{at:05}.jpg,{('intact', 'destroyed')[y[at]] if at < labelled else ''}"
        for at in range(len(y))
    ]
    (folder / "labels.csv").write_text("\n".join(["image,label", *lines, ""]))
    (folder / "task.toml").write_text(
        'name = "benchmark"\nlabels = ["intact", "destroyed"]\n[images]\ntable = "labels.csv"\n'
        f"[folds]\ngroup = 'none'\ncount = 5\nrepeats = 5\n"
        f"[embed]\nbackbones = {json.dumps(list(_BACKBONES))}\n"
    )
    task = load_task(folder)
    entries = [
        Entry(f"{at:05}.jpg", f"{at:05}.jpg", f"{at:064x}", Observation("ok"))
        for at in range(len(y))
    ]
    for name, width in _BACKBONES.items():
        fingerprint = {"backbone": name}
        home = task.work / "cache" / folder_name(name, fingerprint)
        with Writer.open(home, fingerprint, {"asked": task.asks(name)}) as writer:
            for entry, embedding in zip(entries, see(points, width, 6), strict=True):
                writer.add(bytes.fromhex(entry.digest), embedding)
    write_manifest(task, entries)
    pin_caches(task)
    return task


def leaderboard(folder: Path) -> dict[str, Any]:
    """Return the default leaderboard of a drawn task, and what each probe cost."""
    task = load_task(folder)
    _, seconds = timed(lambda: run_probes(task, Options()))
    costs = {}
    for system in systems(task):
        record = load_run(task, system).record
        if record.get("kind") == "probe":
            costs[record["probe"]] = record["seconds"]
    return {"seconds": seconds, "costs": costs}


def child(words: Sequence[str]) -> None:
    """Return one part in this process; its figures and its largest memory as JSON."""
    part, *rest = words
    if part == "leaderboard":
        found = leaderboard(Path(rest[0]))
    else:
        found = many_rows(int(rest[0]), int(rest[1]))
    found["gigabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(found))


def measure_alone(*words: str | Path) -> dict[str, Any]:
    """Return a part in a fresh process."""
    done, _ = run("--child", *words, program=(str(Path(__file__).resolve()),))
    return cast(dict[str, Any], done)


def main(words: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = arguments(__doc__, "probe_speed")
    parser.add_argument("--parts", type=int, default=5, help="parts that scikit-learn is timed on")
    parser.add_argument("--only", choices=("paths", "rows", "leaderboard"))
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    settings = parser.parse_args(words)
    if settings.child:
        child(settings.child)
        return
    before, figures = load(), []
    if settings.only in (None, "paths"):
        figures += measure_paths(1600, 1280, settings.parts)
    if settings.only in (None, "rows"):
        found = measure_alone("rows", "100000", "512")
        figures += [
            at_most("100,000 rows x 512, both linear paths", round(found["seconds"], 1), 60, "s"),
            at_most("its peak memory", round(found["gigabytes"], 2), 4, "GB"),
            Figure("its macro-F1", round(found["macro_f1"], 4)),
        ]
    if settings.only in (None, "leaderboard"):
        with tempfile.TemporaryDirectory() as name:
            draw_task(Path(name), 1600, 402)
            found = measure_alone("leaderboard", name)
        figures += [
            at_most("default leaderboard, 1,600 rows", round(found["seconds"], 1), 60, "s"),
            at_most("its peak memory", round(found["gigabytes"], 2), 1.5, "GB"),
        ]
        figures += [
            Figure(f"of which {name}", round(cost, 1), "s of one core")
            for name, cost in found["costs"].items()
        ]
    report(settings.json, figures, before)


if __name__ == "__main__":
    main()
