"""HEIC with the extra `heic`, by the policy of the other formats, and what is said without it."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archiveprobe.task import decoding
from archiveprobe.task.config import Task
from archiveprobe.task.decoding import DecodedImage, Observation, decode
from archiveprobe.task.manifest import with_observations, write_manifest
from archiveprobe.task.rows import Row
from archiveprobe.task.scan import scan

pillow_heif = pytest.importorskip("pillow_heif", reason="the extra `heic` is not installed")
BAD = "heif/empty.heic", "heif/truncated.heic", "heif/corrupted.heic", "heif/corrupted.hif"


@pytest.fixture(scope="module")
def marked(draw: Callable[..., Image.Image]) -> Image.Image:
    """An image of 96 x 64 pixels with a red mark at the top left only."""
    image = draw(1, 96, 64)
    image.paste((255, 0, 0), (0, 0, 24, 16))
    return image


def heic(image: Image.Image, *more: Image.Image, **options: object) -> bytes:
    file = pillow_heif.from_pillow(image)
    for other in more:
        file.add_from_pillow(other)
    out = io.BytesIO()
    file.save(out, quality=95, **options)
    return out.getvalue()


def seen(content: bytes) -> Observation:
    result = decode(content)
    return result if isinstance(result, Observation) else result.observation


def pixels(content: bytes) -> np.ndarray:
    result = decode(content)
    assert isinstance(result, DecodedImage), result
    assert result.pixels.mode == "RGB"
    return np.asarray(result.pixels).astype(int)


def error(content: bytes, expected: Image.Image) -> float:
    return float(np.abs(pixels(content) - np.asarray(expected.convert("RGB")).astype(int)).mean())


def test_an_image(marked: Image.Image) -> None:
    content = heic(marked)
    assert error(content, marked) < 4
    observed = seen(content)
    assert (observed.status, observed.usable, observed.format) == ("ok", True, "HEIF")
    assert (observed.width, observed.height, observed.bytes) == (96, 64, len(content))
    assert (observed.frames, observed.orientation) == (1, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(marked: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = heic(marked, exif=exif.tobytes())
    # The same image as a JPEG, which has the tag only.
    out = io.BytesIO()
    marked.save(out, "JPEG", quality=95, exif=exif)
    jpeg = decode(out.getvalue())
    assert isinstance(jpeg, DecodedImage)
    assert error(content, jpeg.pixels) < 6
    assert seen(content).orientation == jpeg.observation.orientation == orientation


@pytest.mark.parametrize("bits", [10, 12])
def test_more_bits_become_eight(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    wide = np.tile(np.linspace(0, 65535, 96).astype(np.uint16)[None, :, None], (64, 1, 3))
    out = io.BytesIO()
    pillow_heif.encode("RGB;16", (96, 64), wide.tobytes(), out, quality=-1)
    assert pillow_heif.open_heif(io.BytesIO(out.getvalue())).info["bit_depth"] == bits
    assert np.abs(pixels(out.getvalue()) - wide / 257.0).max() < 4


def test_transparency_lies_on_white(marked: Image.Image) -> None:
    layer = marked.convert("RGBA")
    layer.putalpha(Image.new("L", layer.size, 0))
    assert pixels(heic(layer)).min() > 250


def test_grey(marked: Image.Image) -> None:
    assert error(heic(marked.convert("L")), marked.convert("L")) < 4


def test_of_several_images_the_primary_one_counts(
    marked: Image.Image, draw: Callable[..., Image.Image]
) -> None:
    content = heic(draw(2), marked, draw(3), primary_index=1)
    assert error(content, marked) < 4
    assert seen(content).frames == 3


def test_too_many_pixels_are_refused_before_they_are_decoded(
    marked: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoded(_: Image.Image) -> None:
        raise AssertionError("it was decoded")

    content = heic(marked)
    monkeypatch.setattr(decoding, "PIXEL_LIMIT", 96 * 64 - 1)
    monkeypatch.setattr(pillow_heif.HeifImageFile, "load", decoded)
    assert seen(content).status == "too_many_pixels"
    assert "96 x 64 pixels" in seen(content).detail


def test_a_torn_or_damaged_file_is_rejected_and_gives_no_part_of_an_image(
    marked: Image.Image,
) -> None:
    content = heic(marked)
    for cut in range(36, len(content), 61):
        assert seen(content[:cut]).status == "truncated", cut
    damaged = content[:60] + bytes(200) + content[260:]
    assert seen(damaged).status == "corrupt"
    assert seen(content[:32]).status in ("truncated", "corrupt")


def test_other_formats_do_not_meet_its_decoder(
    marked: Image.Image, encode: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for form in ("JPEG", "AVIF", "TIFF"):
        assert seen(encode(marked, form)).status == "ok"
    assert "HEIF" not in Image.OPEN


def test_without_the_extra_the_status_says_what_to_install(
    marked: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    observed = seen(heic(marked))
    assert (observed.status, observed.usable) == ("heic_needs_plugin", False)
    assert "pip install 'archiveprobe[heic]'" in observed.detail


@pytest.fixture
def task(make_task: Callable[..., Task], tmp_path: Path) -> Task:
    return make_task(tmp_path)


def test_what_was_rejected_is_looked_at_again_once_the_extra_is_here(
    task: Task, put: Callable[..., Row], marked: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only then: without it nothing is read again, and other images are never."""
    content, broken = heic(marked), b"\xff\xd8\xff\xe0"
    rows = [put("a.heic", content, seconds=1e9), put("b.jpg", broken, seconds=1e9)]
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)
        entries = scan(task, rows)
        entries = with_observations(
            entries,
            {entries[0].digest: seen(content), entries[1].digest: seen(broken)},
        )
        write_manifest(task, entries)
        assert [entry.status for entry in entries] == ["heic_needs_plugin", "truncated"]
        assert scan(task, rows) == entries
    assert [entry.status for entry in scan(task, rows)] == ["new", "truncated"]
    # Also where the file was renamed, so that only its bytes are known.
    renamed = [put("c.heic", content, seconds=1e9)]
    assert scan(task, renamed)[0].status == "new"


@pytest.mark.real
@pytest.mark.parametrize("name", BAD)
def test_broken_files_of_others(name: str, shared: Path) -> None:
    file = shared / "bad_images" / name
    if not file.is_file():
        pytest.skip(f"no {file}")
    assert seen(file.read_bytes()).status in ("empty_file", "truncated", "corrupt", "not_an_image")


@pytest.mark.real
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_sound_files_of_others(mode: str, shared: Path) -> None:
    file = shared / "bad_images" / "heif" / f"{mode}_8__29x100.heif"
    if not file.is_file():
        pytest.skip(f"no {file}")
    observed = seen(file.read_bytes())
    assert (observed.usable, observed.format) == (True, "HEIF")
    assert (observed.width, observed.height) == (29, 100)
