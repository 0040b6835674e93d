"""The seeded draws: the laws they keep, and the ranges that the paper gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from archiveprobe.embed import augment
from archiveprobe.embed.augment import DEGREES, JITTER, RATIO, SCALE, augmented

BICUBIC = Image.Resampling.BICUBIC


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No crop, flip, rotation or jitter: a test puts one of them back."""
    monkeypatch.setattr(augment, "SCALE", (1.0, 1.0))
    monkeypatch.setattr(augment, "RATIO", (1.0, 1.0))
    monkeypatch.setattr(augment, "FLIP", 0.0)
    monkeypatch.setattr(augment, "DEGREES", 0.0)
    monkeypatch.setattr(augment, "JITTER", dict.fromkeys(JITTER, 0.0))
    return monkeypatch


def pixels(picture: Image.Image, seed: str, size: int = 32) -> np.ndarray:
    return np.asarray(augmented(picture, size, BICUBIC, seed)).astype(int)


def box(size: tuple[int, int], seed: int) -> tuple[int, int, int, int]:
    return augment._crop_box(size, np.random.default_rng(seed), augment.paper())


def test_the_ranges_are_the_papers() -> None:
    assert (SCALE, DEGREES, augment.FLIP) == ((0.8, 1.0), 10.0, 0.5)
    assert JITTER == {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.1}


def test_without_amounts_nothing_happens(still, draw) -> None:
    picture = draw(1, 50, 50)
    plain = np.asarray(picture.resize((32, 32), BICUBIC)).astype(int)
    for seed in "abcdef":
        # Going through hue and back rounds twice.
        assert np.abs(pixels(picture, seed) - plain).max() <= 6
    still.setattr(augment, "JITTER", {"brightness": 0, "contrast": 0, "saturation": 0})
    np.testing.assert_array_equal(pixels(picture, "a"), plain)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(8, 40), st.text(max_size=5))
def test_every_draw_is_a_square_and_the_same_again(width, height, size, seed) -> None:
    picture = Image.radial_gradient("L").resize((width, height)).convert("RGB")
    first, again = pixels(picture, seed, size), pixels(picture, seed, size)
    assert first.shape == (size, size, 3)
    np.testing.assert_array_equal(first, again)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 2**32))
def test_the_box_lies_within_the_picture(width, height, seed) -> None:
    left, top, right, bottom = box((width, height), seed)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (350, 350)], ids=str)
def test_a_box_takes_its_share_of_an_ordinary_picture(size) -> None:
    shares, ratios, corners = [], [], set()
    for seed in range(300):
        left, top, right, bottom = box(size, seed)
        shares.append((right - left) * (bottom - top) / (size[0] * size[1]))
        ratios.append((right - left) / (bottom - top))
        corners.add((left, top))
    assert 0.79 < min(shares) < 0.83
    assert 0.9 < max(shares) <= 1.0
    assert min(ratios) > RATIO[0] - 0.01
    assert max(ratios) < RATIO[1] + 0.01
    assert len(corners) > 200


def test_a_strip_gives_its_middle() -> None:
    assert box((1000, 10), 0) == (493, 0, 506, 10)


def test_about_half_of_the_draws_are_mirrored(still, draw) -> None:
    still.setattr(augment, "FLIP", 0.5)
    still.setattr(augment, "JITTER", {})
    picture = draw(2, 32, 32)
    plain = np.asarray(picture).astype(int)
    mirrored = 0
    for seed in range(100):
        look = pixels(picture, str(seed))
        if np.array_equal(look, plain[:, ::-1]):
            mirrored += 1
        else:
            np.testing.assert_array_equal(look, plain)
    assert 30 < mirrored < 70


def test_a_rotation_stays_within_ten_degrees(still) -> None:
    still.setattr(augment, "DEGREES", DEGREES)
    still.setattr(augment, "JITTER", {})
    half = Image.new("RGB", (101, 101), "white")
    half.paste("red", (0, 0, 101, 50))
    slopes = []
    for seed in range(60):
        look = pixels(half, str(seed), 101)
        edge = [int(np.argmax(look[:, x, 1] > 100)) for x in (30, 70)]
        slopes.append(np.degrees(np.arctan2(edge[0] - edge[1], 40)))
    assert 7 < max(np.abs(slopes)) < DEGREES + 2
    assert min(slopes) < 0 < max(slopes)


@pytest.mark.parametrize(
    ("name", "colour"), [("brightness", (100, 100, 100)), ("saturation", (150, 100, 100))]
)
def test_jitter_changes_by_a_fifth_at_most(still, name, colour) -> None:
    still.setattr(augment, "JITTER", {name: JITTER[name]})
    picture = Image.new("RGB", (32, 32), colour)
    seen = np.array([pixels(picture, str(seed))[0, 0] for seed in range(80)])
    if name == "brightness":
        assert 79 <= seen.min() < 85
        assert 115 < seen.max() <= 120
    else:
        spread = seen[:, 0] - seen[:, 1]
        assert 39 <= spread.min() < 44
        assert 56 < spread.max() <= 61


def test_hue_turns_by_a_tenth_of_the_circle_at_most(still) -> None:
    still.setattr(augment, "JITTER", {"hue": 0.1})
    red = Image.new("RGB", (32, 32), (200, 0, 0))
    seen = np.array([pixels(red, str(seed))[0, 0] for seed in range(80)])
    assert (seen[:, 0] == 200).all()  # 36 degrees from red, red stays on top.
    assert 90 < seen[:, 1].max() <= 125  # Towards yellow ...
    assert 90 < seen[:, 2].max() <= 125  # ... and towards magenta.


def test_contrast_keeps_the_mean(still, draw) -> None:
    still.setattr(augment, "JITTER", {"contrast": 0.2})
    picture = draw(3, 32, 32).convert("L").convert("RGB")
    plain = np.asarray(picture).astype(int)
    spreads = []
    for seed in range(40):
        look = pixels(picture, str(seed))
        assert abs(look.mean() - plain.mean()) < 3
        spreads.append(look.std() / plain.std())
    assert 0.79 < min(spreads) < 0.85
    assert 1.1 < max(spreads) < 1.21
