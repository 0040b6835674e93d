"""Embedding a unit in memory: the rows that the task's cache would hold, none of them twice."""

from contextlib import ExitStack

import numpy as np
import pytest
from counted import Bench
from PIL import Image
from snapshots import current_cache

import archiveprobe.embed.fingerprint
from archiveprobe.cache.spec import fingerprint_digest, folder_name
from archiveprobe.cache.store import Reader, Writer
from archiveprobe.embed.forward import ForwardThreads
from archiveprobe.embed.prepare import PreparedImage, prepare
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.unit_encoder import UnitEncoder, key_of_view, views_of_image
from archiveprobe.embed.view_sets import view_set
from archiveprobe.embed.views import render
from archiveprobe.task.config import Task
from archiveprobe.task.decoding import digest

BOTH = ("resnet18", "resnet50")


def sources_of(task: Task) -> dict[str, str]:
    records = {name: current_cache(task, name) for name in task.embed.backbones}
    return {name: record.digest for name, record in records.items() if record}


def encoder(task: Task, **how) -> UnitEncoder:
    how = {"device": "cpu", "threads": ForwardThreads("cpu"), "batch_size": 4} | how
    return UnitEncoder(task, sources_of(task), **how)


def prepared(archive, some: UnitEncoder, *names: str) -> list[PreparedImage]:
    preparation = some.preparation
    files = [archive.file(name) for name in names]
    return [prepare(str(file.resolve()), digest(file.read_bytes()), preparation) for file in files]


@pytest.fixture
def own(archive, bench: Bench) -> Task:
    """A task of six images, embedded."""
    archive.add_drawn(range(6))
    task = archive.task(BOTH, "flip")
    bench.run(task)
    bench.encoders.clear()
    return task


def write_new(archive, draw, count: int = 5) -> list[str]:
    """Images beside the task's own, which no row names."""
    names = [f"new-{seed}.png" for seed in range(count)]
    for seed, name in enumerate(names):
        draw(100 + seed).save(archive.file(name))
    return names


def test_rows_are_those_that_embed_stores(archive, own: Task, bench: Bench, draw) -> None:
    names = write_new(archive, draw)
    some = encoder(own)
    images = prepared(archive, some, *names)
    found = some.encode(images)
    for name in names:
        archive.ids.append(name)
    bench.run(archive.task(BOTH, "flip"))
    keys = [bytes.fromhex(image.digest) for image in images]
    for name in BOTH:
        present, rows = found[name].read(keys)
        reader = Reader(found[name].folder)
        assert present.all()
        np.testing.assert_array_equal(rows, reader.read(keys)[1])
        assert rows.dtype == np.float16 and found[name].row_shape == reader.row_shape
        assert dict(found[name].fingerprint) == dict(reader.fingerprint)


@pytest.mark.proves("archive")
def test_what_the_tasks_cache_holds_is_not_embedded_again(archive, own, bench, draw) -> None:
    some = encoder(own)
    found = some.encode(prepared(archive, some, *archive.ids))
    # Not even loaded.
    assert not bench.encoders
    keys = [bytes.fromhex(digest(archive.file(name).read_bytes())) for name in archive.ids]
    for name in BOTH:
        np.testing.assert_array_equal(found[name].read(keys)[1], cache_rows(own, name, keys))
    (new,) = write_new(archive, draw, 1)
    some.encode(prepared(archive, some, archive.ids[0], new, archive.ids[1]))
    assert [encoder.log for encoder in bench.encoders.values()] == [[2], [2]]


def cache_rows(task: Task, name: str, keys: list[bytes]) -> np.ndarray:
    record = current_cache(task, name)
    assert record is not None
    return Reader(record.folder).read(keys)[1]


@pytest.mark.proves("archive")
def test_equal_images_are_embedded_once(archive, own, bench, draw) -> None:
    names = write_new(archive, draw, 3)
    some = encoder(own)
    images = prepared(archive, some, *names, *names, *names)
    found = some.encode(images)["resnet18"]
    assert bench.crops == 2 * 2 * 3
    _, rows = found.read([bytes.fromhex(image.digest) for image in images])
    np.testing.assert_array_equal(rows[:3], rows[3:6])


def test_batches_are_cut_within_the_unit(archive, own, bench, draw) -> None:
    names = write_new(archive, draw, 5)
    some = encoder(own)
    images = prepared(archive, some, *names)
    some.encode(images[:2])
    some.encode(images[2:])
    assert bench.encoders["resnet18"].log == [4, 4, 2]


def test_rejected_images_have_no_row(archive, own, draw) -> None:
    archive.file("torn.png").write_bytes(archive.file("000.png").read_bytes()[:-90])
    some = encoder(own)
    (image,) = prepared(archive, some, "torn.png")
    found = some.encode([image, PreparedImage("", image.observation)])["resnet18"]
    present, rows = found.read([bytes.fromhex(image.digest), None])
    assert not present.any() and np.isnan(rows).all() and not found.failures


@pytest.mark.parametrize(("number", "status"), [(np.nan, "non_finite"), (0.0, "zero")])
def test_an_embedding_that_is_none_is_a_failure(archive, own, bench, draw, number, status) -> None:
    Image.new("RGB", (64, 48), (9, 9, 9)).save(archive.file("grey.png"))
    bench.settings = {"answers": {(9, 9, 9): number}}
    some = encoder(own)
    (image,) = prepared(archive, some, "grey.png")
    found = some.encode([image])["resnet18"]
    key = bytes.fromhex(image.digest)
    assert not found.read([key])[0].any()
    assert found.failures[key].status == status


