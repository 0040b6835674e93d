"""Images a second that decoders on all cores, or a card, deliver: what bounds embed on a fast card.

    cd benchmarks; ../.venv/bin/python -m gpu.decoding [--tiny]

Drawn 1080 x 1350 images. The rate begins when every process has had eight images, so that their
start is left out. On a card JPEGs are measured with decode = "gpu", too, and how far its pixels are
from Pillow's: on average, in levels of 255.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import Figure, arguments, at_least, cores, load, report
from drawn import draw_images

from archiveprobe.embed.decoding import prepare_images
from archiveprobe.embed.gpu_jpeg import NoDecoderError, jpeg_decoder
from archiveprobe.embed.gpu_views import GpuViews, by_pillow
from archiveprobe.embed.prepare import Preparation
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.view_sets import View, view_set
from archiveprobe.task.decoding import digest

JPEG_PER_SECOND = 1100
JPEG_PER_SECOND_ON_CARD = 2500
_COMPARED = 32
_CORES = 16


def main(words: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = arguments(__doc__, "gpu_decoding")
    parser.add_argument("--device", default="cpu")
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
            if form == "JPEG":
                figures += on_card(folder / "images", options.device)
    report(options.json, figures, before)


def on_card(images: Path, device: str) -> Iterator[Figure]:
    """Return the rates of decode = "gpu", and how far its pixels are from those of Pillow."""
    try:
        decode = jpeg_decoder(device)
    except NoDecoderError as error:
        yield Figure("decoded on the card", f"left out: {error}")
        return
    for side, views in ((224, "center"), (384, "crops6")):
        rate = rate_of(images, side, views, GpuViews(device, decode, for_card(side, views)))
        what = f"decoded on the card, JPEG, {views} {side}, {cores()} cores"
        yield at_least(what, rate, JPEG_PER_SECOND_ON_CARD, "images/s")
    wanted = for_card(224, "center")
    preparation = Preparation(images, wanted, decode="gpu")
    files = files_of(images)[:_COMPARED]
    some = list(prepare_images(files, preparation, workers=0))
    off = []
    for image, made in zip(some, GpuViews(device, decode, wanted).on_gpu(some), strict=True):
        if made is not None:
            [ours], [theirs] = made.views.values(), by_pillow(image, wanted).views.values()
            off.append(np.abs(ours.crops.astype(np.int16) - theirs.crops).mean())
    yield Figure("decoded on the card, of those tried", f"{len(off)} of {len(some)}")
    if off:
        yield Figure("levels off Pillow's pixels, mean", round(float(np.mean(off)), 3))


def for_card(side: int, views: str) -> dict[Geometry, tuple[View, ...]]:
    """Return views that a card is to make."""
    return {Geometry(side, side, decode="gpu"): view_set(views)}


def files_of(images: Path) -> list[tuple[str, str]]:
    """Return the names and digests of images."""
    return [(path.name, digest(path.read_bytes())) for path in sorted(images.iterdir())]


def rate_of(images: Path, side: int, views: str, gpu: GpuViews | None = None) -> float:
    """Return images a second once all processes are at work."""
    files = files_of(images)
    wanted = {Geometry(side, side): view_set(views)} if gpu is None else for_card(side, views)
    preparation = Preparation(images, wanted, decode="exact" if gpu is None else "gpu")
    first = min(8 * cores(), len(files) // 2)
    started = time.perf_counter()
    prepared = prepare_images(files, preparation, workers=cores())
    for number, _ in enumerate(prepared if gpu is None else gpu.stream(prepared)):
        if number == first:
            started = time.perf_counter()
    return round((len(files) - 1 - first) / (time.perf_counter() - started), 1)


if __name__ == "__main__":
    main()
