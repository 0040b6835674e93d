"""How close embed comes to its limits: decoding alone and forward passes alone.

    .venv/bin/python benchmarks/embed_speed.py [--images N] [--device cpu|cuda] [--views V]...

Draws its own 1080 x 1350 images and runs CLIP ViT-B/32 and ConvNeXt-V2 Nano 384, one view unless
others are asked for, with random weights, whose speed is that of trained ones; bf16 on a CPU, fp16
on a GPU. Loading libraries, building networks and trying the precision are left out everywhere. On
a GPU the limit is the larger of the two, on a CPU, where both share the cores, their sum. The three
are measured in turn and every repeat gives a ratio; the figure is their median. Takes about ten
minutes on two cores.

Where there is no GPU a stand-in shows whether decoding and computing overlap: a backbone that
sleeps a quarter as long as decoding takes, and uses no core meanwhile.
"""

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
from common import Figure, arguments, at_most, cores, exactly, load, report, timed
from drawn import LONG_NAMES, draw_images, write_task

import archiveprobe.embed.job
import archiveprobe.embed.plan
import archiveprobe.embed.prepare
from archiveprobe.embed.backbones import resolve
from archiveprobe.embed.decoding import prepare_images
from archiveprobe.embed.forward import Batch, ForwardThreads
from archiveprobe.embed.gpu_jpeg import jpeg_decoder
from archiveprobe.embed.gpu_views import GpuViews
from archiveprobe.embed.job import Job, Options, crops_per_pass
from archiveprobe.embed.networks import LoadedBackbone, geometry_of, load_backbone
from archiveprobe.embed.prepare import Preparation, PreparedImage
from archiveprobe.embed.run import embed as run_embed
from archiveprobe.embed.view_sets import view_set
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.decoding import digest

LIMIT = 1.10
STAND_IN = 1 / 4
_COUNTED = 8


class Times(NamedTuple):
    """Seconds over the same images: the whole stage, and its two parts alone."""

    embed: float
    decode: float
    forward: float

    def ratio(self, on_gpu: bool) -> float:
        """Return the stage over its limit."""
        return self.embed / (
            max(self.decode, self.forward) if on_gpu else self.decode + self.forward
        )


def main(words: list[str] | None = None) -> None:
    """Run every pair of network and file format, and print the table."""
    parser = arguments(__doc__, "embed_speed")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--batch-size", type=int, default=None)
    parser.add_argument("--networks", nargs="+", default=["clip", "convnext"])
    parser.add_argument("--formats", nargs="+", default=["JPEG", "PNG"])
    parser.add_argument("--views", nargs="+", default=["center"])
    parser.add_argument("--decode", default="exact", help="exact, fast or gpu")
    parser.add_argument("--limit", type=float, default=LIMIT)
    options = parser.parse_args(words)
    before = load()
    figures: list[Figure] = []
    how = Options(device=options.device, workers=options.workers, batch_size=options.batch_size)
    with tempfile.TemporaryDirectory() as name:
        for form in options.formats:
            folder = Path(name) / form
            draw_images(folder / "images", form, options.images)
            for network, views in product(options.networks, options.views):
                write_task(folder, [network], views, decode=options.decode)
                task = load_task(folder)
                found = list(measured(task, network, how, options.repeats))
                what = ", ".join([LONG_NAMES.get(network, network), form, views])
                what += f", decode = {options.decode}" * (options.decode != "exact")
                figures += described(what, found, how.device != "cpu", options.limit)
                print(f"{what}: {[[round(s, 2) for s in times] for times in found]}")
        if options.device == "cpu":
            figures.append(overlap_figure(Path(name), options.formats[0], how, options.repeats))
        figures.append(decodes_figure(Path(name), options.networks[:2]))
    report(options.json, figures, before)


def measured(task: Task, network: str, how: Options, repeats: int) -> Iterator[Times]:
    """Time decoding alone, forward passes alone and embed, in turn."""
    assert how.device is not None
    precision = "bf16" if how.device == "cpu" else "fp16"
    loaded = load_backbone(resolve(network, task), how.device).at(precision)
    size = crops_per_pass(how.device, how.batch_size)
    for number in range(repeats + 1):
        items, decode = decode_alone(task, loaded, how.device)
        forward = forward_alone(loaded, items, size, how.device)
        seconds = embed_alone(task, precision, how)
        # The first round warms up: libraries, the device's kernels, the page cache.
        if number:
            yield Times(seconds, decode, forward)


def decode_alone(
    task: Task, loaded: LoadedBackbone, device: str = "cpu"
) -> tuple[list[PreparedImage], float]:
    """Return the images as the backbone takes them, and the seconds on all cores (and the GPU)."""
    files = sorted(task.root.iterdir())
    pairs = [(file.name, digest(file.read_bytes())) for file in files]
    how, views = task.embed.decode, {geometry_of(loaded): view_set(task.embed.views)}
    preparation = Preparation(task.root, views, decode=how)

    def prepared() -> list[PreparedImage]:
        images = prepare_images(pairs, preparation, workers=cores())
        if how == "gpu":
            return list(GpuViews(device, jpeg_decoder(device), views).stream(images))
        return list(images)

    return timed(prepared)


