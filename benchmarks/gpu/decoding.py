"""Images a second that decoders on all cores deliver: what bounds embed on a fast card.

    cd benchmarks; ../.venv/bin/python -m gpu.decoding [--tiny]

Drawn 1080 x 1350 images. The rate begins when every process has had eight images, so that their
start is left out.
"""

import tempfile
import time
from pathlib import Path

from common import Figure, arguments, at_least, cores, load, report
from drawn import draw_images

from archiveprobe.embed.decoding import prepare_images
from archiveprobe.embed.prepare import Preparation
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.view_sets import view_set
from archiveprobe.task.decoding import digest

JPEG_PER_SECOND = 1100
_CORES = 16


def main(words: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = arguments(__doc__, "gpu_decoding")
    parser.add_argument("--device", help="not used: every check is given one")
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


if __name__ == "__main__":
    main()
