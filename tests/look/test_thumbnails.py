"""Thumbnails and previews of the page: pixels only, from damaged folders too."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from archiveprobe.embed.thumbnails import thumbnail_file
from archiveprobe.look.thumbnails import page_thumbnails, preview, thumbnail, webp
from archiveprobe.task.decoding import decode, digest

SECRETS = ("SecretMaker", "SecretXmp", "SecretIptc", "SecretComment", "SecretText", "SecretIcc")
GPS_IFD, MAKER, LATITUDE = 0x8825, 0x010F, 2
# 31 degrees, 31 minutes, 31.31 seconds north, as EXIF writes it.
PLACE = (31.0, 31.0, 31.31)


def exif() -> Image.Exif:
    tags = Image.Exif()
    tags[MAKER] = "SecretMaker"
    tags.get_ifd(GPS_IFD).update({1: "N", LATITUDE: PLACE})
    return tags


def icc() -> bytes:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    at = profile.find(b"sRGB", 128)
    profile[at : at + 9] = b"SecretIcc"
    return bytes(profile)


def jpeg(image: Image.Image) -> bytes:
    """A JPEG with everything that a camera and an editor write beside the pixels."""
    out = io.BytesIO()
    image.save(
        out,
        "JPEG",
        quality=90,
        exif=exif(),
        xmp=b"<x:xmpmeta>SecretXmp</x:xmpmeta>",
        icc_profile=icc(),
        comment=b"SecretComment",
    )
    name = b"SecretIptc"
    iptc = b"\x1c\x02\x05" + len(name).to_bytes(2, "big") + name
    iptc += b"\0" * (len(iptc) % 2)
    body = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + len(iptc).to_bytes(4, "big") + iptc
    marker = b"\xff\xed" + (len(body) + 2).to_bytes(2, "big") + body
    content = out.getvalue()
    return content[:2] + marker + content[2:]


def png(image: Image.Image) -> bytes:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "SecretText")
    text.add_itxt("XML:com.adobe.xmp", "SecretXmp")
    out = io.BytesIO()
    image.save(out, "PNG", pnginfo=text, exif=exif(), icc_profile=icc())
    return out.getvalue()


def chunks(content: bytes) -> list[bytes]:
    """The names of the chunks of a WebP file."""
    assert content[:4] == b"RIFF"
    assert content[8:12] == b"WEBP"
    at, names = 12, []
    while at < len(content):
        names.append(content[at : at + 4])
        size = int.from_bytes(content[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return names


def assert_bare(content: bytes | None) -> Image.Image:
    assert content is not None
    assert chunks(content) == [b"VP8 "]
    assert not any(secret.encode() in content for secret in SECRETS)
    return Image.open(io.BytesIO(content))


@pytest.mark.proves("page")
@pytest.mark.parametrize("form", [jpeg, png], ids=["jpeg", "png"])
def test_nothing_but_pixels_leaves(archive, bench, draw, form) -> None:
    content = form(draw(1, 1500, 1000))
    wanted = SECRETS[:4] if form is jpeg else ("SecretMaker", "SecretXmp", "SecretText")
    for secret in wanted:
        assert secret.encode() in content
    with Image.open(io.BytesIO(content)) as image:
        assert image.getexif().get_ifd(GPS_IFD)[LATITUDE] == PLACE
        assert b"SecretIcc" in image.info["icc_profile"]
    archive.add("a.jpg", content)
    archive.add_drawn([2, 3])
    task = archive.task()
    bench.run(task)
    key = digest(content)
    stored = thumbnail_file(task.work / "thumbs", key).read_bytes()
    assert not any(secret.encode() in stored for secret in SECRETS)
    assert b"Exif" not in stored
    assert max(assert_bare(webp(stored)).size) == 192
    assert assert_bare(preview(task, "a.jpg", key)).size == (1024, 683)
    # Also where what lies among the thumbnails was not written by embed.
    thumbnail_file(task.work / "thumbs", key).write_bytes(jpeg(draw(1, 200, 100)))
    assert assert_bare(thumbnail(task, key, "a.jpg")).size == (192, 96)
    thumbnail_file(task.work / "thumbs", key).unlink()
    assert_bare(thumbnail(task, key, "a.jpg"))


def test_pixels_stay_those_of_the_image(draw) -> None:
    image = draw(5, 256, 200)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95)
    with Image.open(io.BytesIO(webp(out.getvalue(), 256))) as shown:
        difference = np.asarray(shown, float) - np.asarray(image, float)
    assert shown.size == (256, 200)
    assert np.abs(difference).mean() < 6


def test_a_preview_is_upright(archive, bench, draw) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    out = io.BytesIO()
    draw(4, 300, 100).save(out, "JPEG", exif=tags)
    archive.add("a.jpg", out.getvalue())
    with Image.open(io.BytesIO(preview(archive.task(), "a.jpg", digest(out.getvalue())))) as shown:
        assert shown.size == (100, 300)


def all_thumbnails(task, keys) -> dict[str, bytes | None]:
    return dict(page_thumbnails(task, keys))


def test_damaged_and_missing_thumbnails_are_made_again(mixed, bench) -> None:
    task = mixed.task()
    bench.run(task)
    keys = [digest(mixed.file(f"{number:03}.png").read_bytes()) for number in range(7)]
    before = all_thumbnails(task, keys)
    assert list(before) == keys
    assert all(before.values())
    files = [thumbnail_file(task.work / "thumbs", key) for key in keys]
    contents = [file.read_bytes() for file in files]
    files[0].unlink()
    files[1].write_bytes(b"")
    files[2].write_bytes(contents[2][:-200])
    files[3].write_bytes(b"<html>")
    files[4].unlink()
    os.mkfifo(files[4])
    files[5].write_bytes(contents[5] + bytes(400_000))
    large = io.BytesIO()
    Image.new("RGB", (257, 10)).save(large, "JPEG")
    files[6].write_bytes(large.getvalue())
    again = all_thumbnails(task, keys)
    sizes = {key: Image.open(io.BytesIO(content)).size for key, content in again.items()}
    assert sizes == dict.fromkeys(keys, (64, 48))
    for number in range(7):
        mixed.file(f"{number:03}.png").unlink()
    assert set(all_thumbnails(task, keys).values()) == {None}


def test_an_image_that_changed_is_not_shown_under_the_old_digest(archive, bench, draw) -> None:
    archive.add_drawn(range(3))
    task = archive.task()
    bench.run(task)
    key = digest(archive.file("000.png").read_bytes())
    archive.file("000.png").write_bytes(archive.file("001.png").read_bytes())
    stored = thumbnail(task, key)
    assert stored is not None
    assert Image.open(io.BytesIO(preview(task, "000.png", key))).size == (64, 48)
    thumbnail_file(task.work / "thumbs", key).unlink()
    assert preview(task, "000.png", key) is None
    assert thumbnail(task, key, "000.png") is None


def test_a_bomb_is_refused_before_its_pixels(archive, draw) -> None:
    out = io.BytesIO()
    Image.new("L", (40_000, 40_000)).save(out, "PNG")
    archive.add("a.png", out.getvalue())
    key = digest(out.getvalue())
    task = archive.task()
    assert preview(task, "a.png", key) is None
    file = thumbnail_file(task.work / "thumbs", key)
    file.parent.mkdir(parents=True)
    # The size that the header of a JPEG names.
    small = io.BytesIO()
    Image.new("RGB", (16, 16)).save(small, "JPEG")
    content = bytearray(small.getvalue())
    at = content.find(b"\xff\xc0") + 5
    content[at : at + 4] = (65000).to_bytes(2, "big") * 2
    file.write_bytes(content)
    with pytest.raises(ValueError, match="65000 x 65000"):
        webp(bytes(content))
    assert thumbnail(task, key, "a.png") is None


@pytest.mark.real
def test_two_thousand_real_thumbnails_fit_into_a_page() -> None:
    folder = Path(__file__).resolve().parents[3] / "shared/data/vehicle_severity/images"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    files = sorted(file for file in folder.rglob("*") if file.is_file())[::30]
    sizes = []
    for file in files:
        image = decode(file.read_bytes())
        if hasattr(image, "thumbnail"):
            stored = io.BytesIO()
            image.thumbnail.save(stored, "JPEG", quality=85)
            sizes.append(len(webp(stored.getvalue())))
    assert len(sizes) > 40
    assert 2000 * np.mean(sizes) < 13e6
