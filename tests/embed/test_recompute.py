"""Rows computed again: they agree, or it is said; and a library upgrade that keeps them."""

import json
from pathlib import Path

import numpy as np
import pytest
from snapshots import current_cache, write_snapshot

import archiveprobe.embed.fingerprint
import archiveprobe.embed.recompute
from archiveprobe.cache.spec import CacheRecord
from archiveprobe.cache.store import Reader, Writer
from archiveprobe.embed.inventory import verify_caches
from archiveprobe.embed.recompute import recompute, verify_recomputed


@pytest.fixture
def again(bench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(archiveprobe.embed.recompute, "load_backbone", bench.encoder)
    return bench


def newer_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    real = archiveprobe.embed.fingerprint.versions
    monkeypatch.setattr(
        archiveprobe.embed.fingerprint,
        "versions",
        lambda backbone: {**real(backbone), "pillow": "99.9"},
    )


def test_rows_agree_with_themselves(mixed, again) -> None:
    task = mixed.task(views="crops6")
    again.run(task)
    [one] = recompute(task, 4)
    assert one.rows == 4
    assert one.worst == pytest.approx(1, abs=1e-6)
    assert one.agrees
    assert one.changed == []
    assert one.adopted is None
    assert recompute(task, 100)[0].rows == 10


def test_a_row_that_is_wrong_is_found(archive, again) -> None:
    archive.add_drawn(range(3))
    task = archive.task()
    again.run(task)
    record = current_cache(task, "resnet18")
    assert record is not None
    keys = list(Reader(record.folder).keys)
    stored = {key: Reader(record.folder).read([key])[1][0] for key in keys}
    for shard in record.folder.glob("shards/*"):
        shard.unlink()
    # The same rows under each other's keys: every checksum is right, the content is not.
    with Writer.open(record.folder, record.fingerprint, record.request) as writer:
        for key, other in zip(keys, [*keys[1:], keys[0]], strict=True):
            writer.add(key, stored[other])
    verdict = verify_caches(task, deep=True)
    assert verdict.ok
    checked = verify_recomputed(task, verdict, 3)
    assert not checked.ok
    assert record.folder.name in checked.bad[0]


def test_a_cache_is_carried_over_an_upgrade_and_nothing_is_embedded(
    mixed, again, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = mixed.task()
    again.run(task)
    newer_libraries(monkeypatch)
    said: list[str] = []
    [kept] = recompute(task, 5)
    assert kept.adopted is None
    assert kept.changed == [f"versions.pillow was {_pillow(task)}, is 99.9"]
    verdict = verify_recomputed(task, verify_caches(task), 5, adopt=True, notify=said.append)
    assert verdict.ok
    assert any("carried over" in line for line in said)
    assert again.run(task).embedded == 0


def _pillow(task) -> str:
    record = current_cache(task, "resnet18")
    assert record is not None
    return str(record.fingerprint["versions"]["pillow"])


def test_other_differences_are_never_adopted(mixed, again, fault_of) -> None:
    task = mixed.task()
    again.run(task)
    record = current_cache(task, "resnet18")
    assert record is not None
    changed = {**record.fingerprint, "weights": "0" * 64}
    CacheRecord(record.folder, changed, record.request, record.row_shape).write()
    renamed = record.folder.with_name(_folder_of(changed))
    record.folder.rename(renamed)
    write_snapshot(task)
    fault_of(lambda: recompute(task, 3, adopt=True), "weights", "run embed")


def _folder_of(fingerprint) -> str:
    from archiveprobe.cache.spec import folder_name

    return folder_name("resnet18", fingerprint)


def test_without_images_there_is_nothing_to_compare(archive, again, fault_of) -> None:
    archive.add_drawn(range(3))
    task = archive.task()
    again.run(task)
    for name in archive.ids:
        archive.file(name).unlink()
    fault_of(lambda: recompute(task, 3), "nothing", "where the images are")


def test_without_a_cache_the_way_to_one_is_told(archive, fault_of) -> None:
    archive.add_drawn([0])
    fault_of(lambda: recompute(archive.task(), 3), "nothing is embedded", "archiveprobe embed")


def test_names_that_are_not_utf8_are_embedded(tmp_path: Path, draw, bench) -> None:
    from archiveprobe.task.config import load_task

    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        draw(ord(label)).save(tmp_path / label / "plain.png")
    odd = bytes(tmp_path / "a") + b"/caf\xe9.png"
    with open(odd, "wb") as stream:  # noqa: PTH123
        draw(7).save(stream, "PNG")
    text = {"name": "odd", "labels": ["a", "b"], "images": {"root": "."}}
    lines = [f"{key} = {json.dumps(value)}" for key, value in text.items() if key != "images"]
    backbones = '[embed]\nbackbones = ["resnet18"]\nviews = "center"'
    (tmp_path / "task.toml").write_text("\n".join([*lines, '[images]\nroot = "."', backbones]))
    summary = bench.run(load_task(tmp_path))
    assert (summary.embedded, summary.failed) == (3, 0)
    assert np.isfinite(summary.seconds)
