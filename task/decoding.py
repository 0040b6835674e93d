"""Decoding an image, and what to do with files that are broken, hostile or odd.

The policy, measured on some two thousand odd files: judge by content and never by extension; load
exactly once, before EXIF is touched (a second load of a broken PNG silently returns a part of the
image); always apply the EXIF orientation; lay transparency on white; scale 16-bit greyscale;
take the first frame; refuse truncated files and anything past the pixel limit.
"""

import contextlib
import hashlib
import io
import math
import os
import re
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageFile, ImageStat

from archiveprobe.task.config import Decode
from archiveprobe.task.file_kind import is_heif, looks_truncated, reason_for_unknown
from archiveprobe.task.jpeg import FAST_SIDE, SMALL_SIDE, decode_jpeg, decode_small

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")
PIXEL_LIMIT = 64_000_000
THUMBNAIL = 256
TINY = 32
EXTREME_ASPECT = 10
BLANK_RANGE = 3
_FEW = 16
# Levels by which a uniform frame may differ from the colour of its corner.
_TOLERANCE = 12
MODES = frozenset("1 L LA La P PA RGB RGBA RGBa RGBX CMYK YCbCr LAB HSV".split())

# Raised whenever a change here can alter pixels or statuses; part of every cache's fingerprint.
POLICY: dict[str, str | int] = {
    "version": 1,
    "orientation": "exif",
    "alpha": "white",
    "grey16": "scaled",
    "frame": 0,
    "truncated": "reject",
    "pixel_limit": PIXEL_LIMIT,
}
FLAGS = frozenset({"blank", "tiny", "extreme_aspect"})
REJECTIONS = frozenset(
    "missing_file not_a_file outside_root unreadable_file changed_file empty_file not_an_image "
    "html_not_image git_lfs_pointer video_not_image heic_needs_plugin format_not_allowed "
    "mode_not_supported too_many_bytes too_many_pixels bad_dimensions text_chunk_limit truncated "
    "corrupt decode_timeout decoder_died".split()
)
# These may be gone at the next run, so they are tried again.
PASSING = frozenset(
    "missing_file unreadable_file changed_file heic_needs_plugin decode_timeout "
    "decoder_died".split()
)
# The image is innocent of it, so it must not be rejected for good.
OUT_OF_MEMORY = "decoder_died", "memory ran out"

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (5, 6, 7, 8)
_ORIENTATION_TAG = 0x0112
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Observation(NamedTuple):
    """What the decode saw: a status (`ok`, a flag or a rejection) and properties of the image.

    Sizes are pixels after the EXIF orientation; `border` is the share of the area that a uniform
    frame takes; the colours are means in [0, 255]; `phash` is 64 bits in hex, borders cut off.
    """

    status: str
    detail: str = ""
    bytes: int | None = None
    width: int | None = None
    height: int | None = None
    format: str = ""
    frames: int | None = None
    orientation: int | None = None
    exif: int | None = None
    border: float | None = None
    red: float | None = None
    green: float | None = None
    blue: float | None = None
    phash: str = ""

    @property
    def usable(self) -> bool:
        """Return whether there is an image to embed."""
        return self.status == "ok" or self.status in FLAGS


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image (RGB, upright) with its thumbnail and what was observed."""

    pixels: Image.Image
    thumbnail: Image.Image
    observation: Observation


class DecodedPixels(NamedTuple):
    """A decoded image (RGB, upright) and what was observed, without what a thumbnail tells.

    One that `is_small` is a small copy of an image whose views a GPU is to make.
    """

    image: Image.Image
    observation: Observation
    is_small: bool = False


class _RejectedError(Exception):
    def __init__(self, status: str, detail: str = "") -> None:
        super().__init__(detail)
        self.status = status


def policy(how: Decode) -> dict[str, str | int]:
    """Return everything that pixels depend on, as fingerprints keep it."""
    if how == "exact":
        return POLICY
    if how == "gpu":
        return POLICY | {
            "jpeg": how,
            "jpeg_side": SMALL_SIDE,
            "torchvision": release("torchvision"),
        }
    return POLICY | {"jpeg": how, "jpeg_side": FAST_SIDE, "simplejpeg": version("simplejpeg")}


def release(package: str) -> str:
    """Return major and minor version of an installed package."""
    return ".".join(version(package).split(".")[:2])


def passing_now() -> frozenset[str]:
    """Return the statuses to try again: HEIC only where what it needs is installed by now."""
    return PASSING if find_spec("pillow_heif") else PASSING - {"heic_needs_plugin"}


def digest(content: bytes) -> str:
    """Compute the SHA-256 of a file's bytes in hex: the key of its embedding."""
    return hashlib.sha256(content).hexdigest()


