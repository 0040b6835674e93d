import csv
import hashlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin

from task import images
from task.duplicates import NEAR_BITS
from task.images import FLAGS, PASSING, REJECTIONS, Observation, decode, digest, rejected

INVERSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
ALPHA_FORMS = ["PNG", "WEBP"]


def seen(content):
    result = decode(content)
    return result if isinstance(result, Observation) else result.observation


def far(first, second):
    return (int(first.phash, 16) ^ int(second.phash, 16)).bit_count()


def mean_error(picture, expected):
    return np.abs(np.asarray(picture).astype(float) - np.asarray(expected).astype(float)).mean()


@pytest.fixture(scope="module")
def marked(draw):
    """A picture of 96 x 64 pixels with a red mark at the top left only."""
    picture = draw(1, 96, 64).convert("L").convert("RGB")
    picture.paste((255, 0, 0), (0, 0, 24, 16))
    return picture


def mark_is_top_left(picture):
    pixels = np.asarray(picture).astype(int)
    red = (pixels[..., 0] > 180) & (pixels[..., 1] < 70) & (pixels[..., 2] < 70)
    return red[2:14, 2:22].all() and red.sum() < 30 * 20


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_formats(marked, encode, form):
    content = encode(marked, form)
    photograph = decode(content)
    observed = photograph.observation
    assert mark_is_top_left(photograph.pixels)
    assert photograph.pixels.mode == "RGB"
    assert mean_error(photograph.pixels, marked) < 8
    assert (observed.status, observed.usable, observed.format) == ("ok", True, form)
    assert (observed.width, observed.height, observed.bytes) == (96, 64, len(content))
    assert (observed.frames, observed.orientation) == (1, 1)
    assert observed.border == 0


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_orientation(marked, encode, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = marked.transpose(INVERSE[orientation]) if orientation in INVERSE else marked
    photograph = decode(encode(stored, form, exif=exif))
    assert mark_is_top_left(photograph.pixels)
    assert photograph.pixels.size == (96, 64)
    observed = photograph.observation
    assert (observed.width, observed.height) == (96, 64)
    # Pillow turns a TIFF itself while loading and drops the tag.
    known = orientation if 1 <= orientation <= 8 and form != "TIFF" else 1
    assert observed.orientation == known
    assert observed.exif >= 1


@pytest.mark.parametrize(
    "block", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0"]
)
def test_corrupt_exif_still_decodes(marked, encode, block):
    photograph = decode(encode(marked, "JPEG", exif=block))
    assert photograph.observation.status == "ok"
    assert photograph.observation.orientation == 1
    assert mark_is_top_left(photograph.pixels)


def test_exif_that_pillow_chokes_on(marked, encode, monkeypatch):
    def refuse(_):
        raise SyntaxError("no EXIF")

    monkeypatch.setattr(Image.Image, "getexif", refuse)
    observed = seen(encode(marked, "JPEG"))
    assert (observed.status, observed.orientation, observed.exif) == ("ok", 1, 0)


@pytest.mark.parametrize("form", ALPHA_FORMS)
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_lies_on_white(encode, form, mode):
    alpha = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (64, 1))
    layer = Image.new(mode, (64, 64), 0)
    layer.putalpha(Image.fromarray(alpha))
    photograph = decode(encode(layer, form, lossless=True) if form == "WEBP" else encode(layer))
    expected = np.repeat(255 - alpha[:, :, None], 3, 2)
    assert np.abs(np.asarray(photograph.pixels).astype(int) - expected).max() <= 1


def test_palette_with_transparency(encode):
    indices = np.zeros((64, 64), np.uint8)
    indices[:, 32:] = 1
    indices[32:] += 2
    picture = Image.fromarray(indices, "P")
    picture.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    for form in ("PNG", "GIF"):
        pixels = np.asarray(decode(encode(picture, form, transparency=0)).pixels)
        assert pixels[4, 4].tolist() == [255, 255, 255]
        assert pixels[4, 60].tolist() == [200, 0, 0]
        assert pixels[60, 4].tolist() == [0, 200, 0]
    pixels = np.asarray(decode(encode(picture, transparency=bytes([128, 255, 0, 255]))).pixels)
    assert abs(int(pixels[4, 4, 0]) - 127) <= 1
    assert pixels[60, 4].tolist() == [255, 255, 255]


