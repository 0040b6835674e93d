import csv
import hashlib
import sys

import numpy as np
import pytest
from PIL import Image

from archiveprobe.task.decoding import FLAGS, REJECTIONS, Observation, decode, digest

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
    """An image of 96 x 64 pixels with a red mark at the top left only."""
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
    assert observed.orientation == (orientation if 1 <= orientation <= 8 else 1)
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


def test_digest():
    assert digest(b"abc") == hashlib.sha256(b"abc").hexdigest()


def test_decoding_is_repeatable(draw, encode):
    content = encode(draw(1), "JPEG")
    first, second = decode(content), decode(content)
    assert first.observation == second.observation
    assert first.pixels.tobytes() == second.pixels.tobytes()


@pytest.mark.proves("images")
@pytest.mark.real
def test_bad_images(shared, capfd, monkeypatch):
    # Its expectations are those without the extra; test_heic.py has them with it.
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
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