def decode(content: bytes, how: Decode = "exact") -> DecodedImage | Observation:
    """Decode the bytes of a file by the policy; a rejected one gives its Observation only.

    The size observed is the file's own also where `how` gives fewer pixels.
    """
    decoded = decode_pixels(content, how)
    return decoded if isinstance(decoded, Observation) else with_thumbnail(decoded)


def with_thumbnail(decoded: DecodedPixels) -> DecodedImage:
    """Return decoded pixels with a thumbnail, and the statistics that are made of it."""
    thumbnail = _thumbnail(decoded.image)
    observation = decoded.observation._replace(**_statistics(thumbnail))
    return DecodedImage(decoded.image, thumbnail, observation)


def decode_pixels(content: bytes, how: Decode = "exact") -> DecodedPixels | Observation:
    """Decode as `decode` does, without a thumbnail and the statistics that are made of it."""
    try:
        with warnings.catch_warnings(), _own_switches(), _decoder_messages(content):
            warnings.simplefilter("ignore")
            image, seen, is_small = _load(content, how)
    except _RejectedError as rejection:
        return Observation(rejection.status, _line(str(rejection)), len(content))
    flag = _flag(image, (seen["width"], seen["height"]))
    return DecodedPixels(image, Observation(flag, bytes=len(content), **seen), is_small)


def _load(content: bytes, how: Decode) -> tuple[Image.Image, dict[str, Any], bool]:
    if not content:
        raise _RejectedError("empty_file")
    try:
        image = _open(content)
    except Image.DecompressionBombError as error:
        raise _RejectedError("too_many_pixels", str(error)) from None
    except MemoryError:
        raise _RejectedError(*OUT_OF_MEMORY) from None
    except _RejectedError:
        raise
    except Exception as error:
        raise _RejectedError(*reason_for_unknown(content, error, PIXEL_LIMIT)) from None
    with image:
        return _upright(image, content, how)


def decode_opened(image: Image.Image) -> Image.Image | Observation:
    """Bring an image that somebody else has opened into the form of `decode`: RGB, upright.

    One that the policy rejects gives its Observation only.
    """
    try:
        with warnings.catch_warnings(), _own_switches():
            warnings.simplefilter("ignore")
            return _upright(image, b"", "exact")[0]
    except _RejectedError as rejection:
        return rejected(rejection.status, str(rejection))


def _upright(
    image: Image.Image, content: bytes, how: Decode
) -> tuple[Image.Image, dict[str, Any], bool]:
    """Load an image; its pixels in RGB, upright, its properties, and whether they are small."""
    _check_size(image)
    if image.mode not in MODES and not image.mode.startswith("I;16"):
        raise _RejectedError("mode_not_supported", f"mode {image.mode}")
    try:
        turned = _turned_by_loading(image)
        small = decode_small(content, image) if how == "gpu" else None
        upright = small or decode_jpeg(content, image, how)
        if upright is None:
            image.load()
        seen = _properties(image)
        upright = upright or _rgb(image)
    except MemoryError:
        raise _RejectedError(*OUT_OF_MEMORY) from None
    except Exception as error:
        raise _broken(content, error) from None
    seen["width"], seen["height"] = image.size
    if seen["orientation"] in _TRANSPOSE:
        upright = upright.transpose(_TRANSPOSE[seen["orientation"]])
    if seen["orientation"] in _ON_ITS_SIDE:
        seen["width"], seen["height"] = seen["height"], seen["width"]
    # Pillow writes some of it into every file that is made of these pixels, a comment for one.
    upright.info = {}
    return upright, seen | turned, small is not None


def _open(content: bytes) -> Image.Image:
    """Open a file by a decoder that is allowed for its content; the pixels are not decoded yet.

    HEIC has one of its own, which knows no other format, so the rest is as without it.
    """
    if not is_heif(content):
        return Image.open(io.BytesIO(content), formats=FORMATS)
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise _RejectedError(*reason_for_unknown(content, error, PIXEL_LIMIT)) from None
    if looks_truncated(content):
        # Its decoder paints what is missing in one colour.
        raise _RejectedError("truncated")
    try:
        image: Image.Image = HeifImageFile(io.BytesIO(content))  # type: ignore[no-untyped-call]
    except MemoryError:
        raise
    except Exception as error:
        raise _broken(content, error) from None
    return image


def _broken(content: bytes, error: Exception) -> _RejectedError:
    status = "truncated" if looks_truncated(content) else "corrupt"
    return _RejectedError(status, f"{type(error).__name__}: {error}")


def _turned_by_loading(image: Image.Image) -> dict[str, int]:
    """Return the orientation that loading a TIFF or a HEIC applies itself, dropping the tag."""
    if image.format == "HEIF":
        return {"orientation": _valid(image.info.get("original_orientation"))}
    tags = getattr(image, "tag_v2", None)
    return {} if tags is None else {"orientation": _valid(tags.get(_ORIENTATION_TAG, 1))}


