"""The caches of a task: shown, verified, exported, and those that are no longer in use."""

import h5py
import numpy as np
import pytest
from snapshots import current_cache

from archiveprobe.base.errors import InputError
from archiveprobe.cache.prune import prune
from archiveprobe.cache.store import Reader
from archiveprobe.embed.export import export_task
from archiveprobe.embed.inventory import (
    compact_caches,
    list_caches,
    unused_caches,
    verify_caches,
)
from archiveprobe.task.config import load_task
from archiveprobe.task.manifest import read_manifest

OWN = '[backbone.own]\nlibrary = "timm"\nname = "resnet18"\nweights = "random"\n'


def folder_of(task, backbone):
    record = current_cache(task, backbone)
    assert record is not None
    return record.folder


def test_without_a_cache_the_way_to_one_is_told(archive, fault_of) -> None:
    archive.add_drawn([0])
    task = archive.task()
    for action in (list_caches, verify_caches):
        fault_of(lambda action=action: action(task), "no cache", "archiveprobe embed")
    assert unused_caches(task) == []


def test_every_cache_is_shown(mixed, bench) -> None:
    bench.run(mixed.task(views="flip"))
    bench.run(mixed.task(["own"], settings=OWN))
    task = mixed.task(["own"], settings=OWN)
    lines = {line.cache.rpartition("-")[0]: line for line in list_caches(task)}
    assert set(lines) == {"own", "resnet18"}
    own, other = lines["own"], lines["resnet18"]
    assert (own.rows, own.views, own.shape, own.failures) == (10, 1, [48], 2)
    assert (own.precision, own.random_weights, own.in_use) == ("fp32", True, True)
    assert (other.rows, other.views, other.random_weights, other.in_use) == (10, 2, False, False)
    shards = folder_of(task, "own").glob("shards/*")
    assert own.bytes == sum(file.stat().st_size for file in shards)


def test_what_no_task_asks_for_can_go(mixed, bench) -> None:
    bench.run(mixed.task(views="flip"))
    old = folder_of(mixed.task(views="flip"), "resnet18")
    task = mixed.task()
    bench.run(task)
    [item] = unused_caches(task)
    assert item.path == old
    prune([item])
    assert not old.exists()
    assert bench.run(task).reused == 10
    assert unused_caches(task) == []


def test_the_cache_in_use_is_the_one_whose_request_is_todays(archive, bench) -> None:
    archive.add_drawn(range(3))
    file = archive.folder / "w.bin"
    settings = OWN.replace("random", "w.bin")
    file.write_text("first")
    task = archive.task(["own"], settings=settings)
    bench.run(task)
    first = folder_of(task, "own")
    file.write_text("second one")
    assert folder_of(task, "own") == first  # Better the old one than none.
    bench.run(task)
    second = folder_of(task, "own")
    assert second != first
    assert [line.in_use for line in list_caches(task)].count(True) == 1
    assert [item.path for item in unused_caches(task)] == [first]


def test_verifying_counts_over_all_caches(mixed, bench) -> None:
    task = mixed.task(["resnet18", "resnet50"])
    bench.run(task)
    for deep in (False, True):
        verdict = verify_caches(task, deep=deep)
        assert (verdict.ok, verdict.shards, verdict.rows, verdict.bad) == (True, 2, 20, [])


