"""The pipeline with an encoder that counts: what is embedded, what is not, and what is said."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cache.errors import CacheError
from cache.lock import Lock
from cache.store import Reader
from cache.verify import repair, verify
from embed import decoding
from embed.inventory import current_cache, verify_all
from embed.prepare import Order, Prepared
from embed.run import Options, embed, plan, record_of
from task.images import rejected
from task.manifest import manifest_file, read_manifest

OWN = """
[backbone.own]
library = "timm"
name = "resnet18"
weights = "{weights}"
"""
OVERRIDE = 'preprocess = {{ size = {size}, mean = [0, 0, 0], std = [1, 1, 1], crop = "{crop}" }}\n'


def reader(task: Any, backbone: str = "resnet18") -> Reader:
    record = current_cache(task, backbone)
    assert record is not None
    return Reader(record.folder)


def keys_of(task: Any) -> list[bytes]:
    return [bytes.fromhex(entry.digest) for entry in read_manifest(task) if entry.usable]


def counts(summary: Any) -> tuple[int, ...]:
    names = ("images", "embedded", "reused", "duplicates", "failed")
    return tuple(getattr(summary, name) for name in names)


def test_every_image_counts_once(mixed, bench) -> None:
    summary = bench.run(mixed.task())
    assert counts(summary) == (16, 10, 0, 2, 4)
    assert summary.reasons == {"html_not_image": 2, "truncated": 1, "missing_file": 1}
    assert bench.crops == 10
    assert bench.decoded == 12  # Ten pictures, the torn one, the page; copies not again.


def test_the_json_form_is_the_promised_one(mixed, bench) -> None:
    record = json.loads(json.dumps(record_of(bench.run(mixed.task(views="flip")))))
    assert list(record) == [
        "images",
        "embedded",
        "reused",
        "duplicates",
        "failed",
        "seconds",
        "caches",
    ]
    [cache] = record["caches"]
    assert list(cache) == ["backbone", "path", "rows", "views", "width", "random_weights"]
    path = cache.pop("path")
    assert (mixed.folder / path / "fingerprint.json").is_file()
    assert path.startswith("work/cache/resnet18-")
    assert cache == {
        "backbone": "resnet18",
        "rows": 10,
        "views": 2,
        "width": 48,
        "random_weights": False,
    }


def test_a_second_run_embeds_and_decodes_nothing(mixed, bench, tree) -> None:
    task = mixed.task()
    bench.run(task)
    before = tree(task.work / "cache")
    summary = bench.run(task)
    assert counts(summary) == (16, 0, 10, 2, 4)
    assert bench.decoded == 0
    assert bench.encoders == {}  # Not even built.
    assert tree(task.work / "cache") == before


def test_rows_are_the_embeddings_of_their_pictures(mixed, bench, draw) -> None:
    task = mixed.task(views="flip")
    bench.run(task)
    entries = {entry.id: entry for entry in read_manifest(task)}
    names = ["005.png", "copy-of-3.jpg", "missing.png", "square.png", "003.png"]
    keys = [bytes.fromhex(entries[name].digest) if entries[name].digest else None for name in names]
    present, rows = reader(task).read(keys)
    assert present.tolist() == [True, True, False, True, True]
    assert np.isnan(rows[2]).all()
    encoder = bench.encoders["resnet18"]
    for row, seed, size in ((rows[0], 5, {}), (rows[1], 3, {}), (rows[4], 3, {})):
        picture = draw(seed, **size).resize((42, 32), Image.Resampling.BICUBIC)
        crop = np.asarray(picture.crop((5, 0, 37, 32)))[None].repeat(2, 0)
        wanted = encoder.encode(crop, np.array([False, True])).astype(np.float16)
        np.testing.assert_array_equal(row, wanted)


def test_ten_more_pictures_embed_ten(archive, bench) -> None:
    archive.add_drawn(range(5))
    bench.run(archive.task())
    archive.add_drawn(range(5, 15))
    assert counts(bench.run(archive.task())) == (15, 10, 5, 0, 0)
    assert (bench.crops, bench.decoded) == (10, 10)


def test_new_names_embed_nothing(mixed, bench) -> None:
    bench.run(mixed.task())
    mixed.rename_all()
    assert counts(bench.run(mixed.task())) == (16, 0, 10, 2, 4)
    assert (bench.crops, bench.decoded) == (0, 0)


def test_new_dates_embed_nothing(mixed, bench) -> None:
    task = mixed.task()
    bench.run(task)
    for file in (mixed.folder / "images").iterdir():
        os.utime(file, ns=(1, 1))
    assert counts(bench.run(task)) == (16, 0, 10, 2, 4)
    assert (bench.crops, bench.decoded) == (0, 0)


def test_a_changed_file_is_a_new_picture(archive, bench, draw) -> None:
    archive.add_drawn(range(4))
    task = archive.task()
    bench.run(task)
    draw(99).save(archive.file("002.png"))
    assert counts(bench.run(task)) == (4, 1, 3, 0, 0)
    assert bench.crops == 1


def test_other_views_are_another_cache(archive, bench) -> None:
    archive.add_drawn(range(3))
    bench.run(archive.task())
    summary = bench.run(archive.task(views="flip"))
    assert counts(summary) == (3, 3, 0, 0, 0)
    assert bench.crops == 6
    assert "views was ['center'], is ['center', 'center-mirrored']" in bench.text()
    assert bench.run(archive.task()).reused == 3


def test_other_weights_in_the_same_file_are_another_cache(archive, bench) -> None:
    archive.add_drawn(range(3))
    file = archive.folder / "w.bin"
    file.write_text("old")
    task = archive.task(["own"], settings=OWN.format(weights="w.bin"))
    bench.run(task)
    old = bench.encoders["own"].weights_digest
    file.write_text("newer")
    assert bench.run(task).embedded == 3
    new = bench.encoders["own"].weights_digest
    assert f"weights was '{old}', is '{new}'" in bench.text()


def test_the_same_weights_with_a_new_date_are_the_same_cache(archive, bench) -> None:
    archive.add_drawn(range(3))
    file = archive.folder / "w.bin"
    file.write_text("old")
    task = archive.task(["own"], settings=OWN.format(weights="w.bin"))
    bench.run(task)
    os.utime(file, ns=(1, 1))
    assert counts(bench.run(task)) == (3, 0, 3, 0, 0)
    assert bench.crops == 0
    bench.run(task)
    assert bench.encoders == {}  # The new date is part of the request by now.


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"size": 32, "crop": "center"}, {"size": 40, "crop": "center"}, "size was 32, is 40"),
        (
            {"size": 32, "crop": "center"},
            {"size": 32, "crop": "squash"},
            "preprocess.crop was 'center', is 'squash'",
        ),
    ],
)
def test_another_preprocessing_is_another_cache(archive, bench, old, new, said) -> None:
    archive.add_drawn(range(3))
    (archive.folder / "w.bin").write_text("w")
    own = OWN.format(weights="w.bin")
    bench.run(archive.task(["own"], settings=own + OVERRIDE.format(**old)))
    summary = bench.run(archive.task(["own"], settings=own + OVERRIDE.format(**new)))
    assert summary.embedded == 3
    assert said in bench.text()


def test_another_precision_is_another_cache_unless_left_open(archive, bench) -> None:
    archive.add_drawn(range(3))
    task = archive.task()
    bench.run(task, precision="bf16")
    assert bench.run(task, precision="fp32").embedded == 3
    assert "precision was 'bf16', is 'fp32'" in bench.text()
    assert bench.run(task).reused == 3  # auto takes either.
    assert bench.crops == 0


def test_auto_goes_on_at_the_precision_of_the_cache(archive, bench) -> None:
    bench.settings["faster"] = ("bf16",)
    archive.add_drawn(range(3))
    first = bench.run(archive.task(), precision="fp32")
    archive.add_drawn(range(3, 5))
    second = bench.run(archive.task())
    assert counts(second) == (5, 2, 3, 0, 0)
    assert second.caches[0].path == first.caches[0].path
    assert bench.crops == 2  # No trial of another precision.
    assert reader(archive.task()).fingerprint["precision"] == "fp32"


def test_a_new_cache_takes_the_faster_precision_when_it_agrees(archive, bench) -> None:
    bench.settings["faster"] = ("bf16",)
    archive.add_drawn(range(3))
    bench.run(archive.task())
    assert reader(archive.task()).fingerprint["precision"] == "bf16"
    assert "resnet18: bf16, worst cosine to fp32 1.00000 over 3 crops" in bench.text()


def test_six_views_and_two_backbones_decode_each_picture_once(mixed, bench) -> None:
    task = mixed.task(["resnet18", "resnet50"], views="crops6")
    summary = bench.run(task)
    assert bench.decoded == 12
    assert counts(summary) == (16, 10, 0, 2, 4)
    assert [cache.rows for cache in summary.caches] == [10, 10]
    # Eight pictures take six passes; the square one, whose three crops are one, takes two; the one
    # of 33 x 32 pixels, whose first and middle crops are one, takes four.
    assert [sum(one.log) for one in bench.encoders.values()] == [54, 54]
    assert bench.run(task).reused == 10


def test_a_second_backbone_decodes_again_but_leaves_the_first_alone(mixed, bench) -> None:
    bench.run(mixed.task())
    summary = bench.run(mixed.task(["resnet18", "resnet50"]))
    assert list(bench.encoders) == ["resnet50"]
    assert bench.decoded == 10
    assert counts(summary) == (16, 10, 0, 2, 4)


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
def test_rejected_pictures_stand_among_the_failures(mixed, bench, later) -> None:
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

    def flaky(path: str, digest: str, order: Order) -> Prepared:
        if path == "002.png":
            return Prepared(digest, rejected("decode_timeout", "over 60 s"))
        return real(path, digest, order)

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
    from cache.store import Writer

    opened = Writer.open
    monkeypatch.setattr(Writer, "open", lambda *given: opened(*given, commit_seconds=0))
    archive.add_drawn(range(6))
    task = archive.task()
    bench.run(task)
    return task


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


def test_a_missing_shard_is_computed_again(sharded, bench) -> None:
    sorted((reader(sharded).folder / "shards").iterdir())[0].unlink()
    assert counts(bench.run(sharded)) == (6, 1, 5, 0, 0)
    assert verify_all(sharded, deep=True).ok


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
    with pytest.raises(fault):
        bench.run(task)
    assert len(reader(task).keys) == 8
    del bench.settings["before"]
    assert counts(bench.run(task)) == (12, 4, 8, 0, 0)
    assert bench.crops == 4
    assert not is_locked(reader(task).folder)


def is_locked(folder: Path) -> bool:
    from cache.lock import is_locked

    return is_locked(folder)


def test_a_second_run_at_the_same_time_is_refused(archive, bench) -> None:
    archive.add_drawn(range(3))
    task = archive.task()
    bench.run(task)
    archive.add_drawn([3])
    with Lock(reader(task).folder):
        with pytest.raises(CacheError, match=f"pid {os.getpid()} on host .* since 20"):
            bench.run(archive.task())
        assert bench.crops == 0
    assert bench.run(archive.task()).embedded == 1


def test_random_weights_are_said_aloud(archive, bench) -> None:
    archive.add_drawn(range(3))
    task = archive.task(["own"], settings=OWN.format(weights="random"))
    for _ in range(2):  # Also when there is nothing to do.
        summary = bench.run(task)
        assert "own: RANDOM WEIGHTS, for trials only" in bench.said
        assert summary.caches[0].random_weights
        assert record_of(summary)["caches"][0]["random_weights"] is True
    bench.run(archive.task())
    assert "RANDOM" not in bench.text()


def test_folds_are_cut_for_every_labelled_row(mixed, bench) -> None:
    task = mixed.task()
    bench.run(task)
    lines = (task.work / "folds.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in lines[1:]} == set(mixed.ids)


def test_too_few_labels_are_only_a_remark(archive, bench) -> None:
    archive.add_drawn(range(4))
    task = archive.task(labels=["intact"])
    assert bench.run(task).embedded == 4
    assert "no folds yet: " in bench.text()
    assert not (task.work / "folds.csv").exists()


def test_what_the_command_line_says_goes_before_the_task(archive, bench) -> None:
    archive.add_drawn(range(3))
    summary = bench.run(archive.task(), backbones=("resnet50", "resnet50"), views="flip")
    assert [(one.backbone, one.views) for one in summary.caches] == [("resnet50", 2)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"views": "crops5"}, ("crops5", "crops")),
        ({"backbones": ("resnet19",)}, ("resnet19", "resnet1")),
        ({"precision": "fp16"}, ("fp16", "bf16")),
        ({"device": "gpu"}, ("gpu", "cuda")),
    ],
)
def test_a_wrong_option_is_one_line_and_nothing_written(
    archive, bench, fault_of, options, words
) -> None:
    archive.add_drawn(range(2))
    task = archive.task()
    fault_of(lambda: bench.run(task, **options), *words)
    assert not task.work.exists()


def test_unknown_layers_are_refused(archive, fault_of) -> None:
    archive.add_drawn(range(2))
    file = archive.task().file
    file.write_text(file.read_text().replace("[embed]\n", '[embed]\nlayers = "last5"\n'))
    from task.config import load_task

    fault_of(lambda: plan(load_task(file), Options()), "last5", "pooled")


def test_the_descriptor_runs_without_any_stand_in(mixed) -> None:
    options = Options(workers=0, device="cpu")
    summary = embed(mixed.task(["hog"], views="flip"), options)
    assert counts(summary) == (16, 10, 0, 2, 4)
    assert summary.caches[0].width == 1860
    rows = Reader(mixed.folder / summary.caches[0].path)
    assert rows.row_shape == (2, 1860)


def test_decoder_processes_give_the_same_cache(mixed, tmp_path) -> None:
    task = mixed.task(["hog"])
    here = embed(task, Options(workers=0, device="cpu"))
    first = Reader(mixed.folder / here.caches[0].path).read(keys_of(task))[1]
    (task.work / "cache").rename(tmp_path / "elsewhere")
    (task.work / "manifest.csv").unlink()
    there = embed(task, Options(workers=2, device="cpu"))
    assert counts(there) == counts(here)
    again = Reader(mixed.folder / there.caches[0].path).read(keys_of(task))[1]
    np.testing.assert_array_equal(again, first)


def test_a_table_without_one_picture_still_gives_a_summary(archive, bench) -> None:
    archive.add("a.png", None)
    archive.add("b.png", b"")
    summary = bench.run(archive.task())
    assert counts(summary) == (2, 0, 0, 0, 2)
    assert summary.caches[0].rows == 0
    assert counts(bench.run(archive.task())) == (2, 0, 0, 0, 2)


def test_rejections_alone_do_not_settle_the_precision(archive, bench) -> None:
    bench.settings["faster"] = ("bf16",)
    archive.add("torn.png", b"\x89PNG\r\n\x1a\n")
    bench.run(archive.task())
    archive.add_drawn(range(2))
    bench.run(archive.task())
    assert reader(archive.task()).fingerprint["precision"] == "bf16"
    assert len(reader(archive.task()).failures) == 1
