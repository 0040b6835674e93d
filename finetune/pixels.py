"""Every picture of a run, decoded once: in memory where they are few, else in a file in work/.

Kept are the picture itself as uint8, shrunk to twice what the smallest crop needs, to draw
training views from, and the views to predict with, which are rendered from the original as `embed`
and `predict` do. Equal files are decoded once. The file is locked while it is in use and removed
afterwards; one that a killed run left has no lock, and the next run drops it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from archiveprobe.embed.decoder_pool import DecoderError, DecoderPool
from archiveprobe.embed.prepare import read_image
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.views import RESAMPLING, Rendered, View, render
from archiveprobe.finetune.pool import Place, Pool
from archiveprobe.task.images import OUT_OF_MEMORY, Observation, rejected

MEMORY_LIMIT = 1 << 30
"""Bytes up to which pixels stay in memory."""
SECONDS_PER_PICTURE = 60.0
_SPARE = 2
_AHEAD_PER_WORKER = 8


@dataclass(frozen=True)
class Wanted:
    """What to keep of a picture: its shorter side in pixels, and views at a geometry."""

    side: int
    geometry: Geometry
    views: tuple[View, ...]


@dataclass(frozen=True)
class Decoded:
    """A picture (height, width, 3) uint8 and its rendered views; only a status if unreadable."""

    status: str
    picture: np.ndarray | None = None
    rendered: Rendered | None = None


def side_kept(size: int, crop_scale: float) -> int:
    """The shorter side to keep, in pixels: twice that at which a crop of that share of the area has
    `size` pixels.

    A crop is resized from what is kept, so a picture that was shrunk is resampled twice. Each time
    what lies just below the new limit of frequencies is dampened, and if both limits are the same
    the crop is blurred: cosines of MobileNetV2 embeddings to crops from the whole picture (60
    photographs of 1000 x 667 pixels, crops of 0.8 to 1) are .9951 in the median and .9846 at worst,
    with twice the side .9997 and .9989, with three times 1.0000 and .9998. Twice it is: a
    photograph of 1080 x 1350 takes 0.9 MB for the CLIP recipe instead of 4.4 MB.
    """
    return math.ceil(_SPARE * size / math.sqrt(crop_scale))


@dataclass
class Pixels:
    """The pixels of n rows, in the order of the rows; a row without is marked by its status.

    Small pickles where the pool is a file: other processes map the same one.
    """

    places: list[Place | None]
    statuses: list[str]
    pool: np.ndarray
    file: Path | None = None
    held: Any = None

    def __len__(self) -> int:
        return len(self.places)

    @property
    def readable(self) -> np.ndarray:
        """(n,) whether a row has pixels."""
        return np.array([place is not None for place in self.places], bool)

    def picture(self, row: int) -> np.ndarray:
        """The shrunk picture (height, width, 3) uint8, not to be written to."""
        place = self._place(row)
        return self._cut(place.offset, place.shape)

    def view(self, row: int, view: int) -> np.ndarray:
        """A view (size, size, 3) uint8, as `embed` renders it."""
        place = self._place(row)
        crop = self._cut(place.offset + math.prod(place.shape), place.crops)[place.crop[view]]
        return np.asarray(crop[:, ::-1] if place.mirror[view] else crop)

    def close(self) -> None:
        """Let go of the pixels, and remove their file."""
        self.pool = np.empty(0, np.uint8)
        if self.held is not None:
            assert self.file is not None
            self.file.unlink(missing_ok=True)
            self.held.close()
            self.held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "held": None}
        return state if self.file is None else {**state, "pool": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.file is not None:
            self.pool = np.memmap(self.file, np.uint8, "r")

    def _place(self, row: int) -> Place:
        place = self.places[row]
        if place is None:
            raise IndexError(f"row {row} has no pixels: {self.statuses[row]}")
        return place

    def _cut(self, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        return self.pool[offset : offset + math.prod(shape)].reshape(shape)


def load_pixels(
    root: Path,
    rows: Sequence[tuple[str, str]],
    wanted: Wanted,
    folder: Path,
    *,
    workers: int,
    blank: bool = False,
    memory_limit: int = MEMORY_LIMIT,
    advance: Callable[[], None] = lambda: None,
) -> Pixels:
    """Decode every distinct picture of `rows`, (path below root, digest or ""), once.

    `workers` processes decode, 0: this one. Beyond `memory_limit` bytes the pixels go to a file in
    `folder`; with 0 always, which other processes can share. `blank` makes unreadable rows white
    pictures; their statuses stay. `advance` is called per distinct picture.

    Raises:
        InputError: the disk takes no more pixels.
        InputError: no decoder process can start.
    """
    paths = {key: path for path, key in rows if key}
    with Pool(folder, memory_limit) as pool:
        known: dict[str, tuple[str, Place | None]] = {}
        for key, decoded in _decoded(root, paths, wanted, workers):
            known[key] = decoded.status, _keep(pool, decoded)
            advance()
        lost: tuple[str, Place | None] = ("unreadable", None)
        found = [known.get(key, lost) for _, key in rows]
        places = [place for _, place in found]
        if blank and None in places:
            white = _keep(pool, _shown(blank_picture(wanted.side), wanted, "blank", ""))
            places = [place or white for place in places]
        return Pixels(places, [status for status, _ in found], *pool.finish())


def _keep(pool: Pool, decoded: Decoded) -> Place | None:
    if decoded.picture is None or decoded.rendered is None:
        return None
    rendered = decoded.rendered
    return pool.add(decoded.picture, rendered.crops, rendered.crop, rendered.mirror)


def blank_picture(side: int) -> Image.Image:
    """What stands for a picture that cannot be read."""
    return Image.new("RGB", (side, side), "white")


def decode_one(path: str, key: str, root: Path, wanted: Wanted) -> Decoded:
    """Read and decode one file; runs in decoder processes."""
    try:
        image = read_image(root, path, key)
        if isinstance(image, Observation):
            return Decoded(image.status)
        return _shown(image.pixels, wanted, image.observation.status, key)
    except MemoryError:
        return Decoded(rejected(*OUT_OF_MEMORY).status)


def _shown(picture: Image.Image, wanted: Wanted, status: str, seed: str) -> Decoded:
    rendered = render(picture, wanted.geometry, wanted.views, seed=seed)
    shrunk = _shrunk(picture, wanted)
    return Decoded(status, np.asarray(shrunk), rendered)


def _shrunk(picture: Image.Image, wanted: Wanted) -> Image.Image:
    shorter = min(picture.size)
    if shorter <= wanted.side:
        return picture
    width, height = (max(wanted.side, round(x * wanted.side / shorter)) for x in picture.size)
    return picture.resize((width, height), RESAMPLING[wanted.geometry.interpolation])


def _decoded(
    root: Path, paths: dict[str, str], wanted: Wanted, workers: int
) -> Iterator[tuple[str, Decoded]]:
    if workers == 0:
        for key, path in paths.items():
            yield key, decode_one(path, key, root, wanted)
        return
    work = partial(decode_one, root=root, wanted=wanted)
    with DecoderPool(work, workers, seconds=SECONDS_PER_PICTURE) as pool:
        calls = ((path, key) for key, path in paths.items())
        for (_, key), result in pool.map(calls, _AHEAD_PER_WORKER * workers):
            # One that hung or died costs that picture only.
            failed = isinstance(result, DecoderError)
            yield key, Decoded(result.status) if failed else result
