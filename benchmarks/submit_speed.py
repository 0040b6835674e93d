"""How long `submit` takes from stored systems, in a fresh process, start and imports included.

Draws a cache of embeddings (1,600 labelled rows and 402 to predict, 1,280 wide, six views), fits a
logistic and a ridge probe and their mean once, and then times whole processes, each several times.
"""

import argparse
import hashlib
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from common import Figure, arguments, at_most, exactly, load, report, run
from drawn import pin_caches

from archiveprobe.cache.spec import folder_name
from archiveprobe.cache.store import Writer
from archiveprobe.evaluate.ensemble import run_ensemble
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.decoding import Observation
from archiveprobe.task.manifest import Entry, write_manifest

_SUBMIT = """
import json, sys, time
from pathlib import Path
from archiveprobe.predict.submission import submit
from archiveprobe.task.config import load_task
done = submit(load_task(Path(sys.argv[1])), sys.argv[2], Path(sys.argv[3]))
heavy = [name for name in ("torch", "timm", "open_clip", "lightgbm") if name in sys.modules]
print(json.dumps({"rows": done.rows, "cpu": time.process_time(), "heavy": heavy}))
"""
_SECONDS = 2.0
_BACKBONE = "hog"


def draw_task(folder: Path, labelled: int, rows: int, width: int, views: int) -> Task:
    """Return a task whose images are words, and a cache of embeddings drawn for them."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(labelled + rows) % 3 == 0)
    names = np.where(labels, "destroyed", "intact")
    shown = [name if at < labelled else "" for at, name in enumerate(names)]
    lines = [f"{at:05}.jpg,{label}" for at, label in enumerate(shown)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *lines, ""]))
    (folder / "task.toml").write_text(
        'name = "benchmark"\nlabels = ["intact", "destroyed"]\n[images]\ntable = "labels.csv"\n'
        f'[folds]\ngroup = "none"\nrepeats = 1\n[embed]\nbackbones = ["{_BACKBONE}"]\n'
    )
    task = load_task(folder)
    (folder / "images").mkdir()
    fingerprint = {"backbone": _BACKBONE, "precision": "fp32"}
    home = task.work / "cache" / folder_name(_BACKBONE, fingerprint)
    entries = []
    with Writer.open(home, fingerprint, {"asked": task.asks(_BACKBONE)}) as writer:
        for at, label in enumerate(labels):
            content = f"image {at}".encode()
            (folder / "images" / f"{at:05}.jpg").write_bytes(content)
            key = hashlib.sha256(content)
            writer.add(key.digest(), rng.normal(0.05 * label, 1, (views, width)))
            seen = Observation("ok", bytes=len(content))
            entries.append(Entry(f"{at:05}.jpg", f"{at:05}.jpg", key.hexdigest(), seen))
    write_manifest(task, entries)
    pin_caches(task)
    return task


def measure(task: Task, system: str, rows: int, repeats: int) -> list[Figure]:
    """Return the median of several processes that submit one system."""
    out = task.folder / "answers.csv"
    done = [run(task.file, system, out, program=("-c", _SUBMIT)) for _ in range(repeats)]
    seconds = [took for _, took in done]
    first = done[0][0]
    name = f"submit {rows} rows by {system}"
    return [
        at_most(f"{name}: median of {repeats} processes", round(statistics.median(seconds), 2),
                _SECONDS, "s"),
        Figure(f"{name}: fastest", round(min(seconds), 2), "s"),
        Figure(f"{name}: processor time", round(min(one["cpu"] for one, _ in done), 2), "s"),
        exactly(f"{name}: rows written", first["rows"], rows),
        exactly(f"{name}: heavy libraries loaded", ", ".join(first["heavy"]) or "none", "none"),
    ]  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = arguments(__doc__, "submit_speed")
    parser.add_argument("--labelled", type=int, default=1600)
    parser.add_argument("--rows", type=int, default=402)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--repeats", type=int, default=5)
    settings: argparse.Namespace = parser.parse_args(words)
    before, figures = load(), []
    with tempfile.TemporaryDirectory() as name:
        task = draw_task(Path(name), settings.labelled, settings.rows, settings.width, views=6)
        run_probes(task, Options(probes=("logistic", "ridge")))
        probes = [f"logistic-{_BACKBONE}", f"ridge-{_BACKBONE}"]
        run_ensemble(task, "mean", probes)
        for system in (*probes, "mean"):
            figures += measure(task, system, settings.rows, settings.repeats)
    report(settings.json, figures, before)


if __name__ == "__main__":
    main()
