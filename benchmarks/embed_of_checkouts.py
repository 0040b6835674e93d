"""Whether embed of one checkout of this repository is faster than that of another.

    .venv/bin/python benchmarks/embed_of_checkouts.py OLD NEW [--images N] [--network hog|tiny|...]

Runs the whole command in turn, as a process of its own, from OLD and from NEW (folders, as `git
worktree add` makes them) over the same drawn 1080 x 1350 images. The figures are NEW over OLD of
the processor time, which other work on the machine hardly changes, and of the wall time: medians of
the repeats' ratios. Both include the start of the process.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import Figure, arguments, load, report
from drawn import draw_images, write_task


class Seconds(NamedTuple):
    """What a run takes: on all cores together, and by the clock."""

    processor: float
    wall: float


def main(words: list[str] | None = None) -> None:
    """Run every format, and print the table."""
    parser = arguments(__doc__, "embed_of_checkouts")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--network", default="hog")
    parser.add_argument("--views", default="center")
    parser.add_argument("--formats", nargs="+", default=["JPEG", "PNG"])
    options = parser.parse_args(words)
    before = load()
    figures = []
    with tempfile.TemporaryDirectory() as name:
        roots = [Path(name) / "old", Path(name) / "new"]
        for root, checkout in zip(roots, (options.old, options.new), strict=True):
            root.mkdir()
            (root / "archiveprobe").symlink_to(checkout.resolve())
        for form in options.formats:
            folder = Path(name) / form
            draw_images(folder / "images", form, options.images)
            write_task(folder, [options.network], options.views)
            # The first round warms up the page cache.
            rounds = [[embed(root, folder) for root in roots] for _ in range(options.repeats + 1)]
            what = f"{options.network}, {options.views}, {form}"
            figures += described(what, np.array(rounds[1:]))
            shutil.rmtree(folder)
    report(options.json, figures, before)


def embed(root: Path, folder: Path) -> Seconds:
    """Embed everything from nothing with the package below `root`; ends the benchmark on a fault.

    The processor time is that of the command and of its decoder processes.
    """
    shutil.rmtree(folder / "work", ignore_errors=True)
    command = [sys.executable, "-m", "archiveprobe", "embed", str(folder), "--device", "cpu"]
    spent, started = processor_of_children(), time.perf_counter()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    if done.returncode:
        sys.exit(f"embed of {root.name} failed: {done.stderr}")
    return Seconds(processor_of_children() - spent, time.perf_counter() - started)


def processor_of_children() -> float:
    """Return the processor seconds of all processes that have ended below this one."""
    times = os.times()
    return times.children_user + times.children_system


def described(what: str, seconds: np.ndarray) -> list[Figure]:
    """Return the figures of (repeats, 2 checkouts, 2 kinds of time) seconds."""
    figures = []
    for kind, name in enumerate(Seconds._fields):
        old, new = seconds[:, 0, kind], seconds[:, 1, kind]
        figures += [
            Figure(f"{name} time, {what}, old", round(float(np.median(old)), 2), "s"),
            Figure(f"{name} time, {what}, new", round(float(np.median(new)), 2), "s"),
            Figure(f"{name} time, {what}, new / old", round(float(np.median(new / old)), 3)),
        ]
    return figures


if __name__ == "__main__":
    main()
