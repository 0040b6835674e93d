"""Faults in the middle of a run: what is kept, what is computed again, what is tried again."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from snapshots import current_cache

from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock
from archiveprobe.cache.store import Reader
from archiveprobe.cache.verify import repair, verify
from archiveprobe.embed import decoding
from archiveprobe.embed.inventory import verify_caches
from archiveprobe.embed.prepare import Preparation, PreparedImage
from archiveprobe.task.decoding import rejected
from archiveprobe.task.manifest import manifest_file, read_manifest


def reader(task: Any, backbone: str = "resnet18") -> Reader:
    record = current_cache(task, backbone)
    assert record is not None
    return Reader(record.folder)


def keys_of(task: Any) -> list[bytes]:
    return [bytes.fromhex(entry.digest) for entry in read_manifest(task) if entry.usable]


def counts(summary: Any) -> tuple[int, ...]:
    names = ("images", "embedded", "reused", "duplicates", "failed")
    return tuple(getattr(summary, name) for name in names)


@pytest.mark.proves("numbers")
@pytest.mark.parametrize("answer", [np.nan, np.inf, 0.0, 1e6])
def test_a_dead_row_is_failed_and_not_tried_again(archive, bench, answer) -> None:
    archive.add_drawn(range(4))
    archive.add("bad.png", Image.new("RGB", (64, 48), (10, 20, 30)))
    bench.settings["answers"] = {(10, 20, 30): answer}
    task = archive.task()
    summary = bench.run(task)
    assert counts(summary) == (5, 4, 0, 0, 1)
    assert summary.reasons == {"bad_embedding": 1}
    assert summary.caches[0].rows == 4
    assert len(reader(task).keys) == 4
    [failure] = reader(task).failures.values()
    assert failure.status == ("zero" if answer == 0 else "non_finite")
    assert counts(bench.run(task)) == (5, 0, 4, 0, 1)
    assert bench.crops == 0


@pytest.mark.parametrize("later", [False, True], ids=["at-once", "in-a-later-cache"])
def test_rejected_images_stand_among_the_failures(mixed, bench, later) -> None:
    if later:
        bench.run(mixed.task(["resnet50"]))
    task = mixed.task()
    bench.run(task)
    entries = {entry.id: entry for entry in read_manifest(task)}
    failures = reader(task).failures
    for name, status in (("cut.png", "truncated"), ("page.jpg", "html_not_image")):
        assert failures[bytes.fromhex(entries[name].digest)].status == status
    assert len(failures) == 2


def test_a_passing_fault_is_tried_again(archive, bench, monkeypatch) -> None:
    archive.add_drawn(range(4))
    task = archive.task()
    real = decoding.prepare

    def flaky(path: str, digest: str, preparation: Preparation) -> PreparedImage:
        if path == "002.png":
            return PreparedImage(digest, rejected("decode_timeout", "over 60 s"))
        return real(path, digest, preparation)

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "prepare", flaky)
        summary = bench.run(task)
    assert counts(summary) == (4, 3, 0, 0, 1)
    assert reader(task).failures == {}
    assert counts(bench.run(task)) == (4, 1, 3, 0, 0)


def test_without_its_manifest_a_run_decodes_but_embeds_nothing(mixed, bench) -> None:
    task = mixed.task()
    bench.run(task)
    before = manifest_file(task).read_bytes()
    manifest_file(task).unlink()
    assert counts(bench.run(task)) == (16, 0, 10, 2, 4)
    assert bench.crops == 0
    # Those that the cache holds; the two rejected ones are looked at again to say why.
    assert bench.decoded == 12
    assert [line.split(b",")[:4] for line in manifest_file(task).read_bytes().splitlines()] == [
        line.split(b",")[:4] for line in before.splitlines()
    ]


def test_thumbnails_are_made_again(mixed, bench) -> None:
    task = mixed.task()
    bench.run(task)
    thumbnails = sorted((task.work / "thumbs").glob("??/*.jpg"))
    assert len(thumbnails) == 10
    before = thumbnails[0].read_bytes()
    for file in thumbnails[:3]:
        file.unlink()
    assert bench.run(task).embedded == 0
    assert (bench.crops, bench.decoded) == (0, 3)
    assert thumbnails[0].read_bytes() == before


@pytest.fixture
def sharded(archive, bench, monkeypatch) -> Any:
    """A task of six pictures whose cache has a shard for every row."""
    from archiveprobe.cache.store import Writer

    opened = Writer.open
    monkeypatch.setattr(
        Writer, "open", lambda *given, **how: opened(*given, **how | {"commit_seconds": 0})
    )
    archive.add_drawn(range(6))
    task = archive.task()
    bench.run(task)
    return task


@pytest.mark.proves("damage")
def test_a_truncated_shard_is_set_aside_and_its_rows_computed_again(sharded, bench) -> None:
    present, rows = reader(sharded).read(keys_of(sharded))
    assert present.all()
    folder = reader(sharded).folder
    shard = sorted((folder / "shards").iterdir())[2]
    shard.write_bytes(shard.read_bytes()[:-10])
    summary = bench.run(sharded)
    assert counts(summary) == (6, 1, 5, 0, 0)
    assert bench.crops == 1
    assert f"{shard.name} set aside" in bench.text()
    assert [file.name for file in (folder / "set-aside").iterdir()] == [shard.name]
    np.testing.assert_array_equal(reader(sharded).read(keys_of(sharded))[1], rows)


@pytest.mark.proves("damage")
def test_a_missing_shard_is_computed_again(sharded, bench) -> None:
    sorted((reader(sharded).folder / "shards").iterdir())[0].unlink()
    assert counts(bench.run(sharded)) == (6, 1, 5, 0, 0)
    assert verify_caches(sharded, deep=True).ok


@pytest.mark.proves("damage")
def test_a_flipped_bit_is_found_and_its_rows_computed_again(sharded, bench) -> None:
    _, rows = reader(sharded).read(keys_of(sharded))
    folder = reader(sharded).folder
    shard = sorted((folder / "shards").iterdir())[3]
    content = bytearray(shard.read_bytes())
    at = content.find(rows.reshape(6, -1)[3].tobytes()[:16])
    assert at > 0
    content[at] ^= 4
    shard.write_bytes(content)
    assert verify(folder, deep=False).ok
    report = verify(folder, deep=True)
    assert report.bad_shards == [shard.name]
    assert repair(folder, report) == [shard.name]
    assert counts(bench.run(sharded)) == (6, 1, 5, 0, 0)
    np.testing.assert_array_equal(reader(sharded).read(keys_of(sharded))[1], rows)
    assert verify(folder, deep=True).ok


@pytest.mark.parametrize("fault", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_keeps_what_is_done(archive, bench, fault) -> None:
    archive.add_drawn(range(12))
    task = archive.task()

    def interrupt() -> None:
        if len(bench.encoders["resnet18"].log) == 2:
            raise fault("stop")

    bench.settings["before"] = interrupt
    # What is no interrupt is told in one line.
    with pytest.raises(InputError if fault is RuntimeError else fault, match="stop"):
        bench.run(task)
    assert len(reader(task).keys) == 8
    del bench.settings["before"]
    assert counts(bench.run(task)) == (12, 4, 8, 0, 0)
    assert bench.crops == 4
    assert not is_locked(reader(task).folder)


def is_locked(folder: Path) -> bool:
    from archiveprobe.base.lock import is_locked

    return is_locked(folder)


def test_a_second_run_at_the_same_time_is_refused(archive, bench) -> None:
    archive.add_drawn(range(3))
    task = archive.task()
    bench.run(task)
    archive.add_drawn([3])
    with Lock(reader(task).folder):
        with pytest.raises(InputError, match=f"pid {os.getpid()} on host .* since 20"):
            bench.run(archive.task())
        assert bench.encoders == {}  # It is met before anything is loaded.
    assert bench.run(archive.task()).embedded == 1
