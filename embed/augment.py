"""Seeded draws of a training augmentation: crop, flip, rotation, colour jitter.

Ranges and distributions as in torchvision's RandomResizedCrop, RandomHorizontalFlip, RandomRotation
and ColorJitter. Not those classes themselves: they draw from torch's generator, which decoder
processes would have to import (seconds, and 300 MB each), and cached views would change with it.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

_ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}


@dataclass(frozen=True)
class Ranges:
    """How far draws go.

    `scale` is the share of the image's area, `ratio` width over height, `flip` a probability,
    `degrees` the largest rotation to either side, and `jitter` the largest change of brightness,
    contrast and saturation (as a share) and of hue (as a share of the circle).
    """

    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    degrees: float
    jitter: Mapping[str, float]


CLIP_PAPER = Ranges(
    scale=(0.8, 1.0),
    ratio=(3 / 4, 4 / 3),
    flip=0.5,
    degrees=10.0,
    jitter={"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1},
)
"""The training augmentation of the CLIP system paper (Hegazy and Ragab, 2026)."""


def seeded(*words: str | int) -> np.random.Generator:
    """Make a random generator that depends on these words only; other words give another."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def random_view(
    image: Image.Image,
    size: int,
    resampling: Image.Resampling,
    rng: np.random.Generator,
    ranges: Ranges,
) -> Image.Image:
    """Draw a view of (size, size) pixels within the ranges: crop, flip, rotation, jitter."""
    box = _crop_box(image.size, rng, ranges)
    view = image.resize((size, size), resampling, box=box)
    if rng.random() < ranges.flip:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    degrees = rng.uniform(-ranges.degrees, ranges.degrees)
    view = view.rotate(degrees, Image.Resampling.NEAREST)
    return _jittered(view, rng, ranges.jitter)


def _crop_box(
    size: tuple[int, int], rng: np.random.Generator, ranges: Ranges
) -> tuple[int, int, int, int]:
    """Draw a box as RandomResizedCrop does: ten tries, then the largest central one that fits.

    With area A = w h and ratio r = w / h, the sides are w = sqrt(A r) and h = sqrt(A / r); r is
    drawn on the scale of its logarithm, so that 3:4 is as likely as 4:3.
    """
    width, height = size
    shortest, longest = ranges.ratio
    for _ in range(10):
        area = width * height * rng.uniform(*ranges.scale)
        ratio = math.exp(rng.uniform(math.log(shortest), math.log(longest)))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left = int(rng.integers(0, width - wide + 1))
            top = int(rng.integers(0, height - high + 1))
            return left, top, left + wide, top + high
    wide = min(width, max(1, round(height * longest)))
    high = min(height, max(1, round(width / shortest)))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def _jittered(
    view: Image.Image, rng: np.random.Generator, jitter: Mapping[str, float]
) -> Image.Image:
    """Change the colours in a random order, as ColorJitter does."""
    for name in rng.permutation(list(jitter)):
        amount = jitter[name]
        if amount and name == "hue":
            view = _hue_shifted(view, rng.uniform(-amount, amount))
        elif amount:
            view = _ENHANCERS[name](view).enhance(rng.uniform(1 - amount, 1 + amount))
    return view


def _hue_shifted(view: Image.Image, share: float) -> Image.Image:
    hue, saturation, value = view.convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int16) + round(share * 255)) % 256
    bands = (Image.fromarray(turned.astype(np.uint8)), saturation, value)
    return Image.merge("HSV", bands).convert("RGB")
