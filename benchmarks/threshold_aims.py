"""How often does a threshold hold the recall or the precision that it aims at?

    .venv/bin/python benchmarks/threshold_aims.py [--tasks 200] [--archive "plain, 400 rows"]...

Draws archives as benchmarks/interval_truth.py does, and a ridge probe chooses its threshold as
`archiveprobe threshold --recall 0.95` and `--precision 0.9` do. The truth is that of the model that
is refitted on all rows, on 20,000 new rows of the source; beside it stands how often the plain
threshold holds, the best one that reaches the aim on the labelled rows. `sure` is how often the
rule says that the labelled rows are enough: the share that holds is also given of those.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import Figure, arguments, cores, load, report
from drawn_archives import SOURCES, VIEWS, Drawn
from interval_truth import TASK, Linear, calibrated, dataset_of

from archiveprobe.evaluate.aims import CONFIDENCE
from archiveprobe.evaluate.calibration import CrossFitted
from archiveprobe.evaluate.review_load import review_load
from archiveprobe.evaluate.system import assemble
from archiveprobe.evaluate.threshold_curve import curve
from archiveprobe.evaluate.thresholding import final
from archiveprobe.probe.choice import Choice
from archiveprobe.probe.crossval import cross_validate
from archiveprobe.probe.features import Features
from archiveprobe.task.config import load_task

AIMS = {"recall": 0.95, "precision": 0.9}
LINE = "ridge a"
DEFAULT = ("plain, 150 rows", "plain, 400 rows", "plain, 1200 rows", "40 uneven groups")


@dataclass(frozen=True)
class Trial:
    """What one archive shows of one aim: the truth, the nested estimate, and the rows above."""

    aim: str
    truth: float
    plain: float
    estimate: float
    low: float
    high: float
    share: float
    sure: bool


def trials(folder: Path, name: str, seed: int) -> list[Trial]:
    """Choose thresholds on an archive of a source, and look at the truth."""
    source = SOURCES[name]
    drawn, fresh = source.archive(seed), source.fresh(seed)
    dataset = dataset_of(load_task(folder / "task.toml"), drawn, seed)
    x, probe = drawn.x[:, None, VIEWS[LINE]], Linear(LINE.split()[0])
    features = Features(Choice(("drawn",)), x, x[:0], {})
    held = cross_validate({LINE: probe.make}, features, dataset, workers=1)[LINE]
    margins = probe.margins(held, fresh.x[:, VIEWS[LINE]])
    found = []
    for aim, number in AIMS.items():
        rule = f"{aim} {number}"
        done = assemble(dataset, held.logits, held.unlabelled, {"system": LINE}, method=rule)
        rows = done.predictions
        p = calibrated(done, held.logits, margins)[0]
        parameters = CrossFitted(np.array(rows.origin["calibration"]))
        seen = done.calibration.apply(parameters.undo(rows.oof, rows.fold))[..., 1]
        about = (rows.labels, rows.decision, rows.fold, rows.groups, 1, p, rows.threshold)
        estimate = getattr(review_load(*about), aim)
        found.append(
            Trial(
                aim,
                true_share(aim, p > rows.threshold, fresh),
                true_share(aim, p > plain_threshold(aim, number, rows.labels, seen), fresh),
                estimate.estimate or np.nan,
                estimate.low or np.nan,
                estimate.high or np.nan,
                float(np.average(p > rows.threshold, weights=fresh.weight)),
                final(rows.labels, seen, rows.groups, 1, rule).bound >= number,
            )
        )
    return found


def true_share(aim: str, above: np.ndarray, fresh: Drawn) -> float:
    """Compute recall or precision of decisions (N,) on new rows."""
    hits = fresh.weight[above & (fresh.y == 1)].sum()
    of = fresh.weight[fresh.y == 1] if aim == "recall" else fresh.weight[above]
    return float(hits / of.sum()) if len(of) else np.nan


def plain_threshold(aim: str, number: float, y: np.ndarray, p: np.ndarray) -> float:
    """Find the best threshold that reaches an aim on the rows p (R, n) themselves."""
    points = curve(y, p)
    reached = points.thresholds[getattr(points, aim) >= number]
    if not len(reached):
        return float(points.thresholds[-1])
    return float(reached.max() if aim == "recall" else reached.min())


def summary(name: str, aim: str, found: list[Trial]) -> Iterator[Figure]:
    """Return the rows of the table about one aim in one source."""
    number = AIMS[aim]
    truth, plain, estimate, low, high, share = (
        np.array([getattr(each, part) for each in found])
        for part in ("truth", "plain", "estimate", "low", "high", "share")
    )
    sure = np.array([each.sure for each in found])
    error = f"± {np.sqrt(CONFIDENCE * (1 - CONFIDENCE) / len(found)):.3f}"
    about = f"{name}: {aim} {number}"
    yield Figure(f"{about}, holds", round(float((truth >= number).mean()), 3), error)
    if sure.any():
        yield Figure(f"{about}, holds where sure", round(float((truth[sure] >= number).mean()), 3))
    yield Figure(f"{about}, sure", round(float(sure.mean()), 3))
    yield Figure(f"{about}, a plain threshold holds", round(float((plain >= number).mean()), 3))
    covered = float(((low <= truth) & (truth <= high)).mean())
    yield Figure(f"{about}, interval holds the truth", round(covered, 3), error)
    yield Figure(f"{about}, estimate less truth", round(float(np.nanmean(estimate - truth)), 4))
    yield Figure(f"{about}, rows to review", round(float(share.mean()), 3))


def main(words: list[str] | None = None) -> None:
    """Run it."""
    parser = arguments(__doc__, "threshold_aims")
    parser.add_argument("--tasks", type=int, default=200, help="archives per source")
    parser.add_argument("--archive", action="append", choices=SOURCES, help="source; repeatable")
    parser.add_argument("--workers", type=int, default=None)
    given = parser.parse_args(words)
    before, figures = load(), []
    workers = cores() if given.workers is None else given.workers
    with TemporaryDirectory() as folder:
        (Path(folder) / "task.toml").write_text(TASK)
        for name in given.archive or DEFAULT:
            work = partial(trials, Path(folder), name)
            seeds = range(given.tasks)
            if workers > 1:
                with ProcessPoolExecutor(workers) as pool:
                    every = list(pool.map(work, seeds))
            else:
                every = list(map(work, seeds))
            for at, aim in enumerate(AIMS):
                figures += summary(name, aim, [each[at] for each in every])
    report(given.json, figures, before)


if __name__ == "__main__":
    main()
