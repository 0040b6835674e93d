"""Pixels through shared memory: the same pixels, bounded, gone afterwards, and never needed."""

import errno
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from archiveprobe.embed import shared_memory as slots
from archiveprobe.embed.decoding import prepare_images
from archiveprobe.embed.prepare import Preparation, PreparedImage, prepare
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.shared_memory import Parcel, PrepareInto, Slots, shared_slots, slot_bytes
from archiveprobe.embed.view_sets import view_set
from archiveprobe.task.decoding import digest

SMALL, LARGE = Geometry(16, 16), Geometry(24, 24)
on_linux = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux has such memory")


@pytest.fixture
def photographs(archive) -> list[tuple[str, str]]:
    archive.add_drawn(range(9))
    return [(name, digest(archive.file(name).read_bytes())) for name in archive.ids]


@pytest.fixture
def order(archive) -> Preparation:
    views = {SMALL: view_set("crops6"), LARGE: view_set("center")}
    return Preparation(archive.folder / "images", views)


def assert_same(one: PreparedImage, two: PreparedImage) -> None:
    assert (one.digest, one.observation) == (two.digest, two.observation)
    assert list(one.views) == list(two.views)
    for geometry, rendered in one.views.items():
        other = two.views[geometry]
        np.testing.assert_array_equal(rendered.crops, other.crops)
        assert (rendered.crop, rendered.mirror) == (other.crop, other.mirror)


def test_a_slot_holds_the_distinct_crops_of_every_geometry(order) -> None:
    assert slot_bytes(order) == 3 * 3 * 16 * 16 + 3 * 24 * 24


def test_what_comes_out_is_what_went_in(photographs, order) -> None:
    with shared_slots(2, slot_bytes(order)) as places:
        prepare_into = PrepareInto(partial(prepare, preparation=order), places.descriptor)
        for path, key in photographs:
            slot = places.take()
            assert slot is not None
            parcel = prepare_into(slot, path, key)
            assert isinstance(parcel, Parcel)
            assert all(not view.crops.size for view in parcel.image.views.values())
            assert_same(places.unpack(parcel, slot), prepare(path, key, order))
            places.give_back(slot)


def test_what_was_taken_out_stays_when_the_slot_is_used_again(photographs, order) -> None:
    with shared_slots(1, slot_bytes(order)) as places:
        prepare_into = PrepareInto(partial(prepare, preparation=order), places.descriptor)
        slot = places.take()
        first = places.unpack(prepare_into(slot, *photographs[0]), slot)
        prepare_into(slot, *photographs[1])
        assert_same(first, prepare(*photographs[0], order))


def test_slots_are_as_many_as_asked_for_and_come_back() -> None:
    with shared_slots(2, 100) as places:
        one, two = places.take(), places.take()
        assert one and two and one.offset != two.offset
        assert places.take() is None
        places.give_back(one)
        assert places.take() == one


def test_images_that_do_not_fit_go_through_the_pipe(photographs, order) -> None:
    with shared_slots(1, 100) as places:
        slot = places.take()
        item = PrepareInto(partial(prepare, preparation=order), places.descriptor)(
            slot, *photographs[0]
        )
        assert isinstance(item, PreparedImage)
        assert_same(places.unpack(item, slot), prepare(*photographs[0], order))


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.proves("memory")
@pytest.mark.parametrize("missing", ["os.memfd_create", "os.posix_fallocate", "mmap.mmap"])
@on_linux
def test_without_room_every_image_still_comes(photographs, order, monkeypatch, missing) -> None:
    owner, _, name = missing.partition(".")
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(getattr(slots, owner), name, refuse)
        said: list[str] = []
        items = list(prepare_images(photographs, order, workers=1, notify=said.append))
        assert descriptors() == before
    [line] = said
    assert "No space left" in line
    assert "through a pipe" in line
    for item, photograph in zip(items, photographs, strict=True):
        assert_same(item, prepare(*photograph, order))


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.proves("memory")
@on_linux
def test_where_there_is_no_such_memory_a_file_without_a_name_serves(
    photographs, order, monkeypatch, tmp_path
) -> None:
    monkeypatch.delattr(slots.os, "memfd_create")
    monkeypatch.setattr(slots.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    said: list[str] = []
    for item in prepare_images(photographs[:2], order, workers=1, notify=said.append):
        assert item.observation.usable
        assert not list((tmp_path / "temporary").iterdir())
    assert said == []


@pytest.fixture
def unpacked(monkeypatch) -> list[object]:
    """What came out of decoder processes."""
    seen: list[object] = []
    real: Callable[..., PreparedImage] = Slots.unpack

    def unpack(
        self: Slots, parcel: PreparedImage | Parcel, slot: slots.Slot | None
    ) -> PreparedImage:
        seen.append(parcel)
        return real(self, parcel, slot)

    monkeypatch.setattr(Slots, "unpack", unpack)
    return seen


@pytest.mark.proves("memory")
@on_linux
def test_decoder_processes_use_them_and_nothing_has_a_name(photographs, order, unpacked) -> None:
    before = descriptors()
    items = []
    for item in prepare_images(photographs, order, workers=2):
        items.append(item)
        # Whatever has a name would stay when the whole group is killed.
        maps = Path("/proc/self/maps").read_text()
        assert "/memfd:archiveprobe-pixels" in maps
        assert "/dev/shm/" not in maps  # noqa: S108
    assert [type(parcel) for parcel in unpacked] == [Parcel] * len(photographs)
    for item, photograph in zip(items, photographs, strict=True):
        assert_same(item, prepare(*photograph, order))
    stopped = prepare_images(photographs, order, workers=1)
    next(stopped)
    stopped.close()
    assert descriptors() == before
    assert "/memfd:archiveprobe-pixels" not in Path("/proc/self/maps").read_text()