def test_true_colour_with_a_transparent_key(encode):
    picture = Image.new("RGB", (64, 64), (10, 20, 30))
    picture.paste((200, 0, 0), (0, 0, 32, 64))
    pixels = np.asarray(decode(encode(picture, transparency=(10, 20, 30))).pixels)
    assert pixels[0, 0].tolist() == [200, 0, 0]
    assert pixels[0, 60].tolist() == [255, 255, 255]


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled(encode, form):
    wide = (np.linspace(0, 65535, 64 * 64).reshape(64, 64)).astype(np.uint16)
    photograph = decode(encode(Image.fromarray(wide), form))
    pixels = np.asarray(photograph.pixels).astype(float)
    assert np.abs(pixels[..., 0] - wide / 257.0).max() <= 0.51
    assert (pixels[..., 0] == pixels[..., 2]).all()
    assert abs(photograph.observation.red - 127.5) < 1


def test_cmyk(marked, encode):
    assert mark_is_top_left(decode(encode(marked.convert("CMYK"), "TIFF")).pixels)
    assert mark_is_top_left(decode(encode(marked.convert("CMYK"), "JPEG", quality=95)).pixels)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_few_colours(marked, encode, mode):
    expected = marked.convert(mode).convert("RGB")
    assert mean_error(decode(encode(marked.convert(mode))).pixels, expected) == 0


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_first_frame_of_an_animation(marked, draw, encode, form):
    more = [draw(seed, 96, 64) for seed in (5, 6)]
    content = encode(marked, form, save_all=True, append_images=more)
    photograph = decode(content)
    assert photograph.observation.frames == 3
    assert mark_is_top_left(photograph.pixels)
    assert mean_error(photograph.pixels, marked) < 8


def test_animation_cut_after_the_first_frame(marked, draw, encode):
    content = encode(marked, "GIF", save_all=True, append_images=[draw(5, 96, 64)])
    single = len(encode(marked, "GIF"))
    for cut in range(single + 40, len(content) - 40, 97):
        result = decode(content[:cut])
        if not isinstance(result, Observation):
            assert mean_error(result.pixels, marked) < 8


CUTS = [0.05, 0.2, 0.5, 0.8, 0.97]


@pytest.mark.parametrize("share", CUTS)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_truncated(draw, encode, form, share):
    content = encode(draw(3, 200, 150), form)
    observed = seen(content[: int(len(content) * share)])
    assert observed.status == "truncated"
    assert not observed.usable
    assert (observed.width, observed.phash) == (None, "")


@pytest.mark.parametrize("share", CUTS)
@pytest.mark.parametrize("form", ["BMP", "TIFF", "AVIF"])
def test_truncated_without_an_end_mark(draw, encode, form, share):
    content = encode(draw(3, 200, 150), form)
    observed = seen(content[: int(len(content) * share)])
    assert observed.status in {"truncated", "corrupt", "not_an_image"}


def test_jpeg_without_its_end(draw, encode):
    content = encode(draw(3), "JPEG")
    assert content.endswith(b"\xff\xd9")
    assert seen(content[:-2]).status == "truncated"


def test_broken_stream_is_loaded_once(draw, encode, monkeypatch):
    """A second load of a broken PNG gives a part of the picture without an error."""
    content = bytearray(encode(draw(3, 200, 150)))
    at = content.index(b"IDAT") + 4
    content[at + 2000 : at + 2100] = bytes(100)
    loads = []
    real = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: loads.append(1) or real(image))
    assert seen(bytes(content)).status == "corrupt"
    assert len(loads) == 1


def png_claiming(width, height):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    ends = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + ends


@pytest.mark.parametrize("sides", [(9000, 9000), (8001, 8000), (60_000, 60_000), (2**31 - 1, 1)])
def test_too_many_pixels_are_never_decoded(monkeypatch, sides):
    def refuse(_):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", refuse)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        observed = seen(png_claiming(*sides))
    assert observed.status == "too_many_pixels"
    assert str(sides[0]) in observed.detail or "pixels" in observed.detail


def test_pixel_limit_itself_is_allowed():
    assert seen(png_claiming(8000, 8000)).status != "too_many_pixels"


def test_zero_pixels():
    assert seen(png_claiming(0, 5)).status == "bad_dimensions"


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


