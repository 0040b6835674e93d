"""One image's way from bytes to pixels: read, check, decode, thumbnail, views.

Runs in decoder processes, so it imports neither torch nor a model library.
"""

import contextlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from archiveprobe.base.reading import IMAGE_BYTES, TooManyBytesError, read_ordinary
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.views import Rendered, View, render
from archiveprobe.task.decoding import OUT_OF_MEMORY, Observation, decode, digest, rejected
from archiveprobe.task.rows import locate

_CHANGED = "it changed while it was read: run again"


@dataclass(frozen=True)
class Order:
    """What to make of every image: which views at which geometry, and where thumbnails go."""

    root: Path
    views: Mapping[Geometry, tuple[View, ...]]
    thumbnails: Path | None = None


@dataclass(frozen=True)
class Prepared:
    """An image ready for the backbones: empty `views` where it was rejected."""

    digest: str
    observation: Observation
    views: Mapping[Geometry, Rendered] = field(default_factory=dict)


def thumbnail_file(folder: Path, digest: str) -> Path:
    """Where the thumbnail of an image lies."""
    return folder / digest[:2] / f"{digest}.jpg"


def prepare(path: str, expected: str, order: Order) -> Prepared:
    """Read and decode the image at `path` below the root and render its views.

    A file whose bytes no longer have the `expected` digest is rejected as `changed_file`.
    """
    try:
        return _prepare(path, expected, order)
    except MemoryError:
        return Prepared(expected, rejected(*OUT_OF_MEMORY))


def _prepare(path: str, expected: str, order: Order) -> Prepared:
    try:
        content = read_ordinary(locate(order.root, path), IMAGE_BYTES)
    except TooManyBytesError as error:
        # It was hashed, so it was smaller then.
        return Prepared(expected, rejected("changed_file", _CHANGED, error.size))
    except OSError as error:
        return Prepared(expected, rejected("unreadable_file", str(error)))
    if digest(content) != expected:
        return Prepared(expected, rejected("changed_file", _CHANGED, len(content)))
    image = decode(content)
    if isinstance(image, Observation):
        return Prepared(expected, image)
    if order.thumbnails is not None:
        _write_thumbnail(thumbnail_file(order.thumbnails, expected), image.thumbnail)
    views = {
        geometry: render(image.pixels, geometry, wanted, seed=expected)
        for geometry, wanted in order.views.items()
    }
    return Prepared(expected, image.observation, views)


def _write_thumbnail(file: Path, thumbnail: Image.Image) -> None:
    # A thumbnail can be made again, so it need not be durable; but it is never half a file.
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        thumbnail.save(temporary, "JPEG", quality=85)
        temporary.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
