"""Broken, hostile and odd files: a status each, and nothing printed."""

import io
import re
import struct
import warnings
import zlib

import pytest
from PIL import Image, ImageFile, TiffImagePlugin

from archiveprobe.task import decoding
from archiveprobe.task.decoding import REJECTIONS, Observation, decode


def seen(content):
    result = decode(content)
    return result if isinstance(result, Observation) else result.observation


SHARES = [0.05, 0.2, 0.5, 0.8, 0.97]


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_truncated(draw, encode, form, share):
    content = encode(draw(3, 200, 150), form)
    observed = seen(content[: int(len(content) * share)])
    assert observed.status == "truncated"
    assert not observed.usable
    assert (observed.width, observed.phash) == (None, "")


@pytest.mark.parametrize("share", SHARES)
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
    """A second load of a broken PNG gives a part of the image without an error."""
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


@pytest.mark.parametrize("mode", ["F", "I"])
def test_modes_without_a_image(encode, mode):
    observed = seen(encode(Image.new(mode, (64, 64)), "TIFF"))
    assert (observed.status, observed.detail) == ("mode_not_supported", f"mode {mode}")


@pytest.mark.parametrize("form", ["PPM", "ICO", "TGA", "PCX"])
def test_formats_that_are_not_images(draw, encode, form):
    assert seen(encode(draw(1, 64, 64), form)).status in {"format_not_allowed", "not_an_image"}


def test_empty_file():
    observed = seen(b"")
    assert (observed.status, observed.bytes, observed.usable) == ("empty_file", 0, False)


FAULTS = [OSError, MemoryError, SyntaxError, KeyError, struct.error, Image.DecompressionBombError]


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
            "open": (decoding.Image, "open", fail),
        }[place]
    )
    observed = seen(content)
    assert observed.status in REJECTIONS
    assert "\n" not in observed.detail
    assert observed.bytes == len(content)


def test_no_address_comes_into_the_detail(draw, encode, monkeypatch):
    """Pillow names its stream `<_io.BytesIO object at 0x...>`, another one in every run."""

    def fail(image):
        raise OSError(f"cannot read {io.BytesIO()!r} in {image!r}")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    detail = seen(encode(draw(1))).detail
    assert "<_io.BytesIO object>" in detail
    assert not re.search(r"0x[0-9a-f]{4}", detail)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_switches_of_other_libraries_do_not_count(draw, encode, monkeypatch, form):
    """Ultralytics, for one, lets Pillow make up what is missing of an image."""
    whole = encode(draw(3, 200, 150), form)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert seen(whole[: len(whole) // 2]).status == "truncated"
    assert seen(whole).status == "ok"
    assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS) == (True, 100)


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
