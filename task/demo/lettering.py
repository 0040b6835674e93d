"""Writing on pictures, drawn from strokes: no font files travel with this package."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import ImageDraw

Box = tuple[float, float, float, float]


def scribble(
    pen: ImageDraw.ImageDraw, box: Box, ink: tuple[int, int, int], rng: np.random.Generator
) -> None:
    """Fill a box from right to left with words that look like Arabic handwriting."""
    left, top, right, bottom = box
    high = bottom - top
    x = right
    while x > left + high * 0.6:
        wide = min(high * rng.uniform(0.8, 2.4), x - left)
        _word(pen, (x - wide, top, x, bottom), ink, rng)
        x -= wide + high * 0.35


def _word(
    pen: ImageDraw.ImageDraw, box: Box, ink: tuple[int, int, int], rng: np.random.Generator
) -> None:
    left, top, right, bottom = box
    high = bottom - top
    base, width = top + high * 0.68, max(1, round(high * 0.11))
    letters = max(1, int((right - left) / (high * 0.42)))
    edges = np.linspace(right, left, letters + 1)
    pen.line([(right, base), (left, base)], fill=ink, width=width)
    for a, b in pairwise(edges.tolist()):
        middle, shape = (a + b) / 2, rng.random()
        if shape < 0.3:
            pen.line([(a, base), (a, top + high * rng.uniform(0.05, 0.3))], fill=ink, width=width)
        elif shape < 0.6:
            pen.arc((b, base - high * 0.3, a, base + high * 0.05), 180, 360, fill=ink, width=width)
        else:
            pen.arc((b, base - high * 0.2, a, base + high * 0.32), 0, 180, fill=ink, width=width)
        for dot in range(int(rng.integers(0, 3))):
            y = base + high * (0.22 if shape < 0.6 else -0.3)
            x = middle + (dot - 0.5) * width * 1.6
            pen.ellipse(
                (x - width * 0.6, y - width * 0.6, x + width * 0.6, y + width * 0.6), fill=ink
            )
