"""Which cache a run writes to: every setting that numbers depend on leads to another one."""

import os
from typing import Any

import pytest
from snapshots import current_cache

from archiveprobe.cache.store import Reader

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


def counts(summary: Any) -> tuple[int, ...]:
    names = ("images", "embedded", "reused", "duplicates", "failed")
    return tuple(getattr(summary, name) for name in names)


def test_other_views_are_another_cache(archive, bench) -> None:
    archive.add_drawn(range(3))
    bench.run(archive.task())
    summary = bench.run(archive.task(views="flip"))
    assert counts(summary) == (3, 3, 0, 0, 0)
    assert bench.crops == 6
    assert "views was ['center'], is ['center', 'center-mirrored']" in bench.text()
    assert bench.run(archive.task()).reused == 3


@pytest.mark.proves("numbers")
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


def test_a_descriptor_has_one_precision_whatever_is_asked(archive, bench) -> None:
    archive.add_drawn(range(3))
    task = archive.task(["hog"])
    bench.run(task)
    assert bench.run(task, precision="bf16").reused == 3
    assert bench.said == []
    archive.add_drawn([7])
    assert bench.run(archive.task(["hog"]), precision="bf16").embedded == 1
    assert reader(archive.task(["hog"]), "hog").rows == 4


def test_weights_swapped_behind_an_equal_date_are_found_on_demand(archive, bench) -> None:
    archive.add_drawn(range(3))
    file = archive.folder / "w.bin"
    file.write_text("one")
    os.utime(file, (1, 1))
    settings = '[backbone.own]\nlibrary = "timm"\nname = "resnet18"\nweights = "w.bin"\n'
    task = archive.task(["own"], settings=settings)
    assert bench.run(task).embedded == 3
    file.write_text("two")
    os.utime(file, (1, 1))
    assert bench.run(task).reused == 3
    assert bench.run(task, rehash=True).embedded == 3


def test_an_own_backbone_says_which_preprocessing_it_takes(archive, bench) -> None:
    archive.add_drawn([0])
    (archive.folder / "w.bin").write_text("one")
    settings = '[backbone.own]\nlibrary = "timm"\nname = "resnet18"\nweights = "w.bin"\n'
    bench.run(archive.task(["own"], settings=settings))
    assert "own: task.toml gives no preprocess" in bench.text()
    assert "size 32" in bench.text()


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


def test_rejections_alone_do_not_settle_the_precision(archive, bench) -> None:
    bench.settings["faster"] = ("bf16",)
    archive.add("torn.png", b"\x89PNG\r\n\x1a\n")
    bench.run(archive.task())
    archive.add_drawn(range(2))
    bench.run(archive.task())
    assert reader(archive.task()).fingerprint["precision"] == "bf16"
    assert len(reader(archive.task()).failures) == 1


def test_random_weights_are_said_aloud(archive, bench) -> None:
    archive.add_drawn(range(3))
    task = archive.task(["own"], settings=OWN.format(weights="random"))
    for _ in range(2):  # Also when there is nothing to do.
        summary = bench.run(task)
        assert "own: RANDOM WEIGHTS, for trials only" in bench.said
        assert summary.caches[0].random_weights
        assert summary.record()["caches"][0]["random_weights"] is True
    bench.run(archive.task())
    assert "RANDOM" not in bench.text()
