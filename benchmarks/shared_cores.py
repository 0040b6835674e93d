"""How commands share the cores: their time beside processes that are always busy.

    .venv/bin/python benchmarks/shared_cores.py [--images N] [--repeats N] [--busy B...]

Needs ../shared for the first. Embeds real images with two real MobileNets (six views), and drawn
ones with a CLIP ViT-B/32 (random weights, one view); on the demo archive probes (the default
leaderboard), answers its images as an archive, and fine-tunes a fold. Each runs in a process of its
own: alone, and beside one and two loops that never rest. On c cores, a program of c threads beside
b such loops is owed c * c / (c + b) of them, so that it should take (c + b) / c of the time that it
takes alone. States take turns, and every repeat gives a ratio of times to those alone; the figure
is their median. What other programs took meanwhile is said too: where the machine is not otherwise
at rest, every figure is too large. Takes about a quarter of an hour on two cores.

Every loop is a session of its own, as other people's programs are: where Linux shares out the cores
by session first, one loop then weighs as much as a whole command, so that the target is a hard one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from common import COMMAND, ROOT, Figure, arguments, at_most, load, report
from drawn import draw_images
from drawn import write_task as write_drawn_task
from real_images import IMAGES, write_task

from archiveprobe.base.cores import usable_cores
from archiveprobe.demo.archive import write_demo

# Over its share.
LIMIT = 1.3
LOOP = (sys.executable, "-S", "-c", "while True: pass")


@dataclass(frozen=True)
class Run:
    """Seconds of one run, processor time of all its processes, cores that others used."""

    wall: float
    cpu: float
    others: float


@dataclass(frozen=True)
class Work:
    """A command to measure, and what it makes, which is removed before it runs."""

    name: str
    words: tuple[str | Path, ...]
    made: Path


def main(words: list[str] | None = None) -> None:
    """Run every task in every state in turn, and print the table."""
    parser = arguments(__doc__, "shared_cores")
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--busy", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--network", default="clip", help="Of drawn.py, for the drawn ones.")
    parser.add_argument("--rows", type=int, default=400, help="Images of the demo archive.")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args(words)
    before = load()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        embedded = embedding(folder, options.images, options.network)
        for work in chain(embedded, on_the_demo(folder / "demo", options.rows, options.epochs)):
            rounds = list(measured(work, options.busy, options.repeats))
            figures += described(work.name, rounds, options.busy)
    report(options.json, figures, before)


def embedding(folder: Path, images: int, network: str) -> Iterator[Work]:
    """Return what is embedded: real images where they are there, and drawn ones."""

    def embed(name: str, task: Path) -> Work:
        return Work(name, ("embed", task, "--precision", "auto"), task.parent / "work")

    if IMAGES.is_dir():
        (folder / "real").mkdir()
        yield embed("two MobileNets", write_task(folder / "real", images))
    else:
        print(f"left out: two MobileNets, which need the images in {IMAGES}")
    draw_images(folder / "drawn" / "images", "JPEG", images)
    yield embed(network, write_drawn_task(folder / "drawn", [network], "center"))


def on_the_demo(folder: Path, rows: int, epochs: int) -> Iterator[Work]:
    """Return what else is done, in order, on the demo archive, which is embedded here."""
    write_demo(folder, count=rows)
    task, work = folder / "task.toml", folder / "work"
    run(Work("embed", ("embed", task), folder / "none"), 0)
    yield Work("probe", ("probe", task), work / "runs")
    answers = folder / "answers"
    asked = ("--system", "ridge-hog", "--images", folder / "images", "-o", answers)
    yield Work("predict", ("predict", task, *asked), answers)
    shorter = ("--set", f"schedule.epochs={epochs}", "--fold", "0")
    yield Work("finetune", ("finetune", task, "--recipe", "demo-tiny", *shorter), work / "finetune")


def measured(work: Work, busy: Sequence[int], repeats: int) -> Iterator[dict[int, Run]]:
    """For every repeat the runs by the number of busy loops beside them."""
    run(work, 0)
    for _ in range(repeats):
        runs = {loops: run(work, loops) for loops in (0, *busy)}
        shown = ", ".join(f"{loops} busy {each.wall:.1f} s" for loops, each in runs.items())
        print(f"{work.name}: {shown}; load {load()}", flush=True)
        yield runs


def run(work: Work, loops: int) -> Run:
    """Run a command from nothing beside busy loops."""
    shutil.rmtree(work.made, ignore_errors=True)
    command = [sys.executable, "-c", COMMAND, *map(str, work.words)]
    with busy_loops(loops) as spent:
        everything, started = busy_seconds(), time.perf_counter()
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
            # Of the process and of those that it started and waited for.
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            said.seek(0)
            if process.returncode:
                sys.exit(f"{work.name} failed: {said.read().decode()}")
        wall, everything = time.perf_counter() - started, busy_seconds() - everything
    cpu = usage.ru_utime + usage.ru_stime
    return Run(wall, cpu, max(0.0, everything - cpu - sum(spent)) / wall)


@contextmanager
def busy_loops(count: int) -> Iterator[list[float]]:
    """Start processes that never rest; yield the processor time of each, once they have ended."""
    spent: list[float] = []
    loops = [subprocess.Popen(LOOP, start_new_session=True) for _ in range(count)]
    try:
        yield spent
    finally:
        for loop in loops:
            loop.kill()
            _, _, usage = os.wait4(loop.pid, 0)
            loop.returncode = 0
            spent.append(usage.ru_utime + usage.ru_stime)


def busy_seconds() -> float:
    """Processor time that all processes of this machine have taken; 0 where nobody counts it."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return 0.0
    user, nice, system, _idle, _waiting, interrupts, softer = map(int, words[1:8])
    return (user + nice + system + interrupts + softer) / os.sysconf("SC_CLK_TCK")


def described(what: str, rounds: Sequence[dict[int, Run]], busy: Sequence[int]) -> Iterator[Figure]:
    """Return the figures of one command."""
    usable = usable_cores()
    yield Figure(f"{what}, alone", median([runs[0].wall for runs in rounds]), "s")
    yield Figure(f"{what}, processor time alone", median([runs[0].cpu for runs in rounds]), "s")
    for loops in busy:
        owed = (usable + loops) / usable
        times = [runs[loops].wall / runs[0].wall for runs in rounds]
        name = f"{what} beside {loops} busy"
        yield Figure(f"{name}, over the time alone", median(times), "x")
        yield at_most(
            f"{name}, over its share of the cores", median([t / owed for t in times]), LIMIT, "x"
        )
    others = max(run.others for runs in rounds for run in runs.values())
    yield Figure(f"{what}, cores that other programs used, at most", round(others, 2))


def median(values: Sequence[float]) -> float:
    """Return the median, rounded for a table."""
    return round(float(np.median(values)), 2)


if __name__ == "__main__":
    main()
