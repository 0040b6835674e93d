"""What large tasks take: a table of 1,000,000 rows, 50,000 labelled rows, advice, scoring.

    .venv/bin/python benchmarks/large_task.py [--only rows|probes|advice|scoring]

Everything is drawn, without decoding an image. Each part runs in a process of its own, whose peak
of memory is what its kernel recorded. Processor time stands beside wall time, since a machine may
have other work.

- rows: every row has a file (links to a few small ones), a thumbnail, a line of the manifest with a
  digest of its own, and a row of a cache; some are labelled. Folds are assigned, and `embed` runs
  again, with nothing to do.
- probes: labelled rows with three backbones of 1,860 numbers together: the default leaderboard,
  then `audit`.
- advice: the nearest of 100,000 ids to a mistyped one.
- scoring: embeddings of 512 numbers, float16, through a linear system.
"""

import argparse
import hashlib
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
from common import Figure, arguments, at_least, at_most, cores, load, report, run, timed
from drawn import pin_caches, small_image, write_task
from probe_speed import draw_points, see
from threadpoolctl import threadpool_limits

from archiveprobe.base.nearest import nearest_name
from archiveprobe.cache.spec import folder_name
from archiveprobe.cache.store import Writer
from archiveprobe.embed.backbones import resolve
from archiveprobe.embed.fingerprint import request
from archiveprobe.embed.run import Options as EmbedOptions
from archiveprobe.embed.run import embed
from archiveprobe.evaluate.system_names import systems
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.predict.systems import logits_of_matrix, model_of
from archiveprobe.probe.audit.run import run_audit
from archiveprobe.probe.choice import Choice
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.decoding import Observation
from archiveprobe.task.folds import ensure_folds
from archiveprobe.task.manifest import Entry, read_manifest, write_manifest
from archiveprobe.task.rows import read_rows

WIDTHS = {"drawn-a": 512, "drawn-b": 640, "drawn-c": 708}
_LABELS = ("intact", "destroyed")
# A file has 65,000 names at most.
_NAMES_PER_FILE = 30_000


