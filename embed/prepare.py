"""One image's way from bytes to pixels: read, check, decode, thumbnail, views.

Runs in decoder processes, so it imports neither torch nor a model library.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from archiveprobe.archive.references import Reference, UnreadableError
from archiveprobe.archive.source import Source
from archiveprobe.base.files import temporary_beside
from archiveprobe.base.reading import IMAGE_BYTES, TooManyBytesError, read_ordinary
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.thumbnails import thumbnail_file
from archiveprobe.embed.view_sets import View
from archiveprobe.embed.views import Rendered, render
from archiveprobe.task.config import Decode
from archiveprobe.task.decoding import (
    OUT_OF_MEMORY,
    DecodedImage,
    DecodedPixels,
    Observation,
    decode,
    decode_pixels,
    digest,
    rejected,
    with_thumbnail,
)
from archiveprobe.task.rows import locate

_CHANGED = "it changed while it was read: run again"


@dataclass(frozen=True)
class Preparation:
    """What to make of every image: which views at which geometry, and where thumbnails go.

    `decode` is how pixels are made for thumbnails and observations; views have their geometry's.
    Those of "gpu" are made later, as far as a GPU can: see embed/gpu_views.py.
    """

    root: Path
    views: Mapping[Geometry, tuple[View, ...]]
    thumbnails: Path | None = None
    decode: Decode = "exact"


@dataclass(frozen=True)
class PreparedImage:
    """An image ready for the backbones; no `views` where it was rejected.

    `digest` is "" where there are no bytes. `jpeg` are those of a file of which a GPU is to make
    the views that are lacking.
    """

    digest: str
    observation: Observation
    views: Mapping[Geometry, Rendered] = field(default_factory=dict)
    jpeg: bytes = b""


def read_image(root: Path, path: str, expected: str) -> DecodedImage | Observation:
    """Read and decode the image at `path` below the root; see `read_content`."""
    content = read_content(root, path, expected)
    return content if isinstance(content, Observation) else decode(content)


def read_content(root: Path, path: str, expected: str) -> bytes | Observation:
    """Read the file at `path` below the root; why not, where that is impossible.

    A file whose bytes no longer have the `expected` digest is rejected as `changed_file`.
    """
    try:
        content = read_ordinary(locate(root, path), IMAGE_BYTES)
    except TooManyBytesError as error:
        # It was hashed, so it was smaller then.
        return rejected("changed_file", _CHANGED, error.size)
    except OSError as error:
        return rejected("unreadable_file", str(error))
    if digest(content) != expected:
        return rejected("changed_file", _CHANGED, len(content))
    return content


def prepare(path: str, expected: str, preparation: Preparation) -> PreparedImage:
    """Read the image at `path` below the root, write its thumbnail and render its views."""
    try:
        content = read_content(preparation.root, path, expected)
        if isinstance(content, Observation):
            return PreparedImage(expected, content)
        decoded = decode_pixels(content, preparation.decode)
        if isinstance(decoded, Observation):
            return PreparedImage(expected, decoded)
        image = with_thumbnail(decoded)
        if preparation.thumbnails is not None:
            _write_thumbnail(thumbnail_file(preparation.thumbnails, expected), image.thumbnail)
        return _rendered(
            content, decoded._replace(observation=image.observation), expected, preparation
        )
    except MemoryError:
        return PreparedImage(expected, rejected(*OUT_OF_MEMORY))


def prepare_reference(
    reference: Reference, source: Source, preparation: Preparation
) -> PreparedImage:
    """Read an image of an archive through its source, hash it and render its views.

    Raises:
        InputError: the source gives nothing at all, as where it refuses its credentials.
    """
    key = ""
    try:
        content = source.read(reference)
        key = digest(content)
        decoded = decode_pixels(content, preparation.decode)
        if isinstance(decoded, Observation):
            return PreparedImage(key, decoded)
        return _rendered(content, decoded, key, preparation)
    except UnreadableError as error:
        return PreparedImage("", rejected(error.status, error.detail, error.size))
    except MemoryError:
        return PreparedImage(key, rejected(*OUT_OF_MEMORY))


def _rendered(
    content: bytes, first: DecodedPixels, key: str, preparation: Preparation
) -> PreparedImage:
    views, decoded, jpeg = {}, {preparation.decode: first}, b""
    for geometry, wanted in preparation.views.items():
        how = geometry.decode
        if how not in decoded:
            again = decode_pixels(content, how)
            if isinstance(again, Observation):
                return PreparedImage(key, again)
            decoded[how] = again
        if decoded[how].is_small:
            jpeg = content
        else:
            views[geometry] = render(decoded[how].image, geometry, wanted, seed=key)
    return PreparedImage(key, first.observation, views, jpeg)


def _write_thumbnail(file: Path, thumbnail: Image.Image) -> None:
    # A thumbnail can be made again, so it need not be durable; but it is never half a file.
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(file)
    try:
        thumbnail.save(temporary, "JPEG", quality=85)
        temporary.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
