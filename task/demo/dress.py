"""What happens to pictures on their way into an archive: stickers, captions, frames, re-posts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from archiveprobe.task.demo.building import CLOTH
from archiveprobe.task.demo.canvas import pick
from archiveprobe.task.demo.lettering import scribble

Rgb = tuple[int, int, int]
_WHITE: Rgb = (245, 245, 245)
_LINES = ("LIVE", "@citywatch", "Breaking", "Old town, today", "Photo: reader", "Part 2 of 5")


def _rgb(rng: np.random.Generator) -> Rgb:
    r, g, b = (max(0, min(255, int(c))) for c in pick(rng, CLOTH))
    return (r, g, b)


def _write(
    pen: ImageDraw.ImageDraw, spot: tuple[float, float], text: str, high: float, ink: Rgb
) -> None:
    pen.text(spot, text, fill=ink, font=ImageFont.load_default(max(8, int(high))))


def sticker(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Put one to three stickers on the picture: faces, hearts, arrows, rings."""
    image = image.copy()
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(1, 4))):
        size = min(image.size) * rng.uniform(0.07, 0.14)
        x = rng.uniform(size, image.width - size)
        y = rng.uniform(size, image.height - size)
        _STICKERS[int(rng.integers(len(_STICKERS)))](pen, float(x), float(y), float(size))
    return image


def _face(pen: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    pen.ellipse((x - r, y - r, x + r, y + r), fill=(252, 206, 66), outline=(190, 130, 20), width=2)
    for side in (-0.38, 0.38):
        eye = (x + (side - 0.12) * r, y - 0.4 * r, x + (side + 0.12) * r, y - 0.1 * r)
        pen.ellipse(eye, fill=(70, 46, 20))
    pen.arc(
        (x - 0.55 * r, y - 0.4 * r, x + 0.55 * r, y + 0.6 * r),
        20,
        160,
        fill=(70, 46, 20),
        width=max(2, int(r * 0.12)),
    )


def _heart(pen: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    t = np.linspace(0, 2 * np.pi, 40)
    across = 16 * np.sin(t) ** 3
    down = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    points = zip((x + across * r / 16).tolist(), (y - down * r / 16).tolist(), strict=True)
    pen.polygon(list(points), fill=(220, 40, 58), outline=(255, 255, 255))


def _arrow(pen: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    shape = ((-1, -0.22), (0.2, -0.22), (0.2, -0.6), (1, 0), (0.2, 0.6), (0.2, 0.22), (-1, 0.22))
    pen.polygon([(x + a * r, y + b * r) for a, b in shape], fill=(232, 36, 36))


def _ring(pen: ImageDraw.ImageDraw, x: float, y: float, r: float) -> None:
    pen.ellipse(
        (x - 1.3 * r, y - r, x + 1.3 * r, y + r), outline=(240, 30, 30), width=max(2, int(r * 0.14))
    )


_STICKERS: tuple[Callable[[ImageDraw.ImageDraw, float, float, float], None], ...] = (
    _face,
    _heart,
    _arrow,
    _ring,
)


def caption(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Lay a strip with writing over the foot or the head of the picture."""
    image = image.copy()
    high = image.height * rng.uniform(0.09, 0.16)
    top = image.height - high if rng.random() < 0.7 else 0.0
    strip = (0, int(top), image.width, int(top + high))
    under = image.crop(strip)
    band = Image.blend(under, Image.new("RGB", under.size, _rgb(rng)), 0.78)
    image.paste(band, strip[:2])
    pen = ImageDraw.Draw(image)
    if rng.random() < 0.55:
        box = (image.width * 0.15, top + high * 0.2, image.width * 0.95, top + high * 0.85)
        scribble(pen, box, _WHITE, rng)
    else:
        line = str(rng.choice(_LINES))
        _write(pen, (image.width * 0.04, top + high * 0.2), line, high * 0.55, _WHITE)
    return image


def screenshot(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Show the picture in an app on a telephone."""
    wide, high = 330, 620
    dark = bool(rng.random() < 0.5)
    paper, ink = ((22, 24, 28), _WHITE) if dark else (_WHITE, (30, 30, 34))
    page = Image.new("RGB", (wide, high), paper)
    pen = ImageDraw.Draw(page)
    _write(pen, (14, 8), f"{rng.integers(0, 24)}:{rng.integers(0, 60):02d}", 13, ink)
    for bar in range(4):
        pen.rectangle((246 + bar * 6, 18 - bar * 3, 249 + bar * 6, 20), fill=ink)
    pen.rounded_rectangle((284, 9, 312, 21), 3, outline=ink)
    pen.rectangle((287, 12, 287 + int(rng.integers(4, 22)), 18), fill=ink)
    pen.ellipse((12, 38, 44, 70), fill=_rgb(rng))
    scribble(pen, (56, 42, 190, 64), ink, rng)
    shown = image.resize((wide, round(image.height * wide / image.width)))
    shown = shown.crop((0, 0, wide, min(shown.height, 430)))
    page.paste(shown, (0, 84))
    foot = 84 + shown.height
    _heart(pen, 28, foot + 20, 9)
    _write(pen, (46, foot + 11), f"{rng.integers(3, 900)} likes", 13, ink)
    for line in range(max(0, min(3, (high - foot - 60) // 30))):
        box = (20 + 50 * line, foot + 44 + line * 30, wide - 16, foot + 64 + line * 30)
        scribble(pen, box, ink, rng)
    return page


def _recompressed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    scale = rng.uniform(0.72, 1.0)
    return image.resize((round(image.width * scale), round(image.height * scale)))


def _cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    left, top, right, bottom = rng.uniform(0.01, 0.06, 4)
    box = (
        image.width * left,
        image.height * top,
        image.width * (1 - right),
        image.height * (1 - bottom),
    )
    return image.crop((round(box[0]), round(box[1]), round(box[2]), round(box[3])))


def _bordered(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    across = int(image.width * rng.uniform(0.03, 0.1))
    along = int(image.height * rng.uniform(0.08, 0.2))
    letterbox = rng.random() < 0.5
    ground: Rgb = (0, 0, 0) if letterbox else (255, 255, 255)
    across = 0 if letterbox else across
    page = Image.new("RGB", (image.width + 2 * across, image.height + 2 * along), ground)
    page.paste(image, (across, along))
    return page


Change = Callable[[Image.Image, np.random.Generator], Image.Image]
DRESSES: dict[str, Change] = {"sticker": sticker, "caption": caption, "screenshot": screenshot}
REPOSTS: dict[str, Change] = {
    "recompressed": _recompressed,
    "cropped": _cropped,
    "bordered": _bordered,
}