def draw_table(folder: Path, rows: int, labelled: int) -> Task:
    """Draw a task of `rows` images, as `embed` leaves it, but for its folds."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 63, rows, dtype=np.uint64) << 1 | rng.integers(0, 2, rows, "u8")
    entries, lines = [], ["image,label"]
    for part in range(256):
        (folder / "work" / "thumbs" / f"{part:02x}").mkdir(parents=True)
    for at in range(rows):
        if at % _NAMES_PER_FILE == 0:
            source = folder / f"source-{at}.jpg"
            source.write_bytes(small_image(at))
            os.utime(source, (1e9, 1e9))
            facts = source.stat()
        name, digest = f"{at // 1000:04}/{at:07}.jpg", hashlib.sha256(str(at).encode()).hexdigest()
        if at % 1000 == 0:
            (folder / "images" / name).parent.mkdir(parents=True)
        os.link(source, folder / "images" / name)
        os.link(source, folder / "work" / "thumbs" / digest[:2] / f"{digest}.jpg")
        seen = Observation(
            "ok",
            bytes=facts.st_size,
            width=64,
            height=64,
            format="JPEG",
            frames=1,
            orientation=1,
            exif=0,
            border=0.0,
            red=at % 251 + 0.5,
            green=at % 241 + 0.25,
            blue=at % 239 + 0.125,
            phash=f"{int(hashes[at]):016x}",
        )
        entries.append(Entry(name, name, digest, seen, facts.st_mtime_ns, facts.st_ino))
        lines.append(f"{name},{_LABELS[at % 2] if at < labelled else ''}")
    (folder / "labels.csv").write_text("\n".join([*lines, ""]))
    task = load_task(write_task(folder, ["hog"], "center", 'table = "labels.csv"'))
    fingerprint = {"backbone": "hog", "precision": "fp32"}
    home = task.work / "cache" / folder_name("hog", fingerprint)
    with Writer.open(home, fingerprint, request(task, resolve("hog", task))) as writer:
        for entry in entries:
            writer.add(bytes.fromhex(entry.digest), np.ones((1, 2)))
    write_manifest(task, entries)
    pin_caches(task)
    return task


def draw_embeddings(folder: Path, labelled: int, rows: int, widths: dict[str, int]) -> Task:
    """Draw a task of labelled rows and rows to predict with a cache per backbone, one view each."""
    folder.mkdir(parents=True, exist_ok=True)
    points, y = draw_points(labelled + rows)
    names = [f"{at:07}.jpg" for at in range(len(y))]
    lines = [f"{name},{_LABELS[y[at]] if at < labelled else ''}" for at, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *lines, ""]))
    task = load_task(write_task(folder, list(widths), "center", 'table = "labels.csv"'))
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    hashes = np.random.default_rng(5).integers(0, 1 << 63, len(y), dtype=np.uint64)
    entries = [
        Entry(name, name, digest, _seen(at, int(hashes[at])))
        for at, (name, digest) in enumerate(zip(names, digests, strict=True))
    ]
    for name, width in widths.items():
        fingerprint = {"backbone": name}
        home = task.work / "cache" / folder_name(name, fingerprint)
        with Writer.open(home, fingerprint, {"asked": task.asks(name)}) as writer:
            for digest, embedding in zip(digests, see(points, width), strict=True):
                writer.add(bytes.fromhex(digest), embedding)
    write_manifest(task, entries)
    pin_caches(task)
    return task


def _seen(at: int, phash: int) -> Observation:
    rng = np.random.default_rng(at)
    colours = rng.uniform(0, 255, 3).round(2).tolist()
    size = int(rng.integers(10_000, 900_000))
    return Observation("ok", "", size, 1080, 1350, "JPEG", 1, 1, 0, 0.0, *colours, f"{phash:016x}")


def measure_folds(folder: Path) -> dict[str, Any]:
    """Assign the folds of a drawn table, and write its manifest."""
    task = load_task(folder)
    entries = read_manifest(task)
    rows = read_rows(task)
    _, written = timed(lambda: write_manifest(task, entries))
    _, assigned = timed(lambda: ensure_folds(task, rows, entries))
    return {"manifest": written, "folds": assigned}


def measure_embed(folder: Path) -> dict[str, Any]:
    """Run `embed` where nothing is to do."""
    summary = embed(load_task(folder), EmbedOptions())
    return {"reused": summary.reused}


def measure_leaderboard(folder: Path) -> dict[str, Any]:
    """Return what the default leaderboard took, and each probe's processor time."""
    task, said = load_task(folder), []
    board = run_probes(task, Options(), notify=said.append)
    costs = {}
    for system in systems(task):
        record = load_run(task, system).record
        if record.get("kind") == "probe":
            costs[record["probe"]] = record["seconds"]
    lines = {line.system: [line.macro_f1, line.low, line.high] for line in board.lines}
    return {"costs": costs, "lines": lines, "said": said}


def measure_audit(folder: Path) -> dict[str, Any]:
    """Run the audit."""
    found = run_audit(load_task(folder))
    return {"warnings": len(found.warnings)}


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "folds": measure_folds,
    "embed": measure_embed,
    "leaderboard": measure_leaderboard,
    "audit": measure_audit,
}


