"""Paths, PIL images and arrays, prepared for backbones as `embed` prepares files."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from reprlib import repr as shown
from typing import Any

import numpy as np
from PIL import Image

from archiveprobe.api.state import warn
from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import IMAGE_BYTES, TooManyBytesError, digest_of
from archiveprobe.embed.decoding import default_workers, prepare_images
from archiveprobe.embed.prepare import Preparation, PreparedImage
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.view_sets import View
from archiveprobe.embed.views import render
from archiveprobe.task.decoding import Observation, decode_opened, digest, rejected

GivenImage = Path | Image.Image | np.ndarray
# Below this many files starting decoder processes takes longer than decoding.
_FEW = 64
_FORMS = "a path, a PIL image or an array (height, width, 3) uint8"


def list_images(given: Any) -> list[GivenImage]:
    """Return images one by one; a frame or an array of one column counts as that column.

    Raises:
        InputError: it is no list of images; the message says which one is what instead.
    """
    single = isinstance(given, str | bytes | Path | Image.Image)
    if single or (isinstance(given, np.ndarray) and given.ndim == 3 and given.dtype == np.uint8):
        raise InputError("this is one image: put it into a list")
    if not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0:
        raise InputError(f"images must be a list, got {shown(given)}: each is {_FORMS}")
    shape: tuple[int, ...] = getattr(given, "shape", ())
    if len(shape) == 2:
        if shape[1] != 1:
            raise InputError(f"a table of {shape[1]} columns is no list of images: give one column")
        given = np.asarray(given, object)[:, 0]
    return [_image(item, at) for at, item in enumerate(given)]


def _image(item: Any, at: int) -> GivenImage:
    if isinstance(item, str | Path):
        return Path(item)
    if isinstance(item, Image.Image):
        return item
    if not isinstance(item, np.ndarray):
        raise InputError(f"image {at} is of the type {type(item).__name__}: give {_FORMS}")
    if item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3 or not item.size:
        raise InputError(f"image {at} is an array {item.shape} of {item.dtype}: give {_FORMS}")
    return item


def prepared_images(
    images: Sequence[GivenImage],
    geometry: Geometry,
    views: tuple[View, ...],
    workers: int | None,
) -> Iterator[PreparedImage]:
    """Prepare images in order, files in `workers` processes; one that is rejected has no views."""
    digests = [_digest(image) if isinstance(image, Path) else None for image in images]
    files = [
        (str(image), key)
        for image, key in zip(images, digests, strict=True)
        if isinstance(key, str)
    ]
    if workers is None:
        workers = 0 if len(files) <= _FEW else default_workers()
    # Paths are absolute, or relative to the current folder.
    preparation = Preparation(Path(), {geometry: views})
    of_files = prepare_images(files, preparation, workers=workers, notify=warn)
    for image, key in zip(images, digests, strict=True):
        if isinstance(key, Observation):
            yield PreparedImage("", key)
        elif isinstance(image, Path):
            yield next(of_files)
        else:
            yield _prepared(image, geometry, views)


def _digest(file: Path) -> str | Observation:
    try:
        return digest_of(file, IMAGE_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return rejected("missing_file")
    except IsADirectoryError:
        return rejected("not_a_file", "it is a folder")
    except TooManyBytesError as error:
        return rejected("too_many_bytes", str(error.strerror), error.size)
    except (OSError, ValueError) as error:
        return rejected("unreadable_file", getattr(error, "strerror", None) or str(error))


def _prepared(
    image: Image.Image | np.ndarray, geometry: Geometry, views: tuple[View, ...]
) -> PreparedImage:
    opened = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    pixels = decode_opened(opened)
    if isinstance(pixels, Observation):
        return PreparedImage("", pixels)
    # Draws of augmentK are seeded by the pixels, where there is no file.
    key = digest(pixels.tobytes())
    return PreparedImage(
        key, Observation("ok"), {geometry: render(pixels, geometry, views, seed=key)}
    )
