"""The seeded draws: the laws they keep, and the ranges that the paper gives."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from archiveprobe.embed.augment import CLIP_PAPER, Ranges, _crop_box, random_view, seeded

BICUBIC = Image.Resampling.BICUBIC
# No crop, flip, rotation or jitter: a test puts one of them back.
STILL = Ranges((1.0, 1.0), (1.0, 1.0), 0.0, 0.0, {})


def pixels(
    image: Image.Image, seed: str, ranges: Ranges = CLIP_PAPER, size: int = 32
) -> np.ndarray:
    return np.asarray(random_view(image, size, BICUBIC, seeded(seed), ranges)).astype(int)


def box(size: tuple[int, int], seed: int) -> tuple[int, int, int, int]:
    return _crop_box(size, np.random.default_rng(seed), CLIP_PAPER)


def jitter(name: str) -> Ranges:
    return replace(STILL, jitter={name: CLIP_PAPER.jitter[name]})


def test_the_ranges_are_the_papers() -> None:
    assert (CLIP_PAPER.scale, CLIP_PAPER.degrees, CLIP_PAPER.flip) == ((0.8, 1.0), 10.0, 0.5)
    assert CLIP_PAPER.jitter == {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1}


def test_without_amounts_nothing_happens(draw) -> None:
    image = draw(1, 50, 50)
    plain = np.asarray(image.resize((32, 32), BICUBIC)).astype(int)
    no_jitter = replace(STILL, jitter=dict.fromkeys(CLIP_PAPER.jitter, 0.0))
    for ranges in (STILL, no_jitter):
        np.testing.assert_array_equal(pixels(image, "a", ranges), plain)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(8, 40), st.text(max_size=5))
def test_every_draw_is_a_square_and_the_same_again(width, height, size, seed) -> None:
    image = Image.radial_gradient("L").resize((width, height)).convert("RGB")
    first, again = pixels(image, seed, size=size), pixels(image, seed, size=size)
    assert first.shape == (size, size, 3)
    np.testing.assert_array_equal(first, again)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**32))
def test_the_box_lies_within_the_image(width, height, seed) -> None:
    left, top, right, bottom = box((width, height), seed)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (350, 350)], ids=str)
def test_a_box_takes_its_share_of_an_ordinary_image(size) -> None:
    shares, ratios, corners = [], [], set()
    for seed in range(300):
        left, top, right, bottom = box(size, seed)
        shares.append((right - left) * (bottom - top) / (size[0] * size[1]))
        ratios.append((right - left) / (bottom - top))
        corners.add((left, top))
    assert 0.79 < min(shares) < 0.83
    assert 0.9 < max(shares) <= 1.0
    assert min(ratios) > CLIP_PAPER.ratio[0] - 0.01
    assert max(ratios) < CLIP_PAPER.ratio[1] + 0.01
    assert len(corners) > 200


def test_a_strip_gives_its_middle() -> None:
    assert box((1000, 10), 0) == (493, 0, 506, 10)


def test_about_half_of_the_draws_are_mirrored(draw) -> None:
    flip = replace(STILL, flip=0.5)
    image = draw(2, 32, 32)
    plain = np.asarray(image).astype(int)
    mirrored = 0
    for seed in range(100):
        look = pixels(image, str(seed), flip)
        if np.array_equal(look, plain[:, ::-1]):
            mirrored += 1
        else:
            np.testing.assert_array_equal(look, plain)
    assert 30 < mirrored < 70


def test_a_rotation_stays_within_ten_degrees() -> None:
    rotation = replace(STILL, degrees=CLIP_PAPER.degrees)
    half = Image.new("RGB", (101, 101), "white")
    half.paste("red", (0, 0, 101, 50))
    slopes = []
    for seed in range(60):
        look = pixels(half, str(seed), rotation, 101)
        edge = [int(np.argmax(look[:, x, 1] > 100)) for x in (30, 70)]
        slopes.append(np.degrees(np.arctan2(edge[0] - edge[1], 40)))
    assert 7 < max(np.abs(slopes)) < CLIP_PAPER.degrees + 2
    assert min(slopes) < 0 < max(slopes)


@pytest.mark.parametrize(
    ("name", "colour"), [("brightness", (100, 100, 100)), ("saturation", (150, 100, 100))]
)
def test_jitter_changes_by_a_fifth_at_most(name, colour) -> None:
    image = Image.new("RGB", (32, 32), colour)
    seen = np.array([pixels(image, str(seed), jitter(name))[0, 0] for seed in range(80)])
    if name == "brightness":
        assert 79 <= seen.min() < 85
        assert 115 < seen.max() <= 120
    else:
        spread = seen[:, 0] - seen[:, 1]
        assert 39 <= spread.min() < 44
        assert 56 < spread.max() <= 61


def test_hue_turns_by_a_tenth_of_the_circle_at_most() -> None:
    red = Image.new("RGB", (32, 32), (200, 0, 0))
    seen = np.array([pixels(red, str(seed), jitter("hue"))[0, 0] for seed in range(80)])
    assert (seen[:, 0] == 200).all()  # 36 degrees from red, red stays on top.
    assert 90 < seen[:, 1].max() <= 125  # Towards yellow ...
    assert 90 < seen[:, 2].max() <= 125  # ... and towards magenta.


def test_contrast_keeps_the_mean(draw) -> None:
    image = draw(3, 32, 32).convert("L").convert("RGB")
    plain = np.asarray(image).astype(int)
    spreads = []
    for seed in range(40):
        look = pixels(image, str(seed), jitter("contrast"))
        assert abs(look.mean() - plain.mean()) < 3
        spreads.append(look.std() / plain.std())
    assert 0.79 < min(spreads) < 0.85
    assert 1.1 < max(spreads) < 1.21
