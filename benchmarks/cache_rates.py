"""What the cache costs: its share of an embed run, and how fast it is written and read back.

    .venv/bin/python benchmarks/cache_rates.py [--images N] [--megabytes N] [--device cpu|cuda]

The share is measured inside a real run of CLIP ViT-B/32 over drawn images, six views: all the
time that the writer takes, checks, checksums and waiting for the disk included. Rates are those of
a cache of random rows, read back in the order of writing from the page cache, every checksum
checked; one read warms up, the fastest of the others counts, since other work on the machine only
ever slows them; the rate of processor time tells what such work took. "Opened" includes reading
the record, the log and all keys, and comparing every shard with its SHA-256 in the log.
"""

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from common import Figure, arguments, at_least, at_most, load, report, timed
from drawn import LONG_NAMES, draw_images, write_task

from archiveprobe.cache.store import Reader, Writer
from archiveprobe.embed.job import Job
from archiveprobe.embed.plan import Options
from archiveprobe.embed.run import embed
from archiveprobe.task.config import load_task

SHARE_LIMIT = 2.0
READ_LIMIT = 1.0
_READS = 7
_DISTINCT = 64
SHAPES = {"six views of 512": (6, 512), "50 tokens of 768": (1, 50, 768)}


def main(words: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = arguments(__doc__, "cache_rates")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--network", default="clip")
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(words)
    before = load()
    figures = share_figures(options.images, options.network, options.device)
    for name, shape in SHAPES.items():
        figures += rate_figures(name, shape, options.megabytes * 1_000_000)
    report(options.json, figures, before)


def share_figures(images: int, network: str, device: str) -> list[Figure]:
    """Measure the writer's share of an embed run; building the network is not counted."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_images(folder / "images", "JPEG", images)
        task = load_task(write_task(folder, [network], "crops6"))
        with writing_timed() as writing, loading_timed() as loading:
            summary, seconds = timed(lambda: embed(task, Options(device=device)))
    run = seconds - loading[0]
    what = f"{LONG_NAMES.get(network, network)}, 6 views, {summary.embedded} images"
    return [
        at_most(
            f"share of wall time that writes the cache, {what}",
            round(100 * writing[0] / run, 3),
            SHARE_LIMIT,
            "%",
        ),
        Figure(f"writing, {what}", round(1000 * writing[0] / summary.embedded, 3), "ms/image"),
        Figure(f"embed, {what}", round(run, 1), "s"),
    ]


@contextmanager
def writing_timed() -> Iterator[list[float]]:
    """Return the seconds inside the writer's methods, those that call each other counted once."""
    with _methods_timed(Writer, ("add", "fail", "commit", "close")) as total:
        yield total


@contextmanager
def loading_timed() -> Iterator[list[float]]:
    """Return the seconds that networks take to be built."""
    with _methods_timed(Job, ("load",)) as total:
        yield total


@contextmanager
def _methods_timed(owner: type, names: tuple[str, ...]) -> Iterator[list[float]]:
    total, depth = [0.0], [0]

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            started = time.perf_counter()
            depth[0] += 1
            try:
                return real(*given, **named)
            finally:
                depth[0] -= 1
                if depth[0] == 0:
                    total[0] += time.perf_counter() - started

        return call

    with ExitStack() as stack:
        for name in names:
            real = getattr(owner, name)
            stack.enter_context(mock.patch.object(owner, name, wrapped(real)))
        yield total


def rate_figures(name: str, shape: tuple[int, ...], size: int) -> list[Figure]:
    """Measure writing and reading `size` bytes of rows of one shape."""
    rows = np.random.default_rng(0).standard_normal((_DISTINCT, *shape)).astype(np.float32)
    row_bytes = 2 * rows[0].size
    keys = [hashlib.sha256(b"%d" % at).digest() for at in range(max(1, size // row_bytes))]
    total = len(keys) * row_bytes
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "cache"

        def write() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            with Writer.open(folder, {"benchmark": name}, {}) as writer:
                for at, key in enumerate(keys):
                    writer.add(key, rows[at % _DISTINCT])

        writing = fastest(write, 3)
        reader = Reader(folder)
        _, stored = reader.read(keys)
        assert np.array_equal(stored[-1], rows[(len(keys) - 1) % _DISTINCT].astype(np.float16))
        del stored
        reading = fastest(lambda: reader.read(keys), _READS)
        opening = fastest(lambda: Reader(folder).read(keys), _READS)
        strewn = [keys[at] for at in np.random.default_rng(1).permutation(len(keys))]
        scattered = fastest(lambda: reader.read(strewn), _READS)
    what = f"{name}, {len(keys)} rows in {len(reader.commits)} shards"
    gigabytes = total / 1e9
    return [
        at_least(f"read, {what}", round(gigabytes / reading.wall, 2), READ_LIMIT, "GB/s"),
        Figure(f"read, {what}, of processor time", round(gigabytes / reading.processor, 2), "GB/s"),
        Figure(f"opened and read, {what}", round(gigabytes / opening.wall, 2), "GB/s"),
        Figure(f"read in random order, {what}", round(gigabytes / scattered.wall, 2), "GB/s"),
        Figure(f"write, {what}", round(total / 1e6 / writing.wall), "MB/s"),
    ]


class Seconds(NamedTuple):
    """The least wall time and the least processor time of some runs."""

    wall: float
    processor: float


def fastest(action: Callable[[], Any], times: int) -> Seconds:
    """Return the fastest of some runs, after one that warms up."""
    action()
    found = []
    for _ in range(times):
        started = time.process_time()
        _, wall = timed(action)
        found.append((wall, time.process_time() - started))
    return Seconds(*(min(column) for column in zip(*found, strict=True)))


if __name__ == "__main__":
    main()
