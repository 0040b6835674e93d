"""What Ray costs beside the processes of one machine: the same units, by either engine.

    .venv/bin/python benchmarks/ray_engine.py [--images N] [--cores N]

Draws 1080 x 1350 JPEGs (a hundred, each again and again with other bytes behind its end) and has a
linear system on `hog` answer them, a backbone that costs little, so that what the engines
themselves take shows. The rate begins with the unit that is done when every process has had two:
starting Ray, and loading libraries, is left out. Processor time is that of all processes from their
start to their end, and so holds what starting costs. The engines take turns; figures are medians.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

from common import Figure, arguments, at_least, cores, exactly, load, report
from drawn import draw_images, write_task

from archiveprobe.archive.index import Index, write_index
from archiveprobe.archive.source import open_source
from archiveprobe.archive.units import Receipt
from archiveprobe.embed.ray_cluster import descendants, ray_cluster
from archiveprobe.embed.run import Options as EmbedOptions
from archiveprobe.embed.run import embed
from archiveprobe.predict.drivers import local, ray
from archiveprobe.predict.system_digest import system_digest
from archiveprobe.predict.units import UnitWork
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.config import load_task

TARGET = 0.85
_DRAWN = 100
_LABELLED = 12
_TICKS = os.sysconf("SC_CLK_TCK")


class Run(NamedTuple):
    """Images a second, seconds of processor time per image, and megabytes that Ray spilled."""

    rate: float
    processor: float
    spilled: int


def main(words: list[str] | None = None) -> None:
    """Measure, and report."""
    parser = arguments(__doc__, "ray_engine")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--cores", type=int, default=cores())
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args(words)
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), given.images, max(1, given.cores))
        pairs = [(bench.run(local.run), bench.run(ray.run)) for _ in range(given.repeats)]
        same = bench.equal()
    figures = [
        Figure("local engine", round(median(a.rate for a, _ in pairs), 1), "images/s"),
        Figure(
            "Ray engine, start-up aside", round(median(b.rate for _, b in pairs), 1), "images/s"
        ),
        at_least("Ray over local", round(median(b.rate / a.rate for a, b in pairs), 3), TARGET),
        Figure(
            "local engine, processor", round(median(a.processor for a, _ in pairs), 4), "s/image"
        ),
        Figure("Ray engine, processor", round(median(b.processor for _, b in pairs), 4), "s/image"),
        exactly("spilled", sum(b.spilled for _, b in pairs), 0, "times"),
        exactly("same bytes", same, True),
    ]
    report(given.json, figures, before)


class Bench:
    """A task with a system, and an archive."""

    def __init__(self, folder: Path, images: int, cores: int) -> None:
        self._folder, self._cores = folder, cores
        draw_images(folder / "drawn", "JPEG", min(_DRAWN, images))
        drawn = [path.read_bytes() for path in sorted((folder / "drawn").iterdir())]
        (folder / "archive").mkdir()
        for at in range(images):
            content = drawn[at % len(drawn)] + at.to_bytes(8, "big")
            (folder / "archive" / f"{at:06}.jpg").write_bytes(content)
        (folder / "images").mkdir()
        for at in range(_LABELLED):
            content = drawn[at % len(drawn)] + b"labelled" + bytes([at])
            (folder / "images" / f"{at}.jpg").write_bytes(content)
        self._task = load_task(write_task(folder, ["hog"], "center", _labels(folder)))
        embed(self._task, EmbedOptions(workers=0, device="cpu"))
        run_probes(self._task, Options(probes=("ridge",), workers=1))
        source = open_source(str(folder / "archive"))
        self._index: Index = write_index(source, folder / "index.parquet", 64)
        digest = system_digest(self._task, "ridge-hog")
        self._work = UnitWork(
            self._task.file, "ridge-hog", source, folder, device="cpu", digest=digest
        )

    def run(self, engine: Callable[..., None]) -> Run:
        """Have all units answered."""
        done: list[tuple[float, int]] = []

        def commit(receipt: Receipt) -> None:
            done.append((time.perf_counter(), receipt.rows))

        name = "ray" if engine is ray.run else "local"
        parts = self._folder / f"parts-{name}"
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir()
        started = _processor_seconds()
        spilled = 0
        numbers = range(self._index.units)
        work = UnitWork(**{**self._work.__dict__, "folder": parts})
        if engine is ray.run:
            with ray_cluster(self._cores):
                engine(work, self._index, numbers, commit, workers=self._cores)
                spilled = _spilled()
                processor = _processor_seconds() - started
        else:
            engine(work, self._index, numbers, commit, workers=self._cores)
            processor = _processor_seconds() - started
        warm = min(2 * self._cores, len(done) // 2)
        rows = sum(count for _, count in done[warm:])
        begin = done[warm - 1][0] if warm else done[0][0] - 1.0
        return Run(rows / (done[-1][0] - begin), processor / self._index.images, spilled)

    def equal(self) -> bool:
        """Return whether both engines wrote the same bytes."""
        folders = [self._folder / f"parts-{name}" for name in ("local", "ray")]
        contents = [{f.name: f.read_bytes() for f in folder.iterdir()} for folder in folders]
        return contents[0] == contents[1]


def _labels(folder: Path) -> str:
    lines = [f"{at}.jpg,{('intact', 'destroyed')[at % 2]}" for at in range(_LABELLED)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *lines, ""]))
    return 'table = "labels.csv"'


def _processor_seconds() -> float:
    """Return the processor time of this process, and of all below it that run or have ended."""
    total = 0
    for process in (os.getpid(), *descendants(os.getpid())):
        try:
            stat = Path(f"/proc/{process}/stat").read_text(errors="replace")
        except OSError:
            continue
        total += sum(map(int, stat.rpartition(")")[2].split()[11:15]))
    return total / _TICKS


def _spilled() -> int:
    """Count how often the cluster's logs say that objects went to disk."""
    from ray._private.worker import _global_node

    logs = Path(_global_node.get_logs_dir_path())
    texts = [file.read_text(errors="replace") for file in logs.glob("raylet*")]
    return sum(text.count("Spilled ") for text in texts)


if __name__ == "__main__":
    main()
