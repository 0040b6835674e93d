"""Test-time-augmentation views: named, deterministic, rendered as uint8 pixels.

Resampling follows torchvision on PIL images to the pixel: the same rounding of the longer side, the
same offset of the centre crop. Decoder processes render views, so nothing here imports torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from archiveprobe.embed.augment import CLIP_PAPER, random_view, seeded
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


@dataclass(frozen=True)
class Cut:
    """Where a crop lies: its corner (x, y) in the image resized to `target` (width, height).

    A crop may go beyond the image on all sides, where it is filled.
    """

    target: tuple[int, int]
    corner: tuple[int, int]


def render(image: Image.Image, geometry: Geometry, views: Sequence[View], *, seed: str) -> Rendered:
    """Render the views of an RGB image; `seed` (the file's digest) fixes the random draws."""
    resized: dict[tuple[int, int], Image.Image] = {}
    crops = {}
    for name in dict.fromkeys(view.crop for view in views):
        if name.startswith("augment"):
            resampling = RESAMPLING[geometry.interpolation]
            rng = seeded(seed, name)
            crop = random_view(image, geometry.size, resampling, rng, CLIP_PAPER)
        else:
            crop = _crop(image, geometry, cut_of(name, image.size, geometry), resized)
        crops[name] = np.asarray(crop)
    return rendered(crops, views)


def rendered(crops: Mapping[str, np.ndarray], views: Sequence[View]) -> Rendered:
    """Return views whose crops (size, size, 3) uint8 are given by name; equal ones once."""
    distinct: list[np.ndarray] = []
    crop_of: dict[str, int] = {}
    for name, crop in crops.items():
        equal = (at for at, other in enumerate(distinct) if _are_equal(crop, other))
        crop_of[name] = next(equal, len(distinct))
        if crop_of[name] == len(distinct):
            distinct.append(crop)
    mirrored = {crop_of[view.crop] for view in views if view.mirror}
    symmetric = {at for at in mirrored if _are_equal(distinct[at], distinct[at][:, ::-1])}
    places = tuple(crop_of[view.crop] for view in views)
    mirror = tuple(
        view.mirror and place not in symmetric for view, place in zip(views, places, strict=True)
    )
    return Rendered(np.stack(distinct), places, mirror)


def _are_equal(one: np.ndarray, other: np.ndarray) -> bool:
    # Of most pairs a few pixels tell that they are not.
    few = (slice(None, None, 16), slice(None, None, 16))
    return np.array_equal(one[few], other[few]) and np.array_equal(one, other)


def cut_of(name: str, size: tuple[int, int], geometry: Geometry) -> Cut:
    """Return where the crop of that name lies in an image of `size` (width, height).

    Raises:
        ValueError: no such crop, or one that is drawn.
    """
    if name == "center":
        return _center_cut(size, geometry)
    if name == "squash":
        return Cut((geometry.size, geometry.size), (0, 0))
    width, height = _shorter_side_to(size, geometry.size)
    spare = max(width, height) - geometry.size
    offsets = {"crop-first": 0, "crop-middle": round(spare / 2.0), "crop-last": spare}
    if name not in offsets:
        raise ValueError(f"no crop {name!r}")
    offset = offsets[name]
    return Cut((width, height), (offset, 0) if width >= height else (0, offset))


def _center_cut(size: tuple[int, int], geometry: Geometry) -> Cut:
    if geometry.crop == "border":
        width, height = (max(1, round(side * geometry.resize / max(size))) for side in size)
        left, top = ((geometry.size - side) // 2 for side in (width, height))
        return Cut((width, height), (-left, -top))
    squash = geometry.crop == "squash"
    target = (
        (geometry.resize, geometry.resize) if squash else _shorter_side_to(size, geometry.resize)
    )
    left, top = (round((side - geometry.size) / 2.0) for side in target)
    return Cut(target, (left, top))


def _shorter_side_to(size: tuple[int, int], side: int) -> tuple[int, int]:
    width, height = size
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side


def is_far(cut: Cut, size: int) -> bool:
    """Return whether an image would grow too long before crops of `size` pixels are cut from it."""
    return max(cut.target) > _LONGEST * size and min(cut.corner) >= 0


def _crop(
    image: Image.Image, geometry: Geometry, cut: Cut, resized: dict[tuple[int, int], Image.Image]
) -> Image.Image:
    """Cut a crop; what the image was resized to is kept in `resized`, by its size."""
    size, resampling = geometry.size, RESAMPLING[geometry.interpolation]
    x, y = cut.corner
    if is_far(cut, size):
        across, down = image.width / cut.target[0], image.height / cut.target[1]
        right, bottom = (x + size) * across, (y + size) * down
        box = (x * across, y * down, min(right, image.width), min(bottom, image.height))
        return image.resize((size, size), resampling, box=box)
    if cut.target not in resized:
        resized[cut.target] = image.resize(cut.target, resampling)
    whole = resized[cut.target]
    if geometry.crop != "border":
        return whole.crop((x, y, x + size, y + size))
    square = Image.new("RGB", (size, size), geometry.fill)
    square.paste(whole, (-x, -y))
    return square
