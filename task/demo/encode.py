"""The file forms of an archive, the awkward and the broken ones included."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

_ERROR_PAGE = b"""<!DOCTYPE html>
<html><head><title>404 Not Found</title></head>
<body><h1>Not Found</h1><p>The requested picture is no longer on this server.</p></body></html>
"""
_ORIENTATION = 0x0112
# What a camera held that way stores; the orientation tag undoes it.
_STORED = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def _jpeg(image: Image.Image, rng: np.random.Generator) -> bytes:
    return _bytes(image, "JPEG", quality=int(rng.integers(58, 93)))


def _bytes(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _png(image: Image.Image, rng: np.random.Generator) -> bytes:
    return _bytes(image, "PNG", compress_level=int(rng.integers(4, 7)))


def _webp(image: Image.Image, rng: np.random.Generator) -> bytes:
    return _bytes(image, "WEBP", quality=int(rng.integers(55, 90)), method=2)


def _turned(orientation: int) -> Callable[[Image.Image, np.random.Generator], bytes]:
    def save(image: Image.Image, rng: np.random.Generator) -> bytes:
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        stored = image.transpose(_STORED[orientation])
        return _bytes(stored, "JPEG", quality=int(rng.integers(70, 93)), exif=exif)

    return save


def _mask(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return 255 where the picture shows: a rounded sheet, as cut out by an editor."""
    mask = Image.new("L", image.size, 0)
    inset = min(image.size) * rng.uniform(0.02, 0.06)
    box = (inset, inset, image.width - inset, image.height - inset)
    ImageDraw.Draw(mask).rounded_rectangle(box, min(image.size) * 0.16, fill=255)
    return mask


def _alpha(image: Image.Image, rng: np.random.Generator) -> bytes:
    # Black under the transparent parts: a reader that drops alpha shows it.
    cut = Image.new("RGBA", image.size, (0, 0, 0, 0))
    mask = _mask(image, rng)
    cut.paste(image, (0, 0), mask)
    cut.putalpha(mask)
    return _bytes(cut, "PNG")


def _palette(image: Image.Image, rng: np.random.Generator) -> bytes:
    flat = image.quantize(255)
    clear = _mask(image, rng).point([255] + [0] * 255)
    colours = flat.getpalette() or []
    flat.putpalette(colours + [0] * (3 * 256 - len(colours)))
    flat.paste(255, (0, 0, *image.size), clear)
    return _bytes(flat, "PNG", transparency=255)


def _grey16(image: Image.Image, rng: np.random.Generator) -> bytes:
    grey = np.asarray(image.convert("L"), dtype=np.uint16) * 256
    low = rng.integers(0, 256, grey.shape, dtype=np.uint16)
    return _bytes(Image.fromarray(grey + low), "PNG")


def _gif(image: Image.Image, rng: np.random.Generator) -> bytes:
    small = image.resize((image.width * 3 // 4, image.height * 3 // 4))
    step = int(rng.integers(6, 14))
    box = (small.width - 3 * step, small.height)
    frames = [small.crop((i * step, 0, i * step + box[0], box[1])) for i in range(3)]
    return _bytes(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=300, loop=0)


def _truncated(image: Image.Image, rng: np.random.Generator) -> bytes:
    whole = _jpeg(image, rng)
    return whole[: int(len(whole) * rng.uniform(0.4, 0.6))]


def _page(image: Image.Image, rng: np.random.Generator) -> bytes:
    del image, rng
    return _ERROR_PAGE


# form: suffix, writer
FORMS: dict[str, tuple[str, Callable[[Image.Image, np.random.Generator], bytes]]] = {
    "jpeg": (".jpg", _jpeg),
    "png": (".png", _png),
    "webp": (".webp", _webp),
    "exif3": (".jpg", _turned(3)),
    "exif6": (".jpg", _turned(6)),
    "exif8": (".jpg", _turned(8)),
    "alpha": (".png", _alpha),
    "palette": (".png", _palette),
    "grey16": (".png", _grey16),
    "gif": (".gif", _gif),
    "truncated": (".jpg", _truncated),
    "html": (".jpg", _page),
}
PLAIN = ("jpeg", "png", "webp")


def encode(image: Image.Image, form: str, rng: np.random.Generator) -> bytes:
    """Return the file of a picture in one of the `FORMS`."""
    return FORMS[form][1](image, rng)
