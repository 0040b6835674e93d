"""Images a second that decoders deliver: all cores, and the GPU with `decode = "gpu"`.

    cd benchmarks; ../.venv/bin/python -m gpu.decoding [--device cuda|cpu] [--tiny]

Drawn 1080 x 1350 images. The rate begins when every process has had eight images, so that their
start is left out. With a GPU the command `embed` is run too, through a network that takes next to
no time and with `decode = "gpu"`.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common import Figure, arguments, at_least, cores, load, report
from drawn import draw_images
from gpu.work import TINY, draw_task

from archiveprobe.embed.decoding import prepare_images
from archiveprobe.embed.prepare import Preparation
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.run import Options, embed
from archiveprobe.embed.view_sets import view_set
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.decoding import digest

JPEG_PER_SECOND, GPU_PER_SECOND = 1100, 2500
_CORES = 16


def main(words: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = arguments(__doc__, "gpu_decoding")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--forms", nargs="+", default=["JPEG", "PNG"])
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(words)
    before = load()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        for form in options.forms:
            folder = Path(name) / form
            width, height = (108, 135) if options.tiny else (1080, 1350)
            draw_images(folder / "images", form, options.images, width=width, height=height)
            for side, views in ((224, "center"), (384, "crops6")):
                bounded = form == "JPEG" and views == "center" and cores() >= _CORES
                rate = rate_of(folder / "images", side, views)
                what = f"decoded, {form}, {views} {side}, {cores()} cores"
                figures.append(
                    at_least(what, rate, JPEG_PER_SECOND, "images/s")
                    if bounded
                    else Figure(what, rate, "images/s")
                )
        if options.device != "cpu":
            figures += on_gpu(Path(name) / "JPEG", options.device)
    report(options.json, figures, before)


def rate_of(images: Path, side: int, views: str) -> float:
    """Return images a second once all processes are at work."""
    files = [(path.name, digest(path.read_bytes())) for path in sorted(images.iterdir())]
    preparation = Preparation(images, {Geometry(side, side): view_set(views)})
    first = min(8 * cores(), len(files) // 2)
    started = time.perf_counter()
    for number, _ in enumerate(prepare_images(files, preparation, workers=cores())):
        if number == first:
            started = time.perf_counter()
    return round((len(files) - 1 - first) / (time.perf_counter() - started), 1)


def on_gpu(folder: Path, device: str) -> Iterator[Figure]:
    """Yield images a second of embed with `decode = "gpu"`, through a network of toy size."""
    network = TINY["tiny-vit"]
    file = draw_task(
        folder, "JPEG", 0, [network], tiny=True, embed='decode = "gpu"', embedded=[network.name]
    )
    rate = steady_rate(load_task(file), Options(device=device))
    name = 'embedded through a toy network, JPEG, center, decode = "gpu"'
    yield at_least(name, rate, GPU_PER_SECOND, "images/s")


def steady_rate(task: Task, options: Options) -> float:
    """Return images a second of embed from its first fifth on, so that its start is left out."""
    done: list[float] = []

    @contextmanager
    def progress(label: str, total: int) -> Iterator[Callable[[], None]]:
        del label, total
        yield lambda: done.append(time.perf_counter())

    embed(task, options, progress=progress)
    ended, skipped = time.perf_counter(), len(done) // 5
    return round((len(done) - skipped) / (ended - done[skipped]), 1)


if __name__ == "__main__":
    main()
