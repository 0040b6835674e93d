"""The pipeline with an encoder that counts: what is embedded, what is not, and what is said."""

import json
import os
from typing import Any

import numpy as np
import pytest
from PIL import Image
from snapshots import current_cache

from archiveprobe.cache.store import Reader
from archiveprobe.embed.run import Options, embed, plan
from archiveprobe.evaluate.task_state import read_state
from archiveprobe.task.config import load_task
from archiveprobe.task.manifest import manifest_file, read_manifest
from archiveprobe.task.snapshot import snapshot_file


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
    record = json.loads(json.dumps(bench.run(mixed.task(views="flip")).record()))
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


def test_the_manifest_is_written_again_only_where_it_changes(mixed, bench) -> None:
    task = mixed.task()
    file = manifest_file(task)

    def is_written() -> bool:
        before = file.stat().st_ino
        bench.run(task)
        assert read_state(task).snapshot.finished
        return file.stat().st_ino != before

    for image in (mixed.folder / "images").glob("*"):
        # A young one gets no hint yet, and a later run gives it one.
        os.utime(image, (1e9, 1e9))
    bench.run(task)
    assert not is_written()
    snapshot_file(task).unlink()
    assert is_written()
    next(iter((mixed.folder / "images").glob("*.png"))).unlink()
    assert is_written()
    assert not is_written()


def test_rows_are_the_embeddings_of_their_images(mixed, bench, draw) -> None:
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
        wanted = encoder.embed(crop, np.array([False, True])).astype(np.float16)
        np.testing.assert_array_equal(row, wanted)


def test_ten_more_images_embed_ten(archive, bench) -> None:
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


def test_a_changed_file_is_a_new_image(archive, bench, draw) -> None:
    archive.add_drawn(range(4))
    task = archive.task()
    bench.run(task)
    draw(99).save(archive.file("002.png"))
    assert counts(bench.run(task)) == (4, 1, 3, 0, 0)
    assert bench.crops == 1


def test_six_views_and_two_backbones_decode_each_image_once(mixed, bench) -> None:
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


def test_a_table_without_one_image_still_gives_a_summary(archive, bench) -> None:
    archive.add("a.png", None)
    archive.add("b.png", b"")
    summary = bench.run(archive.task())
    assert counts(summary) == (2, 0, 0, 0, 2)
    assert summary.caches[0].rows == 0
    assert counts(bench.run(archive.task())) == (2, 0, 0, 0, 2)


def test_a_wrong_root_stops_the_run_and_keeps_what_was_seen(archive, bench, fault_of) -> None:
    archive.add_drawn(range(4))
    task = archive.task()
    bench.run(task)
    manifest = (task.work / "manifest.csv").read_bytes()
    (archive.folder / "images").rename(archive.folder / "pictures")
    words = ("4 images", "no folder ", "/images", "did you mean 'pictures'?", "images.root")
    fault_of(lambda: bench.run(task), *words)
    assert (task.work / "manifest.csv").read_bytes() == manifest
    (archive.folder / "pictures").rename(archive.folder / "images")
    assert bench.run(task).reused == 4


def test_some_missing_rows_are_said_and_the_run_goes_on(archive, bench) -> None:
    archive.add_drawn(range(4))
    archive.ids.append("002.PNG")
    assert bench.run(archive.task()).embedded == 4
    first = "1 of 5 rows name no single file, so they have no image: '002.PNG' (another row names "
    assert any(line.startswith(first) for line in bench.said)


def test_strays_in_folders_are_said(archive, bench, draw) -> None:
    for label in ("intact", "destroyed"):
        archive.file(label).mkdir()
        draw(len(label)).save(archive.file(f"{label}/a.png"))
    archive.file("orig.st").write_bytes(b"weights")
    file = archive.task().file
    file.write_text(file.read_text().replace('table = "labels.csv"\n', ""))
    assert bench.run(load_task(file)).images == 2
    assert "ignored 1 file that is no image: .st (1)" in bench.said


def test_without_labels_there_are_no_folds(archive, bench) -> None:
    archive.add_drawn(range(4))
    file = archive.task(labels=[""]).file
    bench.run(load_task(file))
    assert [line for line in bench.said if "folds" in line] == ["no folds: no labelled rows"]
    file.write_text(file.read_text().replace('["intact", "destroyed"]', "[]"))
    bench.run(load_task(file))
    [line] = [line for line in bench.said if "folds" in line]
    assert line.startswith("no folds: no labelled rows: labels is empty in ")


@pytest.mark.parametrize("labels", [["intact"], ["intact", "destroyed"], [""]])
def test_a_label_that_no_row_has_is_said_before_embedding(archive, bench, labels) -> None:
    archive.add_drawn(range(4))
    bench.run(archive.task(labels=labels))
    said = [line for line in bench.said if line.startswith("no labelled row of ")]
    expected = "no labelled row of 'destroyed': probes need some of each label"
    assert said == ([expected] if labels == ["intact"] else [])


def test_other_settings_of_the_folds_are_said(archive, bench) -> None:
    archive.add_drawn(range(8))
    file = archive.task().file
    bench.run(load_task(file))
    folds = (archive.folder / "work" / "folds.csv").read_bytes()
    file.write_text(file.read_text().replace("count = 2", "count = 3"))
    bench.run(load_task(file))
    assert "was written with count = 2, but" in bench.text()
    assert "no folds" not in bench.text()
    assert (archive.folder / "work" / "folds.csv").read_bytes() == folds
