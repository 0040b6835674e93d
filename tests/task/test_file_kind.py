import pytest

from archiveprobe.task.decoding import PIXEL_LIMIT, REJECTIONS
from archiveprobe.task.file_kind import looks_truncated, reason_for_unknown

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


def size(width, height):
    return width.to_bytes(4, "big") + height.to_bytes(4, "big")


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"<!DOCTYPE html><html>", "html_not_image"),
        (b"\xef\xbb\xbf \n<HTML><body>", "html_not_image"),
        (b"<?xml version='1.0'?><svg>", "not_an_image"),
        (b"<svg xmlns='x'>", "not_an_image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git_lfs_pointer"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2", "video_not_image"),
        (b"\x1aE\xdf\xa3", "video_not_image"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", "video_not_image"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic", "heic_needs_plugin"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00\x00\x00heic", "heic_needs_plugin"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1", "corrupt"),
        (b"8BPS\x00\x01", "format_not_allowed"),
        (b"\x00\x00\x01\x00\x01\x00", "format_not_allowed"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "format_not_allowed"),
        (b"just some text", "not_an_image"),
        (b"\x00" * 64, "not_an_image"),
        (b"x", "not_an_image"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (b"\xff\xd8\xff\xe0\xff\xd9", "corrupt"),
        (PNG + size(10, 10), "truncated"),
        (PNG + size(10, 10) + b"IEND", "corrupt"),
        (PNG + size(0, 10), "bad_dimensions"),
        (PNG + size(90_000, 90_000), "too_many_pixels"),
        (b"RIFF\xff\x00\x00\x00WEBPVP8 ", "truncated"),
        (b"RIFF\x04\x00\x00\x00WEBP", "corrupt"),
        (b"II*\x00\x08\x00\x00\x00", "corrupt"),
    ],
)
def test_reason(content, status):
    assert reason_for_unknown(content, ValueError("x"), PIXEL_LIMIT)[0] == status
    assert status in REJECTIONS


def test_reason_says_more():
    name = reason_for_unknown(b"8BPS", ValueError(), 9)[1]
    assert name == "Photoshop"
    assert reason_for_unknown(PNG + size(4, 5), ValueError(), 19)[1] == "4 x 5 pixels, limit 19"
    assert reason_for_unknown(PNG + size(4, 5), ValueError("why"), 20)[1] == "ValueError: why"
    too_long = ValueError("Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK")
    assert reason_for_unknown(PNG + size(4, 5), too_long, 99)[0] == "text_chunk_limit"


@pytest.mark.parametrize(("form", "cut"), [("JPEG", 2), ("PNG", 12), ("GIF", 1), ("WEBP", 1)])
def test_missing_end(draw, encode, form, cut):
    content = encode(draw(0), form)
    assert not looks_truncated(content)
    assert looks_truncated(content[:-cut])
    assert not looks_truncated(content + b"\0" * 8)


@pytest.mark.parametrize("form", ["BMP", "TIFF"])
def test_formats_without_an_end_mark(draw, encode, form):
    assert not looks_truncated(encode(draw(0), form)[:-10])
