"""The training augmentation of the CLIP system paper (Hegazy and Ragab, 2026), as seeded draws.

Random resized crop with scale 0.8 to 1, horizontal flip with probability 0.5, rotation within 10
degrees, colour jitter of 0.2 in brightness, contrast and saturation and 0.1 in hue; ranges and
distributions as torchvision's transforms have them.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

SCALE = (0.8, 1.0)
RATIO = (3 / 4, 4 / 3)
FLIP = 0.5
DEGREES = 10.0
JITTER = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1}


@dataclass(frozen=True)
class Ranges:
    """How far draws go: shares of the area, width over height, probability, degrees, jitter."""

    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: float
    degrees: float
    jitter: Mapping[str, float]


def augmented(
    image: Image.Image, size: int, resampling: Image.Resampling, seed: str
) -> Image.Image:
    """One draw, (size, size) pixels; equal images and seeds give equal pixels."""
    word = hashlib.sha256(seed.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(word[:16], "little"))
    return drawn(image, size, resampling, rng, paper())


def paper() -> Ranges:
    """The ranges of the paper."""
    return Ranges(SCALE, RATIO, FLIP, DEGREES, JITTER)


def drawn(
    image: Image.Image,
    size: int,
    resampling: Image.Resampling,
    rng: np.random.Generator,
    ranges: Ranges,
) -> Image.Image:
    """One draw within the ranges, (size, size) pixels: crop, flip, rotation, jitter."""
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
    enhancers = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    for name in rng.permutation(list(jitter)):
        amount = jitter[name]
        if not amount:
            continue
        if name == "hue":
            view = _hue_shifted(view, rng.uniform(-amount, amount))
        else:
            view = enhancers[name](view).enhance(rng.uniform(1 - amount, 1 + amount))
    return view


def _hue_shifted(view: Image.Image, share: float) -> Image.Image:
    hue, saturation, value = view.convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int16) + round(share * 255)) % 256
    bands = (Image.fromarray(turned.astype(np.uint8)), saturation, value)
    return Image.merge("HSV", bands).convert("RGB")
