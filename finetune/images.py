"""Every image of a run, decoded once: in memory where they are few, else in a file in work/.

Kept are the image itself as uint8, shrunk to twice what the smallest crop needs, to draw training
inputs from, and the views to predict with, which are rendered from the original as `embed` does.
Equal files are decoded once. The file has no name, so it is gone with the last process that uses
it, also when that is killed.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.reduction import DupFd
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from PIL import Image

from archiveprobe.base.files import explained
from archiveprobe.embed.decoder_pool import DecoderError, DecoderPool
from archiveprobe.embed.decoding import AHEAD_PER_WORKER, SECONDS_PER_IMAGE
from archiveprobe.embed.prepare import read_content
from archiveprobe.embed.preprocess import Geometry, Preprocess
from archiveprobe.embed.view_sets import View
from archiveprobe.embed.views import RESAMPLING, Rendered, render
from archiveprobe.finetune.augment import Augmentation
from archiveprobe.finetune.loader import Draw
from archiveprobe.task.decoding import OUT_OF_MEMORY, Observation, decode_pixels, rejected

if TYPE_CHECKING:
    import torch

MEMORY_LIMIT = 1 << 30
"""Bytes up to which pixels stay in memory."""
_SPARE = 2


@dataclass(frozen=True)
class PixelSpec:
    """What to keep of an image: its shorter side in pixels, and views at a geometry."""

    side: int
    geometry: Geometry
    views: tuple[View, ...]


@dataclass(frozen=True)
class DecodedImage:
    """An image (height, width, 3) uint8 and its rendered views; only a status if unreadable."""

    status: str
    pixels: np.ndarray | None = None
    rendered: Rendered | None = None


@dataclass(frozen=True)
class Place:
    """Where an image and its distinct crops lie; view v is crop[v], mirrored where mirror[v]."""

    offset: int
    shape: tuple[int, ...]
    crops: tuple[int, ...]
    crop: tuple[int, ...]
    mirror: tuple[bool, ...]


def stored_side(size: int, crop_scale: float) -> int:
    """Return the shorter side to keep, in pixels: twice that at which a crop of that share of the
    area has `size` pixels.

    A crop is resized from what is kept, so an image that was shrunk is resampled twice. Each time
    what lies just below the new limit of frequencies is dampened, and if both limits are the same
    the crop is blurred: cosines of MobileNetV2 embeddings to crops from the whole image (60
    images of 1000 x 667 pixels, crops of 0.8 to 1) are .9951 in the median and .9846 at worst,
    with twice the side .9997 and .9989, with three times 1.0000 and .9998. Twice it is: a
    image of 1080 x 1350 takes 0.9 MB for the CLIP recipe instead of 4.4 MB.
    """
    return math.ceil(_SPARE * size / math.sqrt(crop_scale))


@dataclass
class Pixels:
    """The pixels of n rows, in the order of the rows; a row without is marked by its status.

    Where the bytes are a `file`, processes that are started with this object map the same one.
    """

    places: list[Place | None]
    statuses: list[str]
    bytes: np.ndarray
    file: Any = None

    def __len__(self) -> int:
        return len(self.places)

    @property
    def readable(self) -> np.ndarray:
        """(n,) whether a row has pixels."""
        return np.array([place is not None for place in self.places], bool)

    def image(self, row: int) -> np.ndarray:
        """Return the shrunk image (height, width, 3) uint8, not to be written to."""
        place = self._place(row)
        return self._array(place.offset, place.shape)

    def rendered(self, row: int, views: Sequence[int]) -> Rendered:
        """Return what some views show, as `embed` renders it; not to be written to."""
        place = self._place(row)
        return Rendered(
            self._array(place.offset + math.prod(place.shape), place.crops),
            tuple(place.crop[view] for view in views),
            tuple(place.mirror[view] for view in views),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the pixels."""
        self.bytes = np.empty(0, np.uint8)
        if self.file is not None:
            self.file.close()

    def __getstate__(self) -> dict[str, Any]:
        if self.file is None:
            return self.__dict__
        return {**self.__dict__, "bytes": None, "file": DupFd(self.file.fileno())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.file is not None:
            self.file = open(self.file.detach(), "rb")  # noqa: PTH123, SIM115
            self.bytes = np.memmap(self.file, np.uint8, "r")

    def _place(self, row: int) -> Place:
        place = self.places[row]
        if place is None:
            raise IndexError(f"row {row} has no pixels: {self.statuses[row]}")
        return place

    def _array(self, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        return self.bytes[offset : offset + math.prod(shape)].reshape(shape)


@dataclass(frozen=True)
class ImageRows:
    """n rows of decoded images as a dataset for torch; see loader.InputRows.

    Without an augmentation they can be looked at only.
    """

    pixels: Pixels
    preprocess: Preprocess
    augmentation: Augmentation | None = None

    @property
    def readable(self) -> np.ndarray:
        """(n,) whether a row has pixels."""
        return self.pixels.readable

    def with_seed(self, seed: int) -> "ImageRows":
        """Return the same rows with another seed of what is drawn."""
        assert self.augmentation is not None
        return replace(self, augmentation=replace(self.augmentation, seed=seed))

    def __getitem__(self, draw: Draw) -> "torch.Tensor":
        """Draw a training input, as `Augmentation` does."""
        assert self.augmentation is not None
        image = self.pixels.image(draw.row)
        return self.augmentation(image, draw.epoch, draw.row, draw.occurrence)

    def rendered(self, row: int, views: Sequence[int]) -> Rendered:
        """Return what some views show of a row."""
        return self.pixels.rendered(row, views)


def load_pixels(
    root: Path,
    rows: Sequence[tuple[str, str]],
    spec: PixelSpec,
    folder: Path,
    *,
    workers: int,
    blank: bool = False,
    memory_limit: int = MEMORY_LIMIT,
    advance: Callable[[], None] = lambda: None,
) -> Pixels:
    """Decode every distinct image of `rows`, (path below root, digest or ""), once.

    `workers` processes decode, 0: this one. Beyond `memory_limit` bytes the pixels go to a file in
    `folder`; with 0 always, which other processes can share. `blank` makes unreadable rows white
    images; their statuses stay. `advance` is called per distinct image.

    Raises:
        InputError: the disk takes no more pixels, or no decoder process can start.
    """
    paths = {key: path for path, key in rows if key}
    decoded: dict[str, tuple[str, Place | None]] = {}
    with _PixelWriter(folder, memory_limit) as writer:
        for key, image in _decode_all(root, paths, spec, workers):
            decoded[key] = image.status, writer.add(image)
            advance()
        unreadable: tuple[str, Place | None] = ("unreadable", None)
        of_rows = [decoded.get(key, unreadable) for _, key in rows]
        places = [place for _, place in of_rows]
        if blank and None in places:
            white = writer.add(_rendered(blank_image(spec.side), spec, "blank", ""))
            places = [place or white for place in places]
        return Pixels(places, [status for status, _ in of_rows], *writer.finish())


def blank_image(side: int) -> Image.Image:
    """Make the image that stands for one that cannot be read."""
    return Image.new("RGB", (side, side), "white")


def decode_file(path: str, key: str, root: Path, spec: PixelSpec) -> DecodedImage:
    """Read and decode one file; runs in decoder processes."""
    try:
        content = read_content(root, path, key)
        if isinstance(content, Observation):
            return DecodedImage(content.status)
        decoded = decode_pixels(content, spec.geometry.decode)
        if isinstance(decoded, Observation):
            return DecodedImage(decoded.status)
        return _rendered(decoded.image, spec, decoded.observation.status, key)
    except MemoryError:
        return DecodedImage(rejected(*OUT_OF_MEMORY).status)


def _rendered(image: Image.Image, spec: PixelSpec, status: str, seed: str) -> DecodedImage:
    rendered = render(image, spec.geometry, spec.views, seed=seed)
    shorter = min(image.size)
    if shorter > spec.side:
        width, height = (max(spec.side, round(x * spec.side / shorter)) for x in image.size)
        image = image.resize((width, height), RESAMPLING[spec.geometry.interpolation])
    return DecodedImage(status, np.asarray(image), rendered)


def _decode_all(
    root: Path, paths: Mapping[str, str], spec: PixelSpec, workers: int
) -> Iterator[tuple[str, DecodedImage]]:
    if workers == 0:
        for key, path in paths.items():
            yield key, decode_file(path, key, root, spec)
        return
    work = partial(decode_file, root=root, spec=spec)
    with DecoderPool(work, workers, seconds=SECONDS_PER_IMAGE) as pool:
        calls = ((path, key) for key, path in paths.items())
        for (_, key), result in pool.map(calls, AHEAD_PER_WORKER * workers):
            # A process that hangs or dies costs its image only.
            failed = isinstance(result, DecoderError)
            yield key, DecodedImage(result.status) if failed else result


class _PixelWriter:
    """Bytes that grow: in memory up to a limit, then in a file without a name."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit, self._size = folder, limit, 0
        # A limit of 0 would mean none to it.
        self._stream: Any = SpooledTemporaryFile(max(1, limit), dir=str(folder))  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            # Closing tries once more to write what a full disk did not take.
            with contextlib.suppress(OSError):
                self._stream.close()

    def add(self, image: DecodedImage) -> Place | None:
        """Keep an image and its crops. Raises InputError: the disk takes no more."""
        if image.pixels is None or image.rendered is None:
            return None
        views = image.rendered
        place = Place(self._size, image.pixels.shape, views.crops.shape, views.crop, views.mirror)
        with explained(f"keep decoded images in {self._folder}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            # Written, not stored through a map, where a full disk would end the process.
            for part in (image.pixels, views.crops):
                self._size += self._stream.write(np.ascontiguousarray(part).data)
        return place

    def finish(self) -> tuple[np.ndarray, Any]:
        """Return all bytes (b,), and the file that they are in, if they are."""
        if self._size <= self._limit:
            self._stream.seek(0)
            return np.frombuffer(self._stream.read(), np.uint8), None
        with explained(f"keep decoded images in {self._folder}"):
            self._stream.flush()
            mapped = np.memmap(self._stream, np.uint8, "r")
        # No longer closed at the end of the block.
        file, self._stream = self._stream, None
        return mapped, file