def child(words: Sequence[str]) -> None:
    """Run one part in this process; its figures, time and largest memory as JSON."""
    part, folder = words
    started = time.perf_counter()
    found = PARTS[part](Path(folder))
    found["seconds"] = time.perf_counter() - started
    found["processor"] = time.process_time()
    found["gigabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(found))


def alone(part: str, folder: Path) -> dict[str, Any]:
    """Run a part in a fresh process."""
    found, _ = run("--child", part, folder, program=(str(Path(__file__).resolve()),))
    return cast(dict[str, Any], found)


def rows_figures(folder: Path, rows: int, labelled: int) -> Iterator[Figure]:
    """Yield what a large table takes."""
    draw_table(folder, rows, labelled)
    what = f"{rows:,} rows, {labelled:,} labelled"
    found = alone("folds", folder)
    yield Figure(f"{what}: manifest written", round(found["manifest"], 1), "s")
    yield Figure(f"{what}: folds assigned", round(found["folds"], 1), "s")
    # The first brings the snapshot up to date with the folds.
    alone("embed", folder)
    yield from _bounded(f"{what}: embed with nothing to do", alone("embed", folder), 30, 2)


def probes_figures(folder: Path, labelled: int, widths: dict[str, int]) -> Iterator[Figure]:
    """Yield what the leaderboard and the audit take."""
    draw_embeddings(folder, labelled, labelled // 25, widths)
    what = f"{labelled:,} labelled rows x {sum(widths.values()):,}"
    found = alone("leaderboard", folder)
    yield from _bounded(f"{what}: default leaderboard", found, 300, 4)
    for probe, seconds in found["costs"].items():
        yield Figure(f"of which {probe}", round(seconds, 1), "s of one core")
    yield from _bounded(f"{what}: audit", alone("audit", folder), 60, 4)


def _bounded(what: str, found: dict[str, Any], seconds: float, memory: float) -> Iterator[Figure]:
    yield at_most(what, round(found["seconds"], 1), seconds, "s")
    yield Figure(f"{what}, processor time", round(found["processor"], 1), "s")
    yield at_most(f"{what}, peak memory", round(found["gigabytes"], 2), memory, "GB")


def advice_figures(count: int) -> Iterator[Figure]:
    """Yield how long the nearest of many ids takes."""
    ids = [f"films/{at // 100:05}/frame-{at:07}.jpg" for at in range(count)]
    word = f"films/{count // 200:05}/fraem-{count // 2:07}.jpg"
    name, seconds = timed(lambda: nearest_name(word, ids, 0.5))
    assert name == word.replace("fraem", "frame")
    yield at_most(f"nearest of {count:,} ids", round(seconds, 2), 0.5, "s")


def scoring_figures(count: int, width: int) -> Iterator[Figure]:
    """Yield how fast a linear system scores embeddings that are in memory, on all cores."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((count, width), np.float32).astype(np.float16)[:, None]
    coef, intercept = rng.normal(size=(1, width, 2)), rng.normal(size=(1, 2))
    record = {"probe": "ridge", "classes": list(_LABELS)}
    model = model_of(record, {"weights": np.ones(1), "coef": coef, "intercept": intercept})
    choice, parts = Choice(("drawn",)), np.array_split(rows, max(1, count // 4096))

    def score(part: np.ndarray) -> np.ndarray:
        return logits_of_matrix(model, choice, part, 2)

    with threadpool_limits(1), ThreadPoolExecutor(max(1, cores())) as pool:
        found, seconds = timed(lambda: np.concatenate([*pool.map(score, parts)]))
    wanted = rows[:1000, 0].astype(np.float64) @ coef[0] + intercept[0]
    yield at_least(f"rows of {width} scored", round(count / seconds), 1_000_000, "rows/s")
    yield at_most("farthest logit", float(np.abs(found[:1000] - wanted).max()), 1e-9)


def main(words: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = arguments(__doc__, "large_task")
    parser.add_argument("--only", choices=("rows", "probes", "advice", "scoring"))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--labelled", type=int, default=50_000)
    parser.add_argument("--ids", type=int, default=100_000)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    settings = parser.parse_args(words)
    if settings.child:
        child(settings.child)
        return
    before, figures = load(), []
    parts: dict[str, Callable[[Path], Iterator[Figure]]] = {
        "advice": lambda _: advice_figures(settings.ids),
        "scoring": lambda _: scoring_figures(min(settings.rows, 200_000), 512),
        "rows": lambda folder: rows_figures(folder, settings.rows, settings.labelled),
        "probes": lambda folder: probes_figures(folder, settings.labelled, WIDTHS),
    }
    for name, measure in parts.items():
        if settings.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                figures += measure(Path(folder))
    report(settings.json, figures, before)


if __name__ == "__main__":
    main()
