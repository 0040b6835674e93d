"""Small images for the page: WebP made from pixels alone, so that nothing else leaves with them.

A camera writes where and when an image was taken into EXIF, XMP, IPTC, comments and text chunks.
An encoder that is given pixels only cannot pass them on.
"""

import io
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from archiveprobe.base.cores import usable_cores
from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import read_ordinary
from archiveprobe.embed.prepare import read_image
from archiveprobe.embed.thumbnails import thumbnail_file
from archiveprobe.evaluate.task_state import read_state
from archiveprobe.task.config import Task
from archiveprobe.task.decoding import THUMBNAIL, Observation, decode
from archiveprobe.task.manifest import paths_by_digest

PAGE_SIZE, PREVIEW_SIZE = 192, 1024
"""The longer side of images among others, and of one that is looked at, in pixels."""
# 2,000 photographs of traffic accidents come to 10.5 MB at 192 px: 14 MB as text inside a page.
_QUALITY = 75
# A tenth larger than with 4, in half the time.
_METHOD = 2
# More than the pixels themselves, uncompressed: 256 x 256 x 3 bytes.
_THUMBNAIL_BYTES = 256 * 1024
_AT_ONCE = 256
# Decoding switches Pillow, and for TIFF the standard error stream, for the whole process.
_DECODING = threading.Lock()


def webp(content: bytes, size: int = PAGE_SIZE) -> bytes:
    """Encode a stored thumbnail (JPEG) as WebP of at most `size` x `size` pixels.

    Raises:
        ValueError: `content` is no thumbnail, or a damaged one.
    """
    return _encode(_pixels(content), size)


def thumbnail(task: Task, digest: str, path: str | None = None) -> bytes | None:
    """Return the thumbnail of an image as WebP; None where there is none and no image either.

    A thumbnail that is missing or damaged is made again from the image at `path` below the root,
    where that is there and still has this digest. Nothing is written.
    """
    return _thumbnail(task, digest, lambda _: path)


def page_thumbnails(task: Task, digests: Iterable[str]) -> Iterator[tuple[str, bytes | None]]:
    """Yield digests with their thumbnails as `thumbnail` returns them, in the order given.

    Where a thumbnail has to be made again, the task says where its image lies.
    """

    @cache
    def paths() -> Mapping[str, str]:
        try:
            state = read_state(task)
        except InputError:
            return {}
        return paths_by_digest(state.rows, state.entries)

    def of(digest: str) -> tuple[str, bytes | None]:
        return digest, _thumbnail(task, digest, lambda key: paths().get(key))

    waiting = iter(digests)
    with ThreadPoolExecutor(usable_cores()) as pool:
        # All at once would be a future for each of a million images.
        while part := list(islice(waiting, _AT_ONCE)):
            yield from pool.map(of, part)


def preview(task: Task, path: str, digest: str) -> bytes | None:
    """Return the image at `path` below the root, upright, as WebP of `PREVIEW_SIZE` at most.

    Where it is missing, changed or refused by the decoding policy, its stored thumbnail comes
    instead; None where there is no such thumbnail.
    """
    pixels = _of_image(task, path, digest, PREVIEW_SIZE)
    if pixels is None:
        return _thumbnail(task, digest, lambda _: None, PREVIEW_SIZE)
    return _encode(pixels, PREVIEW_SIZE)


def webp_of_image(content: bytes, size: int) -> bytes | None:
    """Encode the bytes of an image as WebP of at most `size` x `size`; None if none can be seen."""
    with _DECODING:
        image = decode(content)
    if isinstance(image, Observation):
        return None
    return _encode(image.thumbnail if size <= THUMBNAIL else image.pixels, size)


def _thumbnail(
    task: Task, digest: str, path_of: Callable[[str], str | None], size: int = PAGE_SIZE
) -> bytes | None:
    file = thumbnail_file(task.work / "thumbs", digest)
    try:
        return webp(read_ordinary(file, _THUMBNAIL_BYTES), size)
    except (OSError, ValueError):
        path = path_of(digest)
    pixels = None if path is None else _of_image(task, path, digest, size)
    return None if pixels is None else _encode(pixels, size)


def _pixels(content: bytes) -> Image.Image:
    """Decode a thumbnail as `embed` writes them; any other image is refused before its pixels."""
    try:
        with JpegImageFile(io.BytesIO(content)) as image:
            if max(image.size) > THUMBNAIL:
                raise ValueError(f"{image.width} x {image.height} pixels")
            return image.convert("RGB")
    except Exception as error:
        # What a broken file raises depends on where it is broken.
        raise ValueError(f"no JPEG: {error}") from None


def _of_image(task: Task, path: str, digest: str, size: int) -> Image.Image | None:
    """Decode the image itself, reduced to the size that is shown; None where it gives none."""
    with _DECODING:
        image = read_image(task.root, path, digest)
    if isinstance(image, Observation):
        return None
    return image.thumbnail if size <= THUMBNAIL else image.pixels


def _encode(image: Image.Image, size: int) -> bytes:
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    bare = Image.frombytes("RGB", image.size, image.tobytes())
    out = io.BytesIO()
    bare.save(out, "WEBP", quality=_QUALITY, method=_METHOD)
    return out.getvalue()