def test_views_as_rows(archive, own, draw) -> None:
    some = encoder(own)
    images = prepared(archive, some, *write_new(archive, draw, 2))
    found = some.encode(images)["resnet18"]
    split = found.split_views()
    assert split.row_shape == (1, *found.row_shape[1:]) and len(split.rows) == 4
    keys = [bytes.fromhex(image.digest) for image in images]
    for view in range(2):
        _, rows = split.read([key_of_view(key, view) for key in keys])
        np.testing.assert_array_equal(rows, found.read(keys)[1][:, view : view + 1])


def test_views_that_several_networks_look_at_are_rendered_once(archive, own, draw) -> None:
    crops = view_set("crops3")
    some = encoder(own, looks=[(Geometry(32, 32), crops)])
    assert some.views == ()
    assert encoder(own).views == view_set("flip")
    names = [view.name for view in some.preparation.views[Geometry(32, 32)]]
    assert names == ["center", "center-mirrored", "crop-first", "crop-middle", "crop-last"]
    (name,) = write_new(archive, draw, 1)
    (image,) = prepared(archive, some, name)
    found = views_of_image(image, Geometry(32, 32), crops, some.preparation)
    wanted = render(draw(100), Geometry(32, 32), crops, seed=image.digest)
    for at in range(3):
        np.testing.assert_array_equal(found.crops[found.crop[at]], wanted.crops[wanted.crop[at]])


# Rows that are kept


def test_kept_rows_are_in_the_tasks_cache_when_the_unit_is_done(archive, own, bench, draw) -> None:
    images = write_new(archive, draw)
    with encoder(own, keep=True) as some:
        unit = prepared(archive, some, *images)
        found = some.encode(unit)
        keys = [bytes.fromhex(image.digest) for image in unit]
        # Still open: durable before the unit counts.
        for name in BOTH:
            np.testing.assert_array_equal(found[name].read(keys)[1], cache_rows(own, name, keys))
    bench.encoders.clear()
    with encoder(own, keep=True) as again:
        again.encode(prepared(archive, again, *images))
    assert not bench.encoders


def test_shares_keep_rows_side_by_side(archive, own, draw) -> None:
    one, two = write_new(archive, draw, 2)
    with (
        encoder(own, keep=True, share="1of2") as first,
        encoder(own, keep=True, share="2of2") as second,
    ):
        first.encode(prepared(archive, first, one))
        second.encode(prepared(archive, second, two))
    keys = [bytes.fromhex(digest(archive.file(name).read_bytes())) for name in (one, two)]
    assert np.isfinite(cache_rows(own, "resnet18", keys)).all()


def test_processes_beside_each_other_keep_what_each_has(archive, own, draw) -> None:
    names = write_new(archive, draw, 3)
    with ExitStack() as stack:
        for name in names:
            some = stack.enter_context(encoder(own, keep=True, beside_others=True))
            # The second has the first one's image too.
            some.encode(prepared(archive, some, names[0], name))
    keys = [bytes.fromhex(digest(archive.file(name).read_bytes())) for name in names]
    for backbone in BOTH:
        assert np.isfinite(cache_rows(own, backbone, keys)).all()


def test_another_writer_is_met_before_anything_is_embedded(own, fault_of) -> None:
    record = current_cache(own, "resnet18")
    assert record is not None

    def keep() -> None:
        with encoder(own, keep=True):
            raise AssertionError

    with Writer.open(record.folder, record.fingerprint, record.request):
        fault_of(keep, str(record.folder))


# What is refused


def test_a_cache_that_is_gone(own: Task, fault_of) -> None:
    fault_of(lambda: UnitEncoder(own, {"resnet18": "0" * 64}, device="cpu",
             threads=ForwardThreads("cpu")), "cache of resnet18", "embed")  # fmt: skip


def test_other_libraries(own: Task, bench: Bench, fault_of, monkeypatch) -> None:
    real = archiveprobe.embed.fingerprint.release
    monkeypatch.setattr(
        archiveprobe.embed.fingerprint,
        "release",
        lambda package: "0.1" if package == "pillow" else real(package),
    )
    fault_of(lambda: encoder(own), "trained on", "versions.pillow", "'0.1'")
    assert not bench.encoders


def test_other_weights(archive, own: Task, bench: Bench, fault_of, draw) -> None:
    bench.settings = {"weights_digest": "f" * 64}
    some = encoder(own)
    images = prepared(archive, some, *write_new(archive, draw, 1))
    fault_of(lambda: some.encode(images), "trained on", "weights was", "again here")


def test_fp16_needs_cuda(archive, bench: Bench, fault_of, monkeypatch) -> None:
    archive.add_drawn(range(2))
    task = archive.task()
    bench.run(task)
    record = current_cache(task, "resnet18")
    assert record is not None
    half = {**record.fingerprint, "precision": "fp16"}
    folder = record.folder.with_name(folder_name("resnet18", half))
    with Writer.open(folder, half, record.request) as writer:
        writer.add(b"k" * 32, np.ones((1, 4)))
    sources = {"resnet18": fingerprint_digest(half)}
    threads = ForwardThreads("cpu")
    fault_of(
        lambda: UnitEncoder(task, sources, device="cpu", threads=threads), "fp16", "CUDA", "fp32"
    )


def test_a_batch_that_does_not_fit_is_halved(archive, own, bench, draw) -> None:
    said: list[str] = []
    bench.settings = {"most": 2}
    some = encoder(own, notify=said.append)
    images = prepared(archive, some, *write_new(archive, draw))
    expected = {bytes.fromhex(image.digest) for image in images}
    assert some.encode(images)["resnet18"].rows.keys() == expected
    assert "resnet18: out of memory: batch halved to 2" in said
    bench.encoders["resnet18"].log.clear()
    some.encode(images)
    assert max(bench.encoders["resnet18"].log) == 2
