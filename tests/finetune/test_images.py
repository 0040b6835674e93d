"""Every image is decoded once, rows in are rows out, and nothing is left behind."""

import errno
import pickle
from collections import Counter
from pathlib import Path
from tempfile import SpooledTemporaryFile

import numpy as np
import pytest
from PIL import Image

from archiveprobe.base.errors import InputError
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.view_sets import view_set
from archiveprobe.embed.views import render
from archiveprobe.finetune import images as module
from archiveprobe.finetune.images import PixelSpec, load_pixels, stored_side
from archiveprobe.task.decoding import digest

SPEC = PixelSpec(40, Geometry(32, 36), view_set("crops6"))
SIZES = {"wide.png": (120, 80), "high.png": (60, 90), "small.png": (30, 33)}


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "images"
    root.mkdir()
    for seed, (name, (width, height)) in enumerate(SIZES.items()):
        drawn = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(drawn).save(root / name)
    (root / "copy.png").write_bytes((root / "wide.png").read_bytes())
    (root / "broken.png").write_bytes((root / "wide.png").read_bytes()[:900])
    return root


def rows_of(root: Path, *names: str) -> list[tuple[str, str]]:
    return [(name, digest((root / name).read_bytes())) for name in names]


@pytest.mark.parametrize(("limit", "workers"), [(1 << 30, 0), (0, 0), (20_000, 1)])
def test_rows_in_are_rows_out(root, tmp_path, limit, workers) -> None:
    names = ["wide.png", "broken.png", "high.png", "copy.png", "small.png"]
    rows = [*rows_of(root, *names), ("gone.png", "")]
    folder = tmp_path / "work"
    with load_pixels(root, rows, SPEC, folder, workers=workers, memory_limit=limit) as pixels:
        assert pixels.readable.tolist() == [True, False, True, True, True, False]
        assert pixels.statuses == ["ok", "truncated", "ok", "ok", "tiny", "unreadable"]
        assert pixels.places[0] == pixels.places[3]
        shapes = [pixels.image(row).shape for row in (0, 2, 4)]
        assert shapes == [(40, 60, 3), (60, 40, 3), (33, 30, 3)]
        for row, name in ((0, "wide.png"), (2, "high.png"), (3, "copy.png"), (4, "small.png")):
            with Image.open(root / name) as image:
                expected = render(image, SPEC.geometry, SPEC.views, seed=rows[row][1])
            found = pixels.rendered(row, range(6))
            np.testing.assert_array_equal(found.crops, expected.crops)
            assert (found.crop, found.mirror) == (expected.crop, expected.mirror)
            some = pixels.rendered(row, [5, 1])
            assert some.crop == (expected.crop[5], expected.crop[1])
            assert some.mirror == (expected.mirror[5], expected.mirror[1])
        with pytest.raises(IndexError, match="row 1 has no pixels: truncated"):
            pixels.image(1)
        again = pickle.loads(pickle.dumps(pixels))  # noqa: S301
        np.testing.assert_array_equal(again.image(2), pixels.image(2))
        assert (pixels.file is not None) == (limit < 1 << 30)
        # A killed run leaves nothing.
        assert not list(folder.glob("*"))


def test_every_image_is_decoded_once_however_often_it_is_used(root, tmp_path, monkeypatch):
    calls: Counter[str] = Counter()
    real = module.decode_pixels

    def counted(content: bytes, *how: str):
        calls[digest(content)] += 1
        return real(content, *how)

    monkeypatch.setattr(module, "decode_pixels", counted)
    rows = rows_of(root, "wide.png", "copy.png", "high.png", "broken.png", "wide.png")
    with load_pixels(root, rows, SPEC, tmp_path, workers=0) as pixels:
        for _ in range(3):
            for row in np.flatnonzero(pixels.readable):
                pixels.image(row)
                pixels.rendered(row, [0])
    assert len(calls) == 3
    assert set(calls.values()) == {1}


def test_blank_images_stand_for_unreadable_ones_where_asked(root, tmp_path) -> None:
    rows = rows_of(root, "broken.png", "high.png")
    with load_pixels(root, rows, SPEC, tmp_path, workers=0, blank=True) as pixels:
        assert pixels.readable.all()
        assert pixels.statuses == ["truncated", "ok"]
        assert (pixels.image(0) == 255).all()
        assert (pixels.rendered(0, [5]).crops == 255).all()
        assert (pixels.image(1) != 255).any()


def test_a_file_that_changed_since_has_no_pixels(root, tmp_path) -> None:
    rows = [("high.png", "0" * 64)]
    with load_pixels(root, rows, SPEC, tmp_path, workers=0) as pixels:
        assert pixels.statuses == ["changed_file"]
        assert not pixels.readable.any()


@pytest.mark.proves("disk")
def test_a_full_disk_is_one_line_and_leaves_nothing(root, tmp_path, monkeypatch) -> None:
    class Full(SpooledTemporaryFile):
        def write(self, _) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "work"
    monkeypatch.setattr(module, "SpooledTemporaryFile", Full)
    with pytest.raises(InputError, match=r"decoded images.*No space left"):
        load_pixels(root, rows_of(root, "high.png"), SPEC, folder, workers=0, memory_limit=0)
    assert not list(folder.iterdir())


def test_the_side_that_is_kept_is_twice_what_the_smallest_crop_needs() -> None:
    # A quarter of the area is half of the side.
    assert stored_side(224, 0.25) == 896
    assert stored_side(224, 1.0) == 448
    assert stored_side(384, 0.08) == 2716


def test_a_crop_is_as_good_as_one_from_the_whole_image(tmp_path: Path) -> None:
    # Noise has all frequencies, so what a second resampling dampens shows: 0.85 levels if just
    # the side that is needed were kept, 0.22 with twice that side.
    noise = np.random.default_rng(0).normal(128, 60, (400, 500, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    files = [("noise.png", digest((tmp_path / "noise.png").read_bytes()))]
    spec = PixelSpec(stored_side(32, 0.8), Geometry(32, 32), view_set("center"))
    with load_pixels(tmp_path, files, spec, tmp_path, workers=0) as pixels:
        kept = Image.fromarray(pixels.image(0))

    def crop(image: Image.Image) -> np.ndarray:
        """The same nine tenths of a side."""
        box = (0, 0, 0.9 * image.width, 0.9 * image.height)
        return np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC, box=box), float)

    assert np.abs(crop(kept) - crop(Image.fromarray(noise))).mean() < 0.3
