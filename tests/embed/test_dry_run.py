"""The dry run: right numbers, nothing written, missing weights told and not raised."""

import json
import shutil
from dataclasses import asdict

import pytest

from archiveprobe.embed import dry_run as module
from archiveprobe.embed.dry_run import Estimate, JobEstimate, dry_run
from archiveprobe.embed.run import Options, embed
from archiveprobe.embed.weights import fetch_all

CPU = Options(workers=0, device="cpu")
OWN = '[backbone.own]\nlibrary = "timm"\nname = "test_resnet"\nweights = "{}"\n'


@pytest.fixture
def counted(bench, monkeypatch):
    """The counting encoders in the dry run too."""
    monkeypatch.setattr(module, "load_backbone", bench.encoder)
    monkeypatch.setattr(module, "locate", lambda _: None)
    return bench


def test_nothing_is_written(mixed, counted, tree) -> None:
    task = mixed.task(views="crops6")
    before = tree(mixed.folder)
    dry_run(task, CPU)
    assert tree(mixed.folder) == before
    counted.run(task)
    mixed.add_drawn([20])
    task = mixed.task(views="crops6")
    before = tree(mixed.folder)
    dry_run(task, CPU)
    assert tree(mixed.folder) == before


def test_it_counts_what_is_missing(mixed, counted) -> None:
    estimate = dry_run(mixed.task(["resnet18", "resnet50"]), CPU)
    # Twelve distinct files: which two of them hold no picture is not known before decoding.
    assert (estimate.images, estimate.to_decode) == (16, 12)
    assert [job.missing for job in estimate.backbones] == [12, 12]
    counted.run(mixed.task())
    mixed.add_drawn([20, 21])
    estimate = dry_run(mixed.task(["resnet18", "resnet50"]), CPU)
    assert (estimate.images, estimate.to_decode) == (18, 12)
    assert [(job.backbone, job.missing) for job in estimate.backbones] == [
        ("resnet18", 2),
        ("resnet50", 12),
    ]


def test_with_nothing_to_do_there_is_nothing_to_wait_for(mixed, counted) -> None:
    counted.run(mixed.task())
    counted.encoders, counted.decoded = {}, 0
    estimate = dry_run(mixed.task(), CPU)
    assert (estimate.to_decode, estimate.bytes, estimate.seconds) == (0, 0, 0.0)
    assert estimate.backbones == [JobEstimate("resnet18", 0, "not needed", 0, 0.0)]
    assert (counted.encoders, counted.decoded) == ({}, 0)


def test_its_bytes_are_about_what_the_run_then_writes(archive) -> None:
    archive.add_drawn(range(40))
    task = archive.task(["hog"], views="flip")
    estimate = dry_run(task, CPU)
    embed(task, CPU)
    written = sum(file.stat().st_size for file in task.work.glob("cache/*/shards/*"))
    assert 0.8 < estimate.backbones[0].bytes / written < 1.2
    assert estimate.bytes == estimate.backbones[0].bytes + 40 * 15_000
    assert estimate.backbones[0].weights == "none needed"


def test_a_width_that_nobody_knows_is_measured(archive) -> None:
    archive.add_drawn(range(3))
    task = archive.task(["own"], settings=OWN.format("random"))
    [job] = dry_run(task, CPU).backbones
    assert job.bytes == 3 * (1 * (2 * 96 + 5) + 48)
    assert job.weights == "random"


def test_weights_of_the_hub_that_are_missing_are_told(archive, counted) -> None:
    archive.add_drawn(range(2))
    [job] = dry_run(archive.task(), CPU).backbones
    assert job.weights == "MISSING: to be downloaded"


def test_a_weights_file_is_told_and_so_is_its_absence(archive) -> None:
    archive.add_drawn(range(2))
    task = archive.task(["own"], settings=OWN.format("w.safetensors"))
    [job] = dry_run(task, CPU).backbones
    assert job.weights.startswith("MISSING")
    assert "w.safetensors" in job.weights
    (archive.folder / "w.safetensors").write_bytes(b"")
    [job] = dry_run(task, CPU).backbones
    assert job.weights == str(archive.folder / "w.safetensors")


def test_a_image_that_cannot_be_decoded_is_no_obstacle(archive, counted) -> None:
    archive.add("a.png", b"nothing")
    estimate = dry_run(archive.task(), CPU)
    assert (estimate.images, estimate.to_decode) == (1, 1)


def test_the_estimate_can_be_printed(archive, counted) -> None:
    archive.add_drawn(range(2))
    estimate: Estimate = dry_run(archive.task(), CPU)
    assert json.loads(json.dumps(asdict(estimate)))["free_bytes"] > 0
    assert estimate.free_bytes <= shutil.disk_usage(archive.folder).total


def test_checking_weights_says_where_each_lies(archive, monkeypatch, tmp_path) -> None:
    archive.add_drawn([0])
    monkeypatch.setattr(
        "archiveprobe.embed.weights.fetch", lambda backbone: tmp_path / backbone.name
    )
    names = ["hog", "clip-vit-b32", "own"]
    lines = fetch_all(archive.task(names, settings=OWN.format("random")))
    assert [(line.backbone, line.file) for line in lines] == [
        ("hog", "none needed"),
        ("clip-vit-b32", str(tmp_path / "clip-vit-b32")),
        ("own", "none needed"),
    ]
    assert lines[1].weights == "open_clip:ViT-B-32-quickgelu/openai"