def _check_size(image: Image.Image) -> None:
    size = f"{image.width} x {image.height} pixels"
    if min(image.size) < 1:
        raise _RejectedError("bad_dimensions", size)
    if image.width * image.height > PIXEL_LIMIT:
        raise _RejectedError("too_many_pixels", f"{size}, limit {PIXEL_LIMIT}")


def _properties(image: Image.Image) -> dict[str, Any]:
    try:
        exif = image.getexif()
        orientation, tags = exif.get(_ORIENTATION_TAG, 1), len(exif)
    except Exception:
        # A broken EXIF block says nothing about the pixels, which are loaded by now.
        orientation, tags = 1, 0
    return {
        "format": image.format or "",
        "frames": int(getattr(image, "n_frames", 1)),
        "orientation": _valid(orientation),
        "exif": tags,
    }


def _valid(orientation: Any) -> int:
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        # A plain convert clips everything above 255, which turns the image white.
        wide = np.asarray(image).astype(np.float32)
        return Image.fromarray(np.rint(wide / 257).astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(paper, layer).convert("RGB")
    return image.convert("RGB")


def _flag(image: Image.Image, size: tuple[int, int]) -> str:
    if max(size) > EXTREME_ASPECT * min(size):
        return "extreme_aspect"
    if min(size) < TINY:
        return "tiny"
    # Of most images a few pixels tell that they are not blank.
    some = image.resize((_FEW, _FEW), Image.Resampling.NEAREST)
    return "blank" if _is_flat(some) and _is_flat(image) else "ok"


def _is_flat(image: Image.Image) -> bool:
    extrema: Any = image.getextrema()
    return all(high - low <= BLANK_RANGE for low, high in extrema)


def _thumbnail(image: Image.Image) -> Image.Image:
    """Return what `Image.thumbnail` makes of a copy, without copying the whole image first."""
    longest, aspect = THUMBNAIL, image.width / image.height
    if max(image.size) <= longest:
        return image.copy()
    # Of the two whole numbers around the exact length, the one that changes the aspect less.
    if aspect <= 1:
        width = min(*_around(longest * aspect), key=lambda side: abs(aspect - side / longest))
        size = width, longest
    else:
        height = min(*_around(longest / aspect), key=lambda side: abs(aspect - longest / side))
        size = longest, height
    return image.resize(size, Image.Resampling.BOX, reducing_gap=2.0)


def _around(length: float) -> tuple[int, int]:
    # An image is never thinner than one pixel.
    return max(1, math.floor(length)), max(1, math.ceil(length))


def _statistics(thumbnail: Image.Image) -> dict[str, Any]:
    import imagehash

    inner = _inner_box(thumbnail)
    red, green, blue = (round(mean, 2) for mean in ImageStat.Stat(thumbnail).mean)
    return {
        "border": round(1 - _area(inner) / _area((0, 0, *thumbnail.size)), 4),
        "red": red,
        "green": green,
        "blue": blue,
        "phash": str(imagehash.phash(thumbnail.crop(inner))),
    }


def _inner_box(image: Image.Image) -> tuple[int, int, int, int]:
    """Find the box (left, top, right, bottom) inside a uniform frame of the corner's colour."""
    corner: Any = image.getpixel((0, 0))
    differs = ImageChops.difference(image, Image.new("RGB", image.size, corner))
    box = differs.point(lambda value: 255 * (value > _TOLERANCE)).getbbox()
    whole = (0, 0, *image.size)
    # A plain sky reaches the edges as well: a frame leaves at least a quarter to the image.
    return box if box and _area(box) >= 0.25 * _area(whole) else whole


def _area(box: tuple[int, int, int, int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


@contextlib.contextmanager
def _own_switches() -> Iterator[None]:
    """Other libraries set Pillow's switches for the whole process; the policy has its own."""
    theirs = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, PIXEL_LIMIT
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = theirs


@contextlib.contextmanager
def _decoder_messages(content: bytes) -> Iterator[None]:
    """Keep libtiff, which prints to file descriptor 2 itself, from writing over the progress."""
    if not content.startswith(_TIFF):
        yield
        return
    saved = os.dup(2)
    try:
        with tempfile.TemporaryFile() as sink:
            os.dup2(sink.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _line(text: str, limit: int = 200) -> str:
    # An address differs from run to run, and a manifest should not.
    return " ".join(_ADDRESS.sub("", text).split())[:limit]


def rejected(status: str, detail: str = "", size: int | None = None) -> Observation:
    """Make an Observation for a file that gave no image."""
    return Observation(status, _line(detail), size)
