"""JPEG by simplejpeg: the pixels, statuses and observations that Pillow alone gives."""

import csv
import io
from unittest import mock

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from archiveprobe.task import decoding
from archiveprobe.task.decoding import Observation, decode, decode_pixels
from archiveprobe.task.jpeg import FAST_SIDE, decode_jpeg

SIZES = [(width, height) for width in range(1, 18) for height in range(1, 18)]
SAMPLINGS = ["444", "422", "420", "440", "411", "Gray"]


def by_pillow(content):
    with mock.patch.object(decoding, "decode_jpeg", lambda *_: None):
        return decode_pixels(content)


def is_simple(content):
    """Return whether simplejpeg decodes it, so that a comparison with Pillow says something."""
    with Image.open(io.BytesIO(content)) as opened:
        return decode_jpeg(content, opened, "exact") is not None


def assert_as_pillow(content):
    ours, pillows = decode_pixels(content), by_pillow(content)
    if isinstance(pillows, Observation):
        assert ours == pillows
        return
    (pixels, seen, _), (expected, seen_by_pillow, _) = ours, pillows
    assert seen == seen_by_pillow
    assert pixels.mode == expected.mode == "RGB"
    # Pillow keeps four bytes of a pixel, the last of which some conversions show.
    for mode in ("RGB", "RGBA"):
        both = (np.asarray(image.convert(mode)) for image in (pixels, expected))
        assert np.array_equal(*both)


def sampled(picture, sampling, quality=85):
    pixels = np.ascontiguousarray(picture)
    return simplejpeg.encode_jpeg(pixels, quality, "RGB", sampling)


@pytest.fixture(scope="module")
def noisy(draw):
    """An image whose every pixel differs, so that no wrong filter goes unseen."""
    rng = np.random.default_rng(0)
    smooth = np.asarray(draw(5, 213, 151)).astype(int)
    return Image.fromarray(np.clip(smooth + rng.normal(0, 40, smooth.shape), 0, 255).astype("u1"))


@pytest.mark.proves("images")
@pytest.mark.parametrize("quality", [30, 75, 100])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_every_sampling(noisy, sampling, quality):
    content = sampled(noisy, sampling, quality)
    assert is_simple(content)
    assert_as_pillow(content)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_every_small_size(noisy, sampling):
    for width, height in SIZES:
        content = sampled(noisy.crop((0, 0, width, height)), sampling)
        assert is_simple(content)
        assert_as_pillow(content)


@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"progressive": True, "subsampling": 0},
        {"restart_marker_blocks": 3},
        {"restart_marker_rows": 1, "progressive": True},
        {"keep_rgb": True},
        {"icc_profile": b"x" * 70_000},
        {"comment": b"y" * 300, "dpi": (72, 72)},
        {"optimize": True, "quality": 1},
    ],
    ids=str,
)
def test_every_way_to_write_one(noisy, encode, options):
    content = encode(noisy, "JPEG", **options)
    assert is_simple(content)
    assert_as_pillow(content)


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation(noisy, encode, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(noisy, "JPEG", exif=exif)
    assert is_simple(content)
    assert_as_pillow(content)


def test_more_than_one_image(noisy, encode):
    content = encode(noisy, "MPO", save_all=True, append_images=[noisy.rotate(90)])
    assert is_simple(content)
    assert_as_pillow(content)
    assert decode(content).observation.frames == 2


def test_four_colours_are_left_to_pillow(noisy, encode):
    for quality in (50, 95):
        content = encode(noisy.convert("CMYK"), "JPEG", quality=quality)
        assert not is_simple(content)
        assert_as_pillow(content)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(1, 0xC9), (1, 0xCA), (1, 0xC3), (1, 0xC1), (1, 0xC2), (4, 12), (4, 16), (9, 2), (9, 4)],
)
def test_headers_that_tell_something_else(noisy, encode, offset, value):
    """Arithmetic, lossless, extended and progressive coding, 12 and 16 bits, other components."""
    content = bytearray(encode(noisy, "JPEG"))
    content[content.index(b"\xff\xc0") + offset] = value
    assert_as_pillow(bytes(content))


