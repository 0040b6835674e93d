"""One photograph's way to pixels: what is checked, what is written, what is rejected."""

import io

import numpy as np
import pytest
from PIL import Image

from archiveprobe.embed import prepare as module
from archiveprobe.embed.prepare import Preparation, prepare
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.thumbnails import thumbnail_file
from archiveprobe.embed.view_sets import view_set
from archiveprobe.embed.views import render
from archiveprobe.task.decoding import digest

SMALL, LARGE = Geometry(16, 16), Geometry(24, 28, interpolation="bilinear")


@pytest.fixture
def order(tmp_path) -> Preparation:
    (tmp_path / "images").mkdir()
    views = {SMALL: view_set("flip"), LARGE: view_set("crops6")}
    return Preparation(tmp_path / "images", views, tmp_path / "thumbs")


def put(order: Preparation, name: str, content: bytes) -> str:
    (order.root / name).write_bytes(content)
    return digest(content)


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def test_views_at_every_geometry_from_one_decode(order, draw, monkeypatch) -> None:
    key = put(order, "a.png", png(draw(1)))
    calls = []
    real = module.decode_pixels
    monkeypatch.setattr(module, "decode_pixels", lambda *given: calls.append(1) or real(*given))
    item = prepare("a.png", key, order)
    assert calls == [1]
    assert item.observation.status == "ok"
    for geometry, wanted in order.views.items():
        ours = item.views[geometry]
        theirs = render(draw(1), geometry, wanted, seed=key)
        np.testing.assert_array_equal(ours.crops, theirs.crops)
        assert (ours.crop, ours.mirror) == (theirs.crop, theirs.mirror)


def test_draws_follow_the_digest(order, draw) -> None:
    key = put(order, "a.png", png(draw(1)))
    item = prepare("a.png", key, Preparation(order.root, {SMALL: view_set("augment2")}))
    wanted = render(draw(1), SMALL, view_set("augment2"), seed=key)
    np.testing.assert_array_equal(item.views[SMALL].crops, wanted.crops)


@pytest.mark.parametrize("size", [(2000, 900), (100, 80), (1, 700)], ids=str)
def test_a_thumbnail_is_a_small_whole_jpeg(order, draw, size) -> None:
    key = put(order, "a.png", png(draw(2, *size)))
    prepare("a.png", key, order)
    file = thumbnail_file(order.thumbnails, key)
    assert file == order.thumbnails / key[:2] / f"{key}.jpg"
    with Image.open(file) as thumbnail:
        thumbnail.load()
        assert thumbnail.format == "JPEG"
        assert max(thumbnail.size) == min(256, max(size))
    assert [path for path in order.thumbnails.rglob("*") if path.is_file()] == [file]


def test_without_a_place_no_thumbnail_is_written(order, draw) -> None:
    key = put(order, "a.png", png(draw(1)))
    assert prepare("a.png", key, Preparation(order.root, order.views)).views
    assert not order.thumbnails.exists()


def test_a_thumbnail_that_cannot_be_finished_leaves_nothing(order, draw, monkeypatch) -> None:
    key = put(order, "a.png", png(draw(1)))

    def full(_: Image.Image, file, *__, **___) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        prepare("a.png", key, order)
    assert not [path for path in order.thumbnails.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", "empty_file"), (b"plain text", "not_an_image"), (None, "truncated")],
)
def test_a_file_without_a_image_is_rejected(order, draw, content, status) -> None:
    content = png(draw(1))[:-300] if content is None else content
    item = prepare("a.png", put(order, "a.png", content), order)
    assert (item.observation.status, dict(item.views)) == (status, {})
    assert item.observation.bytes == len(content)
    assert not order.thumbnails.exists()


def test_a_file_that_changed_since_it_was_hashed_is_rejected(order, draw) -> None:
    put(order, "a.png", png(draw(1)))
    item = prepare("a.png", "0" * 64, order)
    assert (item.observation.status, dict(item.views)) == ("changed_file", {})
    assert item.digest == "0" * 64
    assert not order.thumbnails.exists()


def test_a_file_that_is_gone_is_rejected(order) -> None:
    item = prepare("gone.png", "0" * 64, order)
    assert (item.observation.status, dict(item.views)) == ("unreadable_file", {})
    assert "No such file" in item.observation.detail


def test_a_thumbnail_made_again_is_the_same(order, draw) -> None:
    key = put(order, "a.png", png(draw(1)))
    prepare("a.png", key, order)
    file = thumbnail_file(order.thumbnails, key)
    first = file.read_bytes()
    prepare("a.png", key, order)
    assert list(order.thumbnails.glob("??/*")) == [file]
    assert file.read_bytes() == first
