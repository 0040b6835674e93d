"""Test-time-augmentation views: named, deterministic, rendered as uint8 pixels.

Resampling follows torchvision on PIL images to the pixel: the same rounding of the longer side, the
same offset of the centre crop. Decoder processes render views, so nothing here imports torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from archiveprobe.embed.augment import seeded_view
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.view_sets import View

RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# Beyond this many input sizes along the longer side, each crop is resampled from its own box: a
# 1 x 5000 strip would otherwise grow to a million pixels in length.
_LONGEST = 4


@dataclass(frozen=True)
class Rendered:
    """The distinct pixels of an image's views.

    `crops` is (u, size, size, 3) uint8; view v is crop `crop[v]`, mirrored where `mirror[v]`. Views
    with equal pixels point at the same crop, and a symmetric crop is never mirrored.
    """

    crops: np.ndarray
    crop: tuple[int, ...]
    mirror: tuple[bool, ...]

    @property
    def distinct(self) -> tuple[tuple[int, bool], ...]:
        """Return every (crop, mirrored) once: what a network has to compute."""
        return tuple(dict.fromkeys(zip(self.crop, self.mirror, strict=True)))


def render_tokens(tokens: np.ndarray) -> Rendered:
    """Return the tokens (length,) of one text in the form of an image with a single view."""
    return Rendered(tokens[None], (0,), (False,))


def render(image: Image.Image, geometry: Geometry, views: Sequence[View], *, seed: str) -> Rendered:
    """Render the views of an RGB image; `seed` (the file's digest) fixes the random draws."""
    names = list(dict.fromkeys(view.crop for view in views))
    distinct: list[np.ndarray] = []
    crop_of: dict[str, int] = {}
    for name, crop in zip(names, _crops(image, geometry, names, seed), strict=True):
        equal = (at for at, other in enumerate(distinct) if np.array_equal(crop, other))
        crop_of[name] = next(equal, len(distinct))
        if crop_of[name] == len(distinct):
            distinct.append(crop)
    mirrored = {crop_of[view.crop] for view in views if view.mirror}
    symmetric = {at for at in mirrored if np.array_equal(distinct[at], distinct[at][:, ::-1])}
    crops = tuple(crop_of[view.crop] for view in views)
    mirror = tuple(
        view.mirror and crop not in symmetric for view, crop in zip(views, crops, strict=True)
    )
    return Rendered(np.stack(distinct), crops, mirror)


def _crops(
    image: Image.Image, geometry: Geometry, names: Sequence[str], seed: str
) -> list[np.ndarray]:
    # Crops along the longer side share one resize.
    along = [name for name in names if name.startswith("crop-")]
    shared = dict(zip(along, _along_longer_side(image, geometry, along), strict=True))
    return [np.asarray(shared.get(name) or _crop(image, geometry, name, seed)) for name in names]


def _crop(image: Image.Image, geometry: Geometry, name: str, seed: str) -> Image.Image:
    if name == "center":
        return center(image, geometry)
    size, resampling = geometry.size, RESAMPLING[geometry.interpolation]
    if name == "squash":
        return image.resize((size, size), resampling)
    if name.startswith("augment"):
        return seeded_view(image, size, resampling, f"{seed}/{name}")
    raise ValueError(f"no crop {name!r}")


def center(image: Image.Image, geometry: Geometry) -> Image.Image:
    """Return the view that the weights' own preprocessing gives."""
    resampling = RESAMPLING[geometry.interpolation]
    if geometry.crop == "border":
        return _padded(image, geometry, resampling)
    squash = geometry.crop == "squash"
    target = (geometry.resize,) * 2 if squash else _shorter_side_to(image, geometry.resize)
    left, top = (round((side - geometry.size) / 2.0) for side in target)
    return _cut(image, target, [(left, top)], geometry.size, resampling)[0]


def _along_longer_side(
    image: Image.Image, geometry: Geometry, names: Sequence[str]
) -> list[Image.Image]:
    size = geometry.size
    width, height = _shorter_side_to(image, size)
    spare = max(width, height) - size
    offset = {"crop-first": 0, "crop-middle": round(spare / 2.0), "crop-last": spare}
    corners = [(offset[name], 0) if width >= height else (0, offset[name]) for name in names]
    return _cut(image, (width, height), corners, size, RESAMPLING[geometry.interpolation])


def _shorter_side_to(image: Image.Image, side: int) -> tuple[int, int]:
    width, height = image.size
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side


def _cut(
    image: Image.Image,
    target: tuple[int, int],
    corners: Sequence[tuple[int, int]],
    size: int,
    resampling: Image.Resampling,
) -> list[Image.Image]:
    """Return square crops, at corners in the coordinates of the image resized to `target`."""
    if not corners:
        return []
    if max(target) <= _LONGEST * size:
        whole = image.resize(target, resampling)
        return [whole.crop((x, y, x + size, y + size)) for x, y in corners]
    across, down = image.width / target[0], image.height / target[1]
    boxes = [
        (
            x * across,
            y * down,
            min((x + size) * across, image.width),
            min((y + size) * down, image.height),
        )
        for x, y in corners
    ]
    return [image.resize((size, size), resampling, box=box) for box in boxes]


def _padded(image: Image.Image, geometry: Geometry, resampling: Image.Resampling) -> Image.Image:
    size, longest = geometry.size, max(image.size)
    width, height = (max(1, round(side * geometry.resize / longest)) for side in image.size)
    square = Image.new("RGB", (size, size), geometry.fill)
    inner = image.resize((width, height), resampling)
    square.paste(inner, ((size - width) // 2, (size - height) // 2))
    return square