@pytest.mark.parametrize("mode", ["F", "I"])
def test_modes_without_a_picture(encode, mode):
    observed = seen(encode(Image.new(mode, (64, 64)), "TIFF"))
    assert (observed.status, observed.detail) == ("mode_not_supported", f"mode {mode}")


@pytest.mark.parametrize("form", ["PPM", "ICO", "TGA", "PCX"])
def test_formats_that_are_not_photographs(draw, encode, form):
    assert seen(encode(draw(1, 64, 64), form)).status in {"format_not_allowed", "not_an_image"}


def test_empty_file():
    observed = seen(b"")
    assert (observed.status, observed.bytes, observed.usable) == ("empty_file", 0, False)


FAULTS = [
    OSError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    ValueError,
    IndexError,
    KeyError,
    AttributeError,
    OverflowError,
    ZeroDivisionError,
    AssertionError,
    EOFError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", ["load", "convert", "open"])
def test_every_fault_in_pillow_becomes_a_status(draw, encode, monkeypatch, fault, place):
    def fail(*_, **__):
        raise fault("first line\nsecond line")

    content = encode(draw(1))
    monkeypatch.setattr(
        *{
            "load": (ImageFile.ImageFile, "load", fail),
            "convert": (Image.Image, "convert", fail),
            "open": (images.Image, "open", fail),
        }[place]
    )
    observed = seen(content)
    assert observed.status in REJECTIONS
    assert "\n" not in observed.detail
    assert observed.bytes == len(content)


def test_interrupts_are_not_swallowed(draw, encode, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageFile.ImageFile, "load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decode(encode(draw(1)))


def test_libtiff_stays_silent(draw, encode, capfd):
    content = bytearray(encode(draw(1), "TIFF", compression="tiff_lzw"))
    strip = Image.open(io.BytesIO(content)).tag_v2[TiffImagePlugin.STRIPOFFSETS][0]
    content[strip : strip + 200] = b"\xff" * 200
    with pytest.raises(OSError, match="decoder error"):
        Image.open(io.BytesIO(content)).load()
    assert capfd.readouterr().err  # libtiff does print on its own
    assert seen(bytes(content)).status == "corrupt"
    assert capfd.readouterr().err == ""


def test_python_warnings_stay_silent(encode, recwarn):
    decode(encode(Image.new("RGB", (64, 64)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"))
    assert [*recwarn] == []


def test_digest():
    assert digest(b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_decoding_is_repeatable(draw, encode):
    content = encode(draw(1), "JPEG")
    first, second = decode(content), decode(content)
    assert first.observation == second.observation
    assert first.pixels.tobytes() == second.pixels.tobytes()


def acceptable(content):
    result = decode(content)
    observed = result if isinstance(result, Observation) else result.observation
    assert observed.usable == (not isinstance(result, Observation))
    assert observed.usable or observed.status in REJECTIONS
    assert observed.bytes == len(content)
    assert len(observed.detail.splitlines()) <= 1


STARTS = [
    b"",
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"RIFF\0\0\0\0WEBP",
]


@given(st.sampled_from(STARTS), st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_arbitrary_bytes(start, rest):
    acceptable(start + rest)


@pytest.fixture(scope="module")
def good(draw, encode):
    return {form: encode(draw(1, 48, 40), form) for form in ("JPEG", "PNG", "GIF", "WEBP", "TIFF")}


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_flipped_bytes(good, data):
    content = bytearray(good[data.draw(st.sampled_from(sorted(good)))])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    acceptable(bytes(content))


@pytest.mark.real
def test_bad_images(shared, capfd):
    index = shared / "bad_images" / "index.csv"
    if not index.is_file():
        pytest.skip(f"no {index}")
    wrong = []
    with index.open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    for line in lines:
        observed = seen((index.parent / line["file"]).read_bytes())
        reasons = line["reason"].split("|")
        fine = {
            "decode": observed.usable,
            "decode_flag": observed.status in FLAGS and observed.status in reasons,
            "reject": observed.status in REJECTIONS
            and (observed.status in reasons or not line["file"].startswith("gen/")),
            "decode_or_reject": observed.usable or observed.status in REJECTIONS,
        }[line["expect"]]
        if not fine:
            wrong.append((line["file"], line["expect"], line["reason"], observed.status))
    assert wrong == []
    assert len(lines) > 200
    assert capfd.readouterr().err == ""
