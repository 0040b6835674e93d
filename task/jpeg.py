"""JPEG through simplejpeg: exactly as Pillow decodes it, faster with other pixels, or small.

Both are libjpeg-turbo: with the exact inverse transform and smooth upsampling, which are Pillow's,
simplejpeg gives the very same pixels with fewer copies on the way. It refuses also what the library
only warns about; all of that is Pillow's, whose word decides every status.
"""

from typing import Any

import simplejpeg
from PIL import Image

from archiveprobe.task.config import Decode

# Both sides of an image keep at least as many pixels where it is decoded at half, a quarter or an
# eighth of its size. The library's faster transform is no part of "fast": it saves nothing where
# the exact one is vectorised, and moves embeddings most (see LOG.md).
FAST_SIDE = 512
# What is left where a GPU decodes the image itself: enough for its thumbnail.
SMALL_SIDE = 256
_FORMATS = ("JPEG", "MPO")
_MODES = ("L", "RGB")
# Markers of a file: the first byte of each, and those that begin a frame (SOF0 to SOF15).
_MARKER, _BASELINE = 0xFF, 0xC0
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def decode_jpeg(content: bytes, opened: Image.Image, how: Decode) -> Image.Image | None:
    """Decode a file that Pillow has opened; None where it is no JPEG, or one for Pillow only.

    Returns:
        RGB, as stored (no orientation applied); of several images the first.
    """
    if not content or opened.format not in _FORMATS or opened.mode not in _MODES:
        return None
    if how == "fast":
        return _decoded(content, FAST_SIDE)
    exact = _decoded(content)
    return exact if exact is None or exact.size == opened.size else None


def decode_small(content: bytes, opened: Image.Image) -> Image.Image | None:
    """Decode a file of which a GPU is to make the views; None where it is left to Pillow.

    A GPU takes baseline files of one or three components of eight bits, which are no RGB. All of
    the file is read here, since a GPU says nothing of damaged data.

    Returns:
        RGB as `decode_jpeg` does, at half, a quarter or an eighth of its size.
    """
    if opened.format != "JPEG" or opened.mode not in _MODES or not _is_baseline(content):
        return None
    if opened.mode == "RGB" and _is_stored_as_rgb(opened):
        return None
    return _decoded(content, SMALL_SIDE)


def _is_stored_as_rgb(opened: Any) -> bool:
    """Return whether an opened JPEG of three components says that they are red, green and blue."""
    names = bytes(component for component, *_ in opened.layer)
    return names == b"RGB" or opened.info.get("adobe_transform", 1) == 0


def _is_baseline(content: bytes) -> bool:
    """Return whether the frame of a JPEG is a baseline one: its marker is SOF0."""
    at = 2
    while at + 4 <= len(content) and content[at] == _MARKER:
        kind = content[at + 1]
        if kind == _MARKER:
            # Any number of these may stand before a marker.
            at += 1
        elif kind in _FRAMES:
            return kind == _BASELINE
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4])
    return False


def _decoded(content: bytes, side: int | None = None) -> Image.Image | None:
    """Decode as Pillow does, or faster, with both sides of at least so many pixels; None: a fault.

    None also where simplejpeg only warns.
    """
    fast = {"min_height": side, "min_width": side, "min_factor": 2} if side else {}
    try:
        pixels = simplejpeg.decode_jpeg(
            content, "RGBA", fastdct=False, fastupsample=bool(fast), **fast
        )
    except ValueError:
        return None
    height, width, _ = pixels.shape
    # Four bytes a pixel are how Pillow itself keeps RGB, so that nothing is copied.
    import pyarrow

    flat = pyarrow.array(pixels.reshape(-1))
    return Image.fromarrow(pyarrow.FixedSizeListArray.from_arrays(flat, 4), "RGB", (width, height))
