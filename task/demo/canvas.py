"""The sheet a demo picture is drawn on: colours, light and haze."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SCALE = 2  # drawn at twice the size: ImageDraw's own edges are not smooth

Point = tuple[float, float]
Colour = tuple[float, float, float]


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return `first` with `share` of `second` in it."""
    a, b = first, second
    return (
        a[0] + (b[0] - a[0]) * share,
        a[1] + (b[1] - a[1]) * share,
        a[2] + (b[2] - a[2]) * share,
    )


def shade(colour: Colour, factor: float) -> Colour:
    """Return a darker (`factor` < 1) or lighter colour."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


def vary(rng: np.random.Generator, colour: Colour, amount: float = 12.0) -> Colour:
    """Return a colour nearby, so that no two things look stamped."""
    r, g, b = rng.normal(0.0, amount, 3) * 0.5 + rng.normal(0.0, amount)
    return (colour[0] + r, colour[1] + g, colour[2] + b)


def pick(rng: np.random.Generator, colours: Sequence[Colour], amount: float = 8.0) -> Colour:
    """Draw one of the colours, varied a little."""
    return vary(rng, colours[int(rng.integers(len(colours)))], amount)


def soft_field(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Image.Image:
    """Return smooth noise, mode F, roughly 0 to 1, with `cells` bumps along the width."""
    rows = max(2, round(cells * size[1] / size[0]))
    return Image.fromarray(rng.random((rows, cells), dtype=np.float32)).resize(
        size, Image.Resampling.BICUBIC
    )


@dataclass(frozen=True, kw_only=True)
class Mood:
    """Light, weather and camera of one picture; drawn without a look at the label."""

    sky_top: Colour
    sky_low: Colour
    haze: Colour
    haze_amount: float
    exposure: float
    saturation: float
    contrast: float
    tint: Colour
    grain: float
    soil: Colour
    night: bool


# name: weight, sky top, sky low, haze amount, exposure, saturation, contrast
_MOODS: dict[str, tuple[float, Colour, Colour, float, float, float, float]] = {
    "day": (0.36, (88, 146, 206), (190, 214, 228), 0.35, 1.02, 1.05, 1.05),
    "overcast": (0.17, (168, 174, 180), (206, 208, 208), 0.55, 0.94, 0.75, 0.95),
    "dusk": (0.15, (84, 92, 146), (238, 172, 116), 0.55, 0.84, 1.15, 1.1),
    "night": (0.09, (20, 28, 58), (58, 62, 92), 0.5, 0.64, 0.9, 1.05),
    "dust": (0.15, (196, 176, 140), (216, 196, 160), 0.9, 0.95, 0.75, 0.9),
    "faded": (0.08, (170, 170, 168), (214, 212, 208), 0.5, 1.0, 0.08, 0.95),
}
_SOILS: tuple[Colour, ...] = (
    (150, 140, 124),
    (118, 118, 120),
    (176, 158, 128),
    (96, 96, 100),
    (140, 122, 100),
)


def draw_mood(rng: np.random.Generator) -> Mood:
    """Draw the light of one picture."""
    names = list(_MOODS)
    weights = np.array([_MOODS[name][0] for name in names])
    name = names[int(rng.choice(len(names), p=weights / weights.sum()))]
    _, top, low, haze, exposure, saturation, contrast = _MOODS[name]
    warm = rng.normal(0.0, 0.075)
    sky_low = vary(rng, low, 12)
    return Mood(
        sky_top=vary(rng, top, 14),
        sky_low=sky_low,
        haze=sky_low,
        haze_amount=haze * rng.uniform(0.6, 1.4),
        exposure=exposure * rng.uniform(0.74, 1.22),
        saturation=saturation * rng.uniform(0.6, 1.25),
        contrast=contrast * rng.uniform(0.8, 1.2),
        tint=(1.0 + warm, 1.0 + rng.normal(0.0, 0.025), 1.0 - warm),
        grain=rng.uniform(1.0, 7.0),
        soil=pick(rng, _SOILS),
        night=name == "night",
    )


class Canvas:
    """A picture in the making. Coordinates are in pixels of the enlarged sheet."""

    def __init__(self, size: tuple[int, int], rng: np.random.Generator, mood: Mood) -> None:
        self.size = (size[0] * SCALE, size[1] * SCALE)
        self.width, self.height = float(self.size[0]), float(self.size[1])
        self.unit = min(self.size) / 100.0
        self.rng, self.mood = rng, mood
        self.image = Image.new("RGB", self.size)
        self.pen = ImageDraw.Draw(self.image)

    def ink(self, colour: Colour, depth: float = 0.0) -> tuple[int, int, int]:
        """Return the colour as seen through the haze at a depth from 0 (here) to 1 (far)."""
        r, g, b = colour
        if depth:
            share = min(0.85, depth * self.mood.haze_amount)
            r, g, b = mix(colour, self.mood.haze, share)
        return (
            max(0, min(255, int(r))),
            max(0, min(255, int(g))),
            max(0, min(255, int(b))),
        )

    def area(self, points: Sequence[Point], colour: Colour, depth: float = 0.0) -> None:
        """Fill a polygon."""
        self.pen.polygon(points, fill=self.ink(colour, depth))

    def line(
        self, points: Sequence[Point], colour: Colour, width: float, depth: float = 0.0
    ) -> None:
        """Draw a line through the points; `width` in units of a hundredth of the short side."""
        pixels = max(1, round(width * self.unit))
        self.pen.line(points, fill=self.ink(colour, depth), width=pixels, joint="curve")

    def oval(self, centre: Point, rx: float, ry: float, colour: Colour, depth: float = 0.0) -> None:
        """Fill an ellipse around a centre."""
        x, y = centre
        self.pen.ellipse((x - rx, y - ry, x + rx, y + ry), fill=self.ink(colour, depth))

    def veil(self, colour: Colour, strength: NDArray[np.float32]) -> None:
        """Lay a soft colour over the sheet; `strength` is a small grid of opacities, 0 to 1."""
        small = Image.fromarray((np.clip(strength, 0.0, 1.0) * 255).astype(np.uint8))
        mask = small.resize(self.size, Image.Resampling.BILINEAR)
        self.image.paste(self.ink(colour), (0, 0, *self.size), mask)

    def develop(self) -> Image.Image:
        """Return the finished picture: reduced, lit, tinted and grained."""
        mood, rng = self.mood, self.rng
        pixels = np.asarray(self.image.reduce(SCALE), dtype=np.float32)
        size = (pixels.shape[1], pixels.shape[0])
        coarse = soft_field(rng, (40, 40), 4)
        stains = rng.random((40, 40), dtype=np.float32) * 0.06 + np.asarray(
            coarse, dtype=np.float32
        ) * np.float32(rng.uniform(0.0, 0.35))
        dirt = np.asarray(Image.fromarray(stains).resize(size, Image.Resampling.BILINEAR))
        grey = (pixels @ np.full((3, 1), 1 / 3, dtype=np.float32)) * np.float32(1 - mood.saturation)
        pixels = pixels * np.float32(mood.saturation) + grey
        gain = np.asarray(mood.tint, dtype=np.float32) * mood.exposure
        pixels *= (1.05 - dirt)[:, :, None] * (gain * np.float32(mood.contrast))
        noise = rng.standard_normal(dirt.shape, dtype=np.float32) * np.float32(mood.grain)
        # Contrast turns around a middle tone, so that it alone makes no picture lighter.
        noise += 118.0 * mood.exposure * (1 - mood.contrast)
        pixels += noise[:, :, None]
        return Image.fromarray(np.clip(pixels, 0, 255, out=pixels).astype(np.uint8))
