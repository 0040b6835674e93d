"""What simplejpeg saves, and what `decode = "fast"` and "gpu" save and change.

    .venv/bin/python benchmarks/decode_speed.py [--images N] [--repeats N] [--photographs N]

Processor time of decoding with thumbnail and statistics, and of that and one view of 224 pixels,
for drawn images of 1080 x 1350: by Pillow alone, exact, fast, and what "gpu" leaves to the
processes, which is no view. They take turns at every image; every repeat gives a ratio, and the
figure is their median.

With ../shared also the cosine between embeddings of exact and other pixels, by real MobileNets, of
the largest real photographs; for "gpu" by a stand-in, which repeats colours as a card does, and
resizes in real numbers. They have at most 1,000 pixels a side, so that "fast" halves none of
them: the last figures halve those of 512 or more, to 1.0 to 1.95 times the side that the networks
take, where "fast" leaves twice that side or more.
"""

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import simplejpeg
import torch
from common import Figure, arguments, load, report
from drawn import draw_images
from PIL import Image
from real_images import IMAGES, write_task

from archiveprobe.embed.backbones import resolve
from archiveprobe.embed.gpu_views import GpuViews
from archiveprobe.embed.networks import LoadedBackbone, geometry_of, load_backbone
from archiveprobe.embed.prepare import PreparedImage
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.view_sets import view_set
from archiveprobe.embed.views import render
from archiveprobe.task import decoding, jpeg
from archiveprobe.task.config import Decode, load_task
from archiveprobe.task.decoding import digest

CENTER = view_set("center")
GEOMETRY = Geometry(224, 224)
STATES: tuple[tuple[str, Decode], ...] = (
    ("Pillow", "exact"),
    ("exact", "exact"),
    ("fast", "fast"),
    ("gpu", "gpu"),
)
_HALVED = {"min_height": 256, "min_width": 256, "min_factor": 2}
_BATCH = 32


def main(words: list[str] | None = None) -> None:
    """Measure everything, and print the table."""
    parser = arguments(__doc__, "decode_speed")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--photographs", type=int, default=200)
    options = parser.parse_args(words)
    before = load()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        for form in ("JPEG", "PNG"):
            folder = Path(name) / form
            draw_images(folder, form, options.images)
            contents = [file.read_bytes() for file in sorted(folder.iterdir())]
            figures += times(form, contents, options.repeats)
        if IMAGES.is_dir():
            figures += changes(Path(name), options.photographs)
        else:
            print(f"left out: the change of embeddings, which needs the images in {IMAGES}")
    report(options.json, figures, before)


def times(form: str, contents: list[bytes], repeats: int) -> Iterator[Figure]:
    """Return the processor time of every state, and its ratio to Pillow alone."""
    seconds = np.zeros((repeats + 1, len(STATES), 2))
    for repeat in range(repeats + 1):
        for content in contents:
            for state in range(len(STATES)):
                seconds[repeat, state] += once(form, content, *STATES[state])
    # The first round warms up.
    seconds = seconds[1:] / len(contents)
    for part, what in enumerate(("decode", "decode and one view")):
        for state, (name, _) in enumerate(STATES):
            spent, ratio = seconds[:, state, part], seconds[:, state, part] / seconds[:, 0, part]
            label = f"{what}, {form}, {name}"
            yield Figure(label, round(1000 * float(np.median(spent)), 1), "ms")
            if state:
                yield Figure(f"{label} / Pillow", round(float(np.median(ratio)), 2))


def once(form: str, content: bytes, name: str, how: Decode) -> tuple[float, float]:
    """Return processor seconds of decoding an image, and of that and a view."""
    with pillow_alone() if name == "Pillow" else nullcontext():
        started = time.process_time()
        image = decoding.decode(content, how)
        decoded = time.process_time()
        assert isinstance(image, decoding.DecodedImage)
        # Every JPEG that is drawn here is one that a card takes.
        if how != "gpu" or form != "JPEG":
            render(image.pixels, GEOMETRY, CENTER, seed="")
    return decoded - started, time.process_time() - started


def pillow_alone() -> AbstractContextManager[object]:
    """Leave JPEG to Pillow."""
    return mock.patch.object(decoding, "decode_jpeg", lambda *_: None)


def changes(folder: Path, count: int) -> Iterator[Figure]:
    """Return the cosines between embeddings of exact and fast pixels."""
    task = load_task(write_task(folder, 1))
    sizes = {file: min(Image.open(file).size) for file in IMAGES.joinpath("images").iterdir()}
    largest = sorted(sizes, key=lambda file: (-sizes[file], file))[:count]
    for name in task.embed.backbones:
        loaded = load_backbone(resolve(name, task), "cpu")
        exact = embed(loaded, largest, "exact")
        yield from described(f"fast, {name}", exact, embed(loaded, largest, "fast"))
        yield from described(f"gpu, {name}", exact, embed(loaded, largest, "gpu"))
        halves = [at for at, file in enumerate(largest) if sizes[file] >= 512]
        with mock.patch.object(jpeg, "_least", lambda _: _HALVED):
            halved = embed(loaded, [largest[at] for at in halves], "fast")
        yield from described(f"halved, {name}", exact[halves], halved)


def embed(loaded: LoadedBackbone, files: list[Path], how: Decode) -> np.ndarray:
    """Return the embeddings (n, d) of the centre of every image."""
    crops = []
    card = GpuViews("cpu", as_a_card_does, {replace(geometry_of(loaded), decode="gpu"): CENTER})
    for file in files:
        content = file.read_bytes()
        decoded = decoding.decode_pixels(content, how)
        if isinstance(decoded, decoding.Observation):
            sys.exit(f"{file}: {decoded.status}")
        if decoded.is_small:
            image = PreparedImage(digest(content), decoded.observation, {}, content)
            [views] = card.complete([image])[0].views.values()
        else:
            views = render(decoded.image, geometry_of(loaded), CENTER, seed="")
        crops.append(views.crops[0])
    parts = [np.stack(crops[start : start + _BATCH]) for start in range(0, len(crops), _BATCH)]
    return np.concatenate([loaded.embed(part, np.zeros(len(part), bool)) for part in parts])


def as_a_card_does(files: Sequence[bytes]) -> list[torch.Tensor]:
    """Decode JPEGs with colours repeated."""
    pixels = [simplejpeg.decode_jpeg(file, "RGB", fastupsample=True) for file in files]
    return [torch.from_numpy(image).permute(2, 0, 1) for image in pixels]


def described(what: str, exact: np.ndarray, other: np.ndarray) -> Iterator[Figure]:
    """Return the least and the median cosine of rows."""
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(other, axis=1)
    cosines = np.einsum("nd,nd->n", exact, other) / lengths
    for name, value in (("least", cosines.min()), ("median", np.median(cosines))):
        yield Figure(f"{name} cosine to exact, {what}, {len(exact)} images", round(float(value), 4))


if __name__ == "__main__":
    main()
