"""The training augmentation of the CLIP system paper (Hegazy and Ragab, 2026), as seeded draws.

Random resized crop with scale 0.8 to 1, horizontal flip with probability 0.5, rotation within 10
degrees, colour jitter of 0.2 in brightness, contrast and saturation and 0.1 in hue; ranges and
distributions as torchvision's transforms have them.
"""

import hashlib
import math

import numpy as np
from PIL import Image, ImageEnhance

SCALE = (0.8, 1.0)
RATIO = (3 / 4, 4 / 3)
FLIP = 0.5
DEGREES = 10.0
JITTER = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1}


def augmented(
    picture: Image.Image, size: int, resampling: Image.Resampling, seed: str
) -> Image.Image:
    """One draw, (size, size) pixels; equal pictures and seeds give equal pixels."""
    word = hashlib.sha256(seed.encode()).digest()
    rng = np.random.default_rng(int.from_bytes(word[:16], "little"))
    view = picture.resize((size, size), resampling, box=_crop_box(picture.size, rng))
    if rng.random() < FLIP:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    view = view.rotate(rng.uniform(-DEGREES, DEGREES), Image.Resampling.NEAREST)
    return _jittered(view, rng)


def _crop_box(size: tuple[int, int], rng: np.random.Generator) -> tuple[int, int, int, int]:
    width, height = size
    for _ in range(10):
        area = width * height * rng.uniform(*SCALE)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left = int(rng.integers(0, width - wide + 1))
            top = int(rng.integers(0, height - high + 1))
            return left, top, left + wide, top + high
    wide = min(width, max(1, round(height * RATIO[1])))
    high = min(height, max(1, round(width / RATIO[0])))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def _jittered(view: Image.Image, rng: np.random.Generator) -> Image.Image:
    enhancers = {
        "brightness": ImageEnhance.Brightness,
        "contrast": ImageEnhance.Contrast,
        "saturation": ImageEnhance.Color,
    }
    for name in rng.permutation(list(JITTER)):
        amount = JITTER[name]
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