def test_scans_that_are_missing(noisy, encode):
    content = encode(noisy, "JPEG", progressive=True)
    scans = [at for at in range(len(content)) if content[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 3
    for scan in scans[1:]:
        assert_as_pillow(content[:scan] + b"\xff\xd9")


def test_bytes_before_and_after(noisy, encode):
    content = encode(noisy, "JPEG")
    for odd in (content + b"\0" * 1000, content + content, content[:-2], b"\0" + content):
        assert_as_pillow(odd)


@pytest.mark.proves("images")
@pytest.mark.parametrize("progressive", [False, True])
def test_every_cut(draw, encode, progressive):
    content = encode(draw(2, 60, 44), "JPEG", progressive=progressive)
    for length in [*range(0, len(content), 7), *range(len(content) - 40, len(content))]:
        assert_as_pillow(content[:length])


@pytest.mark.proves("images")
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_any_damage(draw, encode, data):
    form = data.draw(st.sampled_from([{}, {"progressive": True}, {"restart_marker_blocks": 2}]))
    content = bytearray(encode(draw(4, 50, 40), "JPEG", **form))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    assert_as_pillow(bytes(content))


@pytest.mark.proves("hostile")
def test_a_huge_one_is_refused_before_its_pixels(noisy, encode):
    content = bytearray(encode(noisy, "JPEG"))
    start = content.index(b"\xff\xc0") + 5
    content[start : start + 4] = b"\xff\xff\xff\xff"
    with mock.patch.object(decoding, "decode_jpeg", side_effect=AssertionError):
        assert decode(bytes(content)).status == "too_many_pixels"


@pytest.mark.proves("memory")
def test_memory_that_is_missing_is_no_fault_of_the_image(noisy, encode, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(simplejpeg, "decode_jpeg", fail)
    assert decode(encode(noisy, "JPEG")).status == "decoder_died"


def test_fast_halves_large_images_only(draw, encode):
    for size, expected in [
        ((1100, 1030), (550, 515)),
        ((4400, 2048), (1100, 512)),
        ((1100, 1000), (1100, 1000)),
        ((90, 60), (90, 60)),
    ]:
        content = encode(draw(1, *size), "JPEG")
        image = decode(content, "fast")
        assert image.pixels.size == expected
        assert min(image.pixels.size) >= min(FAST_SIDE, *size)
        seen, exact = image.observation, decode(content).observation
        assert (seen.width, seen.height) == size
        assert (seen.status, seen.format, seen.bytes) == (exact.status, exact.format, exact.bytes)


def test_fast_turns_what_lies_on_its_side(draw, encode):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode(encode(draw(1, 2048, 1024), "JPEG", exif=exif), "fast")
    assert image.pixels.size == (512, 1024)
    assert (image.observation.width, image.observation.height) == (1024, 2048)


def test_fast_is_for_jpeg_only(draw, encode):
    content = encode(draw(1, 1100, 1030))
    assert np.array_equal(
        np.asarray(decode(content, "fast").pixels), np.asarray(draw(1, 1100, 1030))
    )


def test_fast_gives_every_status_of_exact(noisy, encode):
    content = encode(noisy, "JPEG")
    for odd in (
        content[:-2],
        content[:900],
        content[:30],
        b"",
        encode(noisy.convert("CMYK"), "JPEG"),
    ):
        fast, exact = decode(odd, "fast"), decode(odd)
        seen = [
            each if isinstance(each, Observation) else each.observation for each in (fast, exact)
        ]
        assert seen[0].status == seen[1].status


def test_thumbnail_and_observation_are_as_by_pillow(noisy, encode):
    content = encode(noisy.resize((700, 500)), "JPEG")
    ours = decode(content)
    with mock.patch.object(decoding, "decode_jpeg", lambda *_: None):
        pillows = decode(content)
    assert ours.observation == pillows.observation
    assert ours.thumbnail.tobytes() == pillows.thumbnail.tobytes()


@pytest.mark.real
@pytest.mark.proves("images")
def test_real_photographs_are_equal_to_the_bit(shared):
    folder = shared / "data" / "vehicle_severity" / "images"
    if not folder.is_dir():
        pytest.skip(f"needs the photographs in {folder}")
    for file in sorted(folder.iterdir(), key=lambda file: -file.stat().st_size)[:200]:
        content = file.read_bytes()
        assert is_simple(content)
        assert_as_pillow(content)


@pytest.mark.real
@pytest.mark.proves("images")
def test_bad_images_keep_their_statuses(shared):
    index = shared / "bad_images" / "index.csv"
    if not index.is_file():
        pytest.skip(f"needs {index}")
    with index.open(newline="") as table:
        names = [row["file"] for row in csv.DictReader(table)]
    assert len(names) == 234
    for name in names:
        assert_as_pillow((index.parent / name).read_bytes())