def forward_alone(
    loaded: LoadedBackbone, items: Iterable[PreparedImage], size: int, device: str
) -> float:
    """Seconds of the forward passes on pixels in memory, in the pipeline's batches and threads."""
    batches, threads = [Batch(size, lambda _: None)], ForwardThreads(device)
    for item in items:
        [rendered] = item.views.values()
        if not batches[-1].has_room(rendered):
            batches.append(Batch(size, lambda _: None))
        batches[-1].add(bytes.fromhex(item.digest), rendered)

    def forward() -> int:
        passes = [threads.submit(batch.embed, loaded.embed) for batch in batches]
        return sum(len(done.result()) for done in passes)

    _, seconds = timed(forward)
    threads.restore()
    return seconds


def embed_alone(task: Task, precision: str, how: Options) -> float:
    """Seconds of the whole stage from nothing, without building the network."""
    shutil.rmtree(task.work, ignore_errors=True)
    with timed_loads() as loads:
        _, seconds = timed(lambda: run_embed(task, replace(how, precision=precision)))
    return seconds - sum(loads)


@contextmanager
def timed_loads() -> Iterator[list[float]]:
    """Return the seconds that networks take to be built inside the block."""
    loads: list[float] = []
    real = Job.load

    def load_and_note(job: Job) -> None:
        loads.append(timed(lambda: real(job))[1])

    with mock.patch.object(Job, "load", load_and_note):
        yield loads


def described(what: str, found: list[Times], on_gpu: bool, most: float) -> Iterator[Figure]:
    """Return the ratio to the limit, and images per second of the three."""
    ratio = float(np.median([times.ratio(on_gpu) for times in found]))
    limit = "max(decode, forward)" if on_gpu else "(decode + forward)"
    yield at_most(f"embed / {limit}, {what}", round(ratio, 2), most)
    for part in Times._fields:
        seconds = float(np.median([getattr(times, part) for times in found]))
        yield Figure(f"{part} alone, {what}", round(seconds, 2), "s")


class Sleeper:
    """A backbone that takes its time on no core, as a GPU does."""

    random_weights = True
    precision = "fp32"
    weights_digest = "0" * 64

    def __init__(self, real: LoadedBackbone, seconds_per_crop: float) -> None:
        self.name = real.name
        self.preprocess = real.preprocess
        self._seconds = seconds_per_crop

    def embed(self, _: np.ndarray, mirror: np.ndarray, __: np.ndarray) -> np.ndarray:
        """Wait, and give something that can be stored."""
        time.sleep(self._seconds * len(mirror))
        return np.ones((len(mirror), 512), np.float32)

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Return memory for crops."""
        return np.empty(shape, dtype)

    def at(self, _: str) -> "Sleeper":
        """Return the same."""
        return self

    def faster_precisions(self) -> tuple[str, ...]:
        """None."""
        return ()


def overlap_figure(folder: Path, form: str, how: Options, repeats: int) -> Figure:
    """Embed over decoding alone, where the forward passes take a quarter as long and no core."""
    task = load_task(write_task(folder / form, ["tiny"], "center"))
    real = load_backbone(resolve("tiny", task), "cpu")
    batch = crops_per_pass("cuda", how.batch_size)
    ratios = []
    for _ in range(repeats):
        items, decode = decode_alone(task, real)
        sleeper = Sleeper(real, decode / len(items) * STAND_IN)
        seconds = asleep(task, sleeper, replace(how, batch_size=batch))
        ratios.append(seconds / decode)
    median = round(float(np.median(ratios)), 2)
    name = f"embed / decode, a stand-in for a GPU, batches of {batch}, {form}"
    return at_most(name, median, LIMIT)


def asleep(task: Task, sleeper: Sleeper, how: Options) -> float:
    """Seconds of the whole stage with the sleeper, one batch at a time as on a GPU."""
    with (
        mock.patch.object(archiveprobe.embed.job, "load_backbone", lambda *_: sleeper),
        mock.patch.object(
            archiveprobe.embed.plan, "ForwardThreads", lambda _: ForwardThreads("cuda")
        ),
    ):
        return embed_alone(task, "fp32", how)


def decodes_figure(folder: Path, networks: list[str]) -> Figure:
    """How often a image is decoded for two backbones with six views each."""
    place = folder / "counted"
    draw_images(place / "images", "JPEG", _COUNTED, width=270, height=338)
    task = load_task(write_task(place, networks, "crops6"))
    with mock.patch.object(
        archiveprobe.embed.prepare, "decode_pixels", wraps=archiveprobe.embed.prepare.decode_pixels
    ) as decode:
        summary = run_embed(task, Options(device="cpu", workers=0))
    views = sum(cache.rows * cache.views for cache in summary.caches)
    name = f"decodes per image, {len(networks)} backbones x 6 views ({views} views in all)"
    return exactly(name, decode.call_count / summary.embedded, 1.0)


if __name__ == "__main__":
    main()