def test_a_damaged_shard_is_named_and_computed_again(mixed, bench) -> None:
    task = mixed.task()
    bench.run(task)
    folder = folder_of(task, "resnet18")
    [shard] = folder.glob("shards/*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert verify_caches(task).ok
    verdict = verify_caches(task, deep=True)
    assert not verdict.ok
    assert verdict.bad == [f"{folder.name}: {shard.name}: its SHA-256 is not the log's"]
    assert bench.run(task).embedded == 10
    assert verify_caches(task, deep=True).ok


def test_an_export_is_in_the_order_of_the_table(mixed, bench, tmp_path) -> None:
    bench.run(mixed.task(views="flip"))
    mixed.ids.reverse()
    task = mixed.task(views="flip")
    file = tmp_path / "all.h5"
    done = export_task(task, file)
    assert (done.rows, done.remarks) == (16, [])
    entries = {entry.id: entry for entry in read_manifest(task)}
    keys = [bytes.fromhex(entries[name].digest) for name in mixed.ids if entries[name].digest]
    present, wanted = Reader(folder_of(task, "resnet18")).read(
        [bytes.fromhex(entries[name].digest) or None for name in mixed.ids]
    )
    with h5py.File(file) as h5:
        assert [name.decode() for name in h5["id"][:]] == mixed.ids
        assert set(h5["label"].asstr()[:]) == {"intact", "destroyed"}
        status = list(h5["status"].asstr()[:])
        rows = h5["embeddings/resnet18"][:]
    assert status == [entries[name].status for name in mixed.ids]
    assert rows.dtype == np.float16
    np.testing.assert_array_equal(rows, wanted)
    np.testing.assert_array_equal(np.isnan(rows).all((1, 2)), ~present)
    assert [said for said, there in zip(status, present, strict=True) if not there] == [
        "missing_file",
        "html_not_image",
        "html_not_image",
        "truncated",
    ]
    assert len(keys) == 15


@pytest.mark.parametrize(
    "name", ["timm:resnet18.a1_in1k", "open_clip:ViT-B-32/openai", "timm:resnet18"]
)
def test_a_backbone_may_have_any_name(archive, bench, tmp_path, name) -> None:
    archive.add_drawn(range(3))
    task = archive.task([name])
    summary = bench.run(task)
    assert bench.run(task).reused == 3
    assert "/" not in summary.caches[0].path.removeprefix("work/cache/")
    file = tmp_path / "all.h5"
    export_task(task, file)
    with h5py.File(file) as h5:
        [dataset] = h5["embeddings"].values()
        assert dataset.shape == (3, 1, 48)
        assert dataset.attrs["backbone"] == name


def test_an_export_takes_the_backbones_it_is_told(archive, bench, tmp_path) -> None:
    archive.add_drawn(range(3))
    task = archive.task(["resnet18", "own"], settings=OWN)
    bench.run(task)
    assert "RANDOM WEIGHTS" in export_task(task, tmp_path / "a.h5").remarks[0]
    assert export_task(task, tmp_path / "b.h5", ("resnet18",)).remarks == []
    with h5py.File(tmp_path / "a.h5") as one, h5py.File(tmp_path / "b.h5") as two:
        assert set(one["embeddings"]) == {"resnet18", "own"}
        assert set(two["embeddings"]) == {"resnet18"}


def test_an_export_overwrites_only_when_told(archive, bench, tmp_path) -> None:
    archive.add_drawn(range(3))
    task = archive.task()
    bench.run(task)
    file = tmp_path / "all.h5"
    file.write_text("precious")
    with pytest.raises(InputError, match="exists"):
        export_task(task, file)
    assert file.read_text() == "precious"
    assert export_task(task, file, overwrite=True).rows == 3


def test_an_export_before_the_first_run_says_what_is_missing(
    archive, bench, fault_of, tmp_path
) -> None:
    archive.add_drawn(range(3))
    bench.run(archive.task())
    task = archive.task(views="crops6")
    fault_of(lambda: export_task(task, tmp_path / "x.h5"), "resnet18", "crops6", "embed")
    assert not (tmp_path / "x.h5").exists()


def test_a_row_added_since_is_refused_or_exported_as_new(archive, bench, tmp_path, fault_of):
    archive.add_drawn(range(3))
    bench.run(archive.task())
    archive.add_drawn([7])
    file = tmp_path / "all.h5"
    fault_of(lambda: export_task(archive.task(), file), "1 of 4 rows waits for embed", "--partial")
    assert not file.exists()
    done = export_task(archive.task(), file, partial=True)
    assert done.remarks == ["partial: no embedding yet of 1 row, NaN stands for it: run embed"]
    with h5py.File(file) as h5:
        assert list(h5["status"].asstr()[:]) == ["ok"] * 3 + ["new"]
        assert np.isnan(h5["embeddings/resnet18"][3]).all()


def test_rows_that_were_decoded_but_not_embedded_are_counted(archive, bench, tmp_path, fault_of):
    """As after embed was killed between two backbones, or a run that looked at one only."""
    archive.add_drawn(range(3))
    bench.run(archive.task())
    archive.add_drawn([7])
    bench.run(archive.task(["hog"]))
    file, task = tmp_path / "all.h5", archive.task()
    fault_of(lambda: export_task(task, file), "no embedding by resnet18 yet of 1 image", "embed")
    done = export_task(task, file, partial=True)
    assert done.remarks == ["partial: no embedding by resnet18 yet of 1 image"]
    assert done.partial == "partial: 3 of 4 rows"


def test_an_export_says_that_weights_have_changed(archive, bench) -> None:
    archive.add_drawn(range(3))
    (archive.folder / "w.bin").write_bytes(b"one")
    settings = OWN.replace("random", "w.bin")
    bench.run(archive.task(["own"], settings=settings))
    first = export_task(archive.task(["own"], settings=settings), archive.folder / "1.h5")
    assert first.remarks == []
    (archive.folder / "w.bin").write_bytes(b"three")
    second = export_task(archive.task(["own"], settings=settings), archive.folder / "2.h5")
    assert "other weights" in second.remarks[0]


@pytest.mark.proves("tables")
def test_a_second_task_file_is_kept_out_of_the_work_folder(mixed, bench, fault_of) -> None:
    task = mixed.task()
    bench.run(task)
    manifest = (task.work / "manifest.csv").read_bytes()
    second = task.folder / "flip.toml"
    second.write_text(task.file.read_text())
    words = ("work belongs to task.toml, not to flip.toml", "a folder of its own")
    fault_of(lambda: bench.run(load_task(second)), *words)
    fault_of(lambda: list_caches(load_task(second)), *words)
    assert (task.work / "manifest.csv").read_bytes() == manifest
    # A task file that was renamed takes its work along.
    task.file.unlink()
    assert bench.run(load_task(second)).reused > 0


def test_caches_that_the_task_asked_for_before_are_not_in_use(mixed, bench) -> None:
    bench.run(mixed.task(views="flip"))
    task = mixed.task()
    bench.run(task)
    assert sorted(line.in_use for line in list_caches(task)) == [False, True]
    assert [item.reason for item in unused_caches(task)] == ["the task does not ask for it"]


def test_an_export_says_which_images_changed(mixed, bench, draw, tmp_path) -> None:
    task = mixed.task()
    bench.run(task)
    assert export_task(task, tmp_path / "a.h5").remarks == []
    draw(99, width=90, height=70).save(mixed.file("002.png"))
    assert export_task(task, tmp_path / "b.h5").remarks == [
        "1 image changed since the last embed: run embed"
    ]


def test_an_export_says_whose_rows_they_are(mixed, bench, tmp_path) -> None:
    task = mixed.task(["own"], settings=OWN)
    bench.run(task)
    export_task(task, tmp_path / "a.h5")
    by_id = {entry.id: entry for entry in read_manifest(task)}
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["embeddings/own"].attrs["random_weights"]
        for at, name in enumerate(file["id"].asstr()[:]):
            assert file["path"].asstr()[at] == name
            assert file["digest"].asstr()[at] == by_id[name].digest


def test_caches_are_compacted(mixed, bench) -> None:
    task = mixed.task()
    bench.run(task)
    folder = folder_of(task, "resnet18")
    keys = sorted(Reader(folder).keys)
    before = Reader(folder).read(keys)[1]
    [line] = compact_caches(task)
    assert (line.cache, line.rows, line.shards) == (folder.name, 10, 1)
    assert Reader(folder).read(keys)[1].tobytes() == before.tobytes()
    assert verify_caches(task, deep=True).ok
    assert bench.run(task).embedded == 0
