"""Write the files of the demo archive: formats, edits, re-posts and what cannot be read."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Edit = Callable[[Image.Image, np.random.Generator], Image.Image]

ERROR_PAGE = b"""<!DOCTYPE html>
<html><head><title>404 Not Found</title></head>
<body><h1>Not Found</h1><p>The requested image is no longer on this server.</p></body></html>
"""
EXIF_ORIENTATION = 0x0112
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif"}
LINES = ("LIVE", "@citywatch", "Breaking", "Old town, today", "Photo: a reader", "Part 2 of 5")


def _corners(image: Image.Image) -> Image.Image:
    """Return a mask (L): 255 in the corners outside a rounded sheet."""
    mask, inset = Image.new("L", image.size, 255), min(image.size) // 25
    box = (inset, inset, image.width - inset, image.height - inset)
    ImageDraw.Draw(mask).rounded_rectangle(box, min(image.size) // 6, fill=0)
    return mask


def _with_alpha(image: Image.Image) -> Image.Image:
    # Black under the transparent corners: a reader that drops the alpha channel shows it.
    shown = image.convert("RGBA")
    shown.paste((0, 0, 0, 0), (0, 0, *image.size), _corners(image))
    return shown


def _with_palette(image: Image.Image) -> Image.Image:
    return _with_alpha(image).quantize()


def _grey16(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)


@dataclass(frozen=True)
class Form:
    """A kind of file: its format, its share of the files and what is done to the image before."""

    format: str = "JPEG"
    share: float = 0.0  # there is at least one of each form
    prepare: Callable[[Image.Image], Image.Image] = Image.Image.copy
    orientation: int = 1  # the EXIF tag that undoes a transposition


FORMS = {
    "png": Form("PNG", 0.07),
    "webp": Form("WEBP", 0.1),
    "exif3": Form("JPEG", 0.0, lambda image: image.transpose(Image.Transpose.ROTATE_180), 3),
    "exif6": Form("JPEG", 0.02, lambda image: image.transpose(Image.Transpose.ROTATE_90), 6),
    "exif8": Form("JPEG", 0.01, lambda image: image.transpose(Image.Transpose.ROTATE_270), 8),
    "alpha": Form("PNG", 0.01, _with_alpha),
    "palette": Form("PNG", 0.0, _with_palette),
    "grey16": Form("PNG", 0.0, _grey16),
    "gif": Form("GIF"),
    "truncated": Form(),
    "html": Form(),
    "jpeg": Form(share=1.0),
}
PLAIN, UNREADABLE = ("jpeg", "png", "webp"), ("truncated", "html")


def encode(image: Image.Image, form: str, quality: int) -> bytes:
    """Return the file of an image (RGB) in one of the FORMS; JPEG and WebP have a quality."""
    if form == "html":
        return ERROR_PAGE
    kind, buffer, exif = FORMS[form], io.BytesIO(), Image.Exif()
    exif[EXIF_ORIENTATION] = kind.orientation
    options: dict[str, object] = {"exif": exif} if kind.orientation > 1 else {}
    if form == "gif":
        frames = [image.crop((x, 0, image.width - 20 + x, image.height)) for x in (0, 10, 20)]
        image, options = frames[0], {"save_all": True, "append_images": frames[1:]}
    kind.prepare(image).save(buffer, kind.format, quality=quality, **options)
    content = buffer.getvalue()
    return content[: len(content) // 2] if form == "truncated" else content


def _write(pen: ImageDraw.ImageDraw, x: float, y: float, text: str, high: float, ink: str) -> None:
    pen.text((x, y), text, fill=ink, font=ImageFont.load_default(max(8, int(high))))


def _banner(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Lay a strip with a line of text over the upper or the lower edge."""
    image, high = image.copy(), image.height * rng.uniform(0.09, 0.16)
    top, pen = float(rng.choice([0, image.height - high])), ImageDraw.Draw(image)
    colour = str(rng.choice(["firebrick", "navy", "seagreen", "black"]))
    pen.rectangle((0, top, image.width, top + high), fill=colour)
    _write(pen, 8, top + 0.2 * high, str(rng.choice(LINES)), 0.6 * high, "white")
    return image


def _screenshot(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Show the image in an app on a telephone, with its clock and its count of likes."""
    paper, ink = [("black", "white"), ("white", "black")][rng.integers(2)]
    shown = image.resize((330, round(image.height * 330 / image.width)))
    page = Image.new("RGB", (330, shown.height + int(rng.integers(120, 200))), paper)
    pen = ImageDraw.Draw(page)
    _write(pen, 14, 8, f"{rng.integers(24)}:{rng.integers(60):02d}", 13, ink)
    pen.ellipse((12, 38, 44, 70), fill="steelblue")
    _write(pen, 56, 46, str(rng.choice(LINES)), 15, ink)
    page.paste(shown, (0, 84))
    _write(pen, 20, 94 + shown.height, f"{rng.integers(3, 900)} likes", 15, ink)
    return page


def _recompressed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    scale = rng.uniform(0.72, 1.0)
    return image.resize((round(image.width * scale), round(image.height * scale)))


def _cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    shares = rng.uniform((0.01, 0.01, 0.95, 0.95), (0.05, 0.05, 0.99, 0.99))
    left, top, right, bottom = (shares * (image.size * 2)).round().astype(int).tolist()
    return image.crop((left, top, right, bottom))


def _bordered(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Put the image on a white page, or between the black bars of a video."""
    x, y = (rng.uniform((0.05, 0.08), (0.1, 0.2)) * image.size).astype(int).tolist()
    colour, x = (("white", x), ("black", 0))[rng.integers(2)]
    page = Image.new("RGB", (image.width + 2 * x, image.height + 2 * y), colour)
    page.paste(image, (x, y))
    return page


# Edit: share of the images that have it, function.
EDITS: dict[str, tuple[float, Edit]] = {
    "banner": (0.1, _banner),
    "screenshot": (0.035, _screenshot),
}
# What changes when an image is sent on.
REPOSTS: dict[str, Edit] = {
    "recompressed": _recompressed,
    "cropped": _cropped,
    "bordered": _bordered,
}
