"""What the decode notes beside the pixels: flags, borders, colours, hashes."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from archiveprobe.task.decoding import FLAGS, PASSING, REJECTIONS, Observation, decode, rejected
from archiveprobe.task.duplicates import NEAR_BITS


def seen(content):
    result = decode(content)
    return result if isinstance(result, Observation) else result.observation


def far(first, second):
    return (int(first.phash, 16) ^ int(second.phash, 16)).bit_count()


@pytest.mark.parametrize(
    ("sides", "flag"),
    [
        ((31, 40), "tiny"),
        ((32, 40), "ok"),
        ((40, 401), "extreme_aspect"),
        ((40, 400), "ok"),
        ((1, 1), "tiny"),
        ((1, 3000), "extreme_aspect"),
        ((3000, 1), "extreme_aspect"),
    ],
)
def test_size_flags(draw, encode, sides, flag):
    observed = seen(encode(draw(2, *sides)))
    assert (observed.status, observed.usable) == (flag, True)
    assert len(observed.phash) == 16


def test_blank(encode):
    flat = Image.new("RGB", (80, 60), (120, 130, 140))
    assert seen(encode(flat)).status == "blank"
    flat.putpixel((5, 5), (123, 130, 140))
    assert seen(encode(flat)).status == "blank"
    flat.putpixel((5, 5), (124, 130, 140))
    assert seen(encode(flat)).status == "ok"
    assert seen(encode(Image.new("RGBA", (80, 60), (9, 9, 9, 0)))).status == "blank"
    lone = Image.new("RGB", (3000, 2000), "black")
    lone.putpixel((1500, 1000), (60, 60, 60))
    assert seen(encode(lone)).status == "ok"


def test_statuses_are_of_one_kind():
    assert not FLAGS & REJECTIONS
    assert PASSING < REJECTIONS
    assert all(not rejected(status).usable for status in REJECTIONS)
    assert all(Observation(status).usable for status in {"ok", *FLAGS})


def test_mean_colours_and_border(encode):
    picture = Image.new("RGB", (100, 100), (200, 100, 50))
    picture.paste((0, 0, 0), (0, 0, 100, 50))
    observed = seen(encode(picture))
    assert (observed.red, observed.green, observed.blue) == (100, 50, 25)


@pytest.mark.parametrize("colour", ["black", "white", (90, 10, 10)])
@pytest.mark.parametrize("border", [(0, 20), (20, 0), (15, 15)])
def test_letterboxed_copy(draw, encode, colour, border):
    picture = draw(4)
    first = seen(encode(picture))
    second = seen(encode(ImageOps.expand(picture, border, colour)))
    assert first.border == 0
    area = (120 + 2 * border[0]) * (90 + 2 * border[1])
    assert second.border == pytest.approx(1 - 120 * 90 / area, abs=0.03)
    assert far(first, second) <= 2


def test_letterboxed_copy_that_is_equal_inside(encode):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(60, 256, (90, 120, 3), np.uint8))
    first = seen(encode(picture))
    second = seen(encode(ImageOps.expand(picture, (0, 30), "black")))
    assert second.phash == first.phash


def test_recompressed_and_resized_copies(draw, encode):
    picture = draw(8, 400, 300)
    first = seen(encode(picture))
    assert far(first, seen(encode(picture, "JPEG", quality=40))) <= NEAR_BITS
    assert far(first, seen(encode(picture.resize((200, 150))))) <= NEAR_BITS
    assert far(first, seen(encode(draw(9, 400, 300)))) > NEAR_BITS


def test_plain_sky_is_no_border(encode, draw):
    picture = Image.new("RGB", (200, 200), (120, 160, 220))
    picture.paste(draw(3, 60, 60), (70, 140))
    assert seen(encode(picture)).border == 0


def test_thumbnail(draw, encode):
    photograph = decode(encode(draw(3, 800, 400)))
    assert photograph.thumbnail.size == (256, 128)
    assert photograph.pixels.size == (800, 400)
    assert decode(encode(draw(3, 100, 50))).thumbnail.size == (100, 50)


@pytest.mark.parametrize(
    "sides",
    [(1, 1), (256, 256), (257, 256), (300, 200), (200, 300), (1, 3000), (3000, 1), (5000, 6)]
    + [(width, 777) for width in range(520, 1100, 37)],
    ids=str,
)
def test_a_thumbnail_is_the_one_of_pillow(draw, encode, sides):
    image = draw(3, *sides)
    expected = image.copy()
    expected.thumbnail((256, 256), Image.Resampling.BOX)
    ours = decode(encode(image)).thumbnail
    assert (ours.size, ours.tobytes()) == (expected.size, expected.tobytes())


def test_the_whole_image_is_not_copied_for_its_thumbnail(draw, encode, monkeypatch):
    # JPEG, since Pillow itself copies the pixels of a PNG.
    content = encode(draw(3, 300, 280), "JPEG")
    real, copied = Image.Image.copy, []
    monkeypatch.setattr(Image.Image, "copy", lambda image: copied.append(image.size) or real(image))
    assert decode(content).thumbnail.size == (256, 239)
    assert (300, 280) not in copied
