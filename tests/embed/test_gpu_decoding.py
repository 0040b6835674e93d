"""`decode = "gpu"` of [embed] from the command line, with a stand-in for a GPU's decoder."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from streets import FOR_PILLOW, Streets, as_a_gpu_does, inverted, jpeg, none_at_all, path_of, turned

from archiveprobe import cli
from archiveprobe.api.embedder import Embedder
from archiveprobe.cache.reader import Reader
from archiveprobe.embed import ray_embed
from archiveprobe.embed.backbones import resolve
from archiveprobe.embed.precision import cosines
from archiveprobe.embed.prepare import Preparation, PreparedImage
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.ray_embed import DecodeFiles, EmbedUnit
from archiveprobe.embed.view_sets import view_set
from archiveprobe.finetune.model import backbone_of
from archiveprobe.finetune.recipe import Model
from archiveprobe.task.config import load_task
from archiveprobe.task.decoding import decode_pixels, digest
from archiveprobe.task.manifest import read_manifest


@pytest.mark.proves("numbers")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_gpu_decodes_baseline_jpegs_and_pillow_the_rest(streets, workers) -> None:
    for name, content in FOR_PILLOW.items():
        streets.add(name, content)
    streets.add("cut.jpg", jpeg(30)[:-200])
    streets.add("greyscale.jpg", jpeg(31, mode="L"))
    found, said = streets.embed(workers)
    assert "tiny: JPEGs decoded on the GPU agree, worst cosine to Pillow's 0.9999" in said
    assert "hog: JPEGs" not in said
    cache, hog = path_of(found), path_of(found, "hog")
    [record] = streets.caches()
    assert record.fingerprint["decode"]["jpeg"] == "gpu"
    before = {entry.path: entry.status for entry in read_manifest(load_task(streets.folder))}
    assert before["one/cut.jpg"] == "truncated"
    streets.settings("exact")
    exact, _ = streets.embed(workers)
    # A descriptor computes on the CPU, and what it sees is decoded there.
    assert path_of(exact) != cache and path_of(exact, "hog") == hog
    on_gpu, plain = streets.rows(cache), streets.rows(path_of(exact))
    assert on_gpu.keys() == plain.keys() and len(plain) == 12 + len(FOR_PILLOW) + 1
    for name, row in plain.items():
        assert cosines(on_gpu[name], row).min() > 0.9995, name
    same = {name for name, row in plain.items() if np.array_equal(on_gpu[name], row)}
    assert same == FOR_PILLOW.keys()
    after = {entry.path: entry.status for entry in read_manifest(load_task(streets.folder))}
    assert after == before


@pytest.mark.proves("numbers")
@pytest.mark.parametrize(
    ("by", "why"),
    [
        (None, "only a GPU with CUDA decodes, and this run is on cpu"),
        (inverted, "JPEGs decoded on the GPU disagree, worst cosine to Pillow's"),
        (none_at_all, "it decodes none of the baseline JPEGs that were tried"),
    ],
)
def test_where_it_does_not_agree_pillow_decodes(streets, by, why) -> None:
    streets.by(by)
    found, said = streets.embed()
    assert f"tiny: JPEGs are decoded on the CPU: {why}" in said
    [record] = streets.caches()
    assert "jpeg" not in record.fingerprint["decode"]
    # What has been begun so goes on so.
    streets.by(as_a_gpu_does)
    streets.add("new.jpg", jpeg(40))
    more, said = streets.embed()
    assert (more["embedded"], more["reused"]) == (1, 12)
    assert f"those of {record.folder.name} were" in said
    assert path_of(more) == path_of(found)
    streets.settings("exact")
    again, _ = streets.embed()
    assert (again["reused"], path_of(again)) == (13, path_of(found))


@pytest.mark.proves("numbers")
@pytest.mark.parametrize("before", ["exact", "gpu"])
def test_a_system_on_images_that_pillow_decoded_answers_new_ones(streets, before) -> None:
    streets.by(None)
    streets.settings(before)
    streets.embed()
    streets.settings()
    streets.embed()
    assert streets.run("probe", "--probe", "ridge", "--features", "tiny").exit_code == 0
    new = streets.folder / "new"
    new.mkdir()
    (new / "one.jpg").write_bytes(jpeg(50))
    words = ("--system", "ridge-tiny", "--images", str(new), "--workers", "0", "-o")
    for by in (None, inverted):
        streets.by(by)
        done = streets.run("predict", *words, str(streets.folder / "a"))
        assert done.exit_code == 0, done.output


def test_an_archive_without_a_baseline_jpeg_is_decoded_by_pillow(tmp_path, monkeypatch) -> None:
    streets = Streets(tmp_path, monkeypatch)
    for seed in range(4):
        streets.add(f"{seed}.png", jpeg(seed, format="PNG"), ("one", "two")[seed % 2])
    _, said = streets.embed()
    assert "there is no baseline JPEG among the images that were tried" in said


def test_drawn_views_are_made_on_the_cpu(streets) -> None:
    streets.settings(views="augment2")
    _, said = streets.embed()
    assert "tiny: JPEGs are decoded on the CPU: drawn views are made on the CPU only" in said


@pytest.mark.proves("numbers")
@pytest.mark.parametrize("by", [None, inverted])
def test_a_cache_of_a_gpu_is_not_continued_without_it(streets, by) -> None:
    found, _ = streets.embed()
    streets.add("new.jpg", jpeg(40))
    streets.by(by)
    done = streets.run("embed", "--workers", "0")
    assert (done.exit_code, done.stdout) == (1, "")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        f"error: the images of {Path(path_of(found)).name} were decoded on a GPU"
    )
    assert last.endswith('or set decode = "exact", which embeds all of them again')
    assert len(Reader(streets.folder / path_of(found)).keys) == 12
    # Nothing to decode, nothing to refuse.
    (streets.folder / "images" / "one" / "new.jpg").unlink()
    assert streets.embed()[0]["reused"] == 12


def test_rows_are_computed_again_where_a_gpu_decodes(streets) -> None:
    streets.embed()
    verify = ("cache", "verify", str(streets.folder), "--recompute", "5")
    done = CliRunner().invoke(cli.main, list(verify))
    assert done.exit_code == 0, done.output
    assert "worst cosine 1.000000" in done.output
    streets.by(None)
    done = CliRunner().invoke(cli.main, list(verify))
    assert done.exit_code == 1
    assert "were decoded on a GPU, and here only a GPU with CUDA decodes" in done.output


@pytest.mark.proves("numbers")
def test_a_system_answers_through_the_decoder_it_was_trained_on(streets) -> None:
    streets.embed()
    done = streets.run("probe", "--probe", "ridge", "--features", "tiny", "--json")
    assert done.exit_code == 0, done.output
    system = json.loads(done.stdout)["leaderboard"][0]["system"]
    new = streets.folder / "new"
    new.mkdir()
    (new / "one.jpg").write_bytes(jpeg(50))
    (new / "two.png").write_bytes(jpeg(51, format="PNG"))
    words = ("--system", system, "--images", str(new), "--workers", "0", "-o")
    for by in (None, inverted):
        streets.by(by)
        done = streets.run("predict", *words, str(streets.folder / "a"))
        assert done.exit_code == 1, done.output
        assert "were decoded on a GPU, and here " in done.stderr.strip().splitlines()[-1]
    streets.by(as_a_gpu_does)
    file = streets.folder / "b.csv"
    done = streets.run("predict", *words, str(file))
    assert done.exit_code == 0, done.output
    answers = list(csv.DictReader(file.open()))
    assert [row["id"] for row in answers] == ["one.jpg", "two.png"]
    assert all(row["status"] == "ok" and row["label"] and row["p_one"] for row in answers)


@pytest.mark.proves("archive", "numbers")
def test_new_images_have_the_answers_that_rows_of_the_task_have(streets, tmp_path) -> None:
    new = tmp_path / "elsewhere"
    new.mkdir()
    contents = {"50.jpg": jpeg(50), "strip.jpg": jpeg(51, (900, 40)), "turned.jpg": turned(6)}
    for name, content in {**contents, **FOR_PILLOW, "cut.jpg": jpeg(52)[:-200]}.items():
        (new / name).write_bytes(content)
    streets.embed()
    for each in ("tiny", "hog+tiny:rows"):
        assert streets.run("probe", "--probe", "ridge", "--features", each).exit_code == 0
    systems = ("ridge-tiny", "ridge-hog+tiny@rows")

    def answers(system: str, *words: str) -> dict[str, dict[str, str]]:
        file = tmp_path / "answers.csv"
        done = streets.run("predict", "--system", system, *words, "-o", str(file))
        assert done.exit_code == 0, done.output
        with file.open() as stream:
            return {Path(row.pop("id")).name: row for row in csv.DictReader(stream)}

    of_archive = [answers(name, "--images", str(new), "--workers", "0") for name in systems]
    for file in new.iterdir():
        streets.add(file.name, file.read_bytes(), "unlabelled")
    streets.embed()
    assert of_archive == [answers(name) for name in systems]
    assert {name for name, row in of_archive[0].items() if not row["label"]} == {"cut.jpg"}


@pytest.mark.proves("review", "numbers")
def test_the_answer_of_an_image_that_a_gpu_decodes_is_proved(streets) -> None:
    streets.add("new.jpg", jpeg(50), "unlabelled")
    streets.embed()
    assert streets.run("probe", "--probe", "ridge", "--features", "tiny").exit_code == 0
    words = ("--system", "ridge-tiny", "--export", str(streets.folder / "queue.csv"))
    done = streets.run("review", *words)
    assert done.exit_code == 0, done.output
    done = streets.run("prove", "unlabelled/new.jpg", "--json")
    assert done.exit_code == 0, done.output
    proof = json.loads(done.stdout)
    assert proof["score_again"] == pytest.approx(proof["score"], abs=1e-6)
    assert proof["embeddings"][0]["cosine"] == pytest.approx(1, abs=1e-6)


def test_fine_tuning_and_the_api_keep_to_the_cpu(streets) -> None:
    task = load_task(streets.folder)
    assert resolve("tiny", task).decode == "gpu"
    settings = Model.model_construct(backbone="tiny")
    assert backbone_of(settings, task).decode == "exact"
    images = sorted((streets.folder / "images").glob("*/*.jpg"))[:3]
    with pytest.warns(UserWarning, match="RANDOM WEIGHTS"):
        rows = Embedder("tiny", task=streets.folder, workers=0).fit(images).transform(images)
    assert np.isfinite(rows).all()


def test_decoders_on_other_machines_hand_the_file_on(streets) -> None:
    content = jpeg(10)
    views = {Geometry(24, 24, decode="gpu"): view_set("center")}
    decode = DecodeFiles("a run", Preparation(streets.folder / "images" / "one", views))
    try:
        row = decode({"unit": 0, "files": json.dumps([["10.jpg", digest(content)]])})
    finally:
        ray_embed._decoders(decode).__exit__(None, None, None)
        ray_embed._decoders.cache_clear()
    [image] = row["images"]
    assert (image.jpeg, image.views, image.digest) == (content, {}, digest(content))


def test_an_image_that_pillow_refuses_after_the_gpu_has_its_status_on_other_machines(
    streets,
) -> None:
    streets.embed()
    task, [record] = load_task(streets.folder), streets.caches()
    whole = jpeg(50), jpeg(51)
    images = [
        PreparedImage(digest(content), decode_pixels(content, "gpu").observation, {}, content)
        for content in whole
    ]
    images[1] = replace(images[1], jpeg=whole[1][:-200])
    row = EmbedUnit(task, {"tiny": record.digest}, "cpu", None)({"unit": 0, "images": images})
    seen = json.loads(row["receipt"])["seen"]
    assert [each["status"] for _, each in seen] == ["ok", "truncated"]


def test_a_cache_of_a_gpu_takes_other_formats_alone(streets) -> None:
    found, _ = streets.embed()
    streets.add("new.png", jpeg(60, format="PNG"))
    more, said = streets.embed()
    assert (more["embedded"], path_of(more)) == (1, path_of(found))
    assert "no baseline JPEG among the images that were tried: the GPU goes on" in said


def test_one_backbone_that_keeps_to_the_cpu_costs_the_other_nothing(streets) -> None:
    file = streets.folder / "task.toml"
    text = file.read_text().replace('"tiny", "hog"', '"tiny", "other"')
    own = text[text.index("[backbone.tiny]") :].replace("tiny", "other")
    settings = 'size = 32\ninterpolation = "lanczos"\nmean = [0, 0, 0]\nstd = [1, 1, 1]\n'
    file.write_text(f"{text}{own}[backbone.other.preprocess]\n{settings}")
    _, said = streets.embed()
    assert "tiny: JPEGs decoded on the GPU agree" in said
    assert "other: JPEGs are decoded on the CPU: lanczos resampling is made on the CPU" in said
    assert "Pillow decoded instead" not in said


@pytest.mark.proves("numbers")
def test_strips_alone_say_nothing_against_a_gpu(streets) -> None:
    found, _ = streets.embed()
    strip = jpeg(70, (900, 40))
    streets.add("strip.jpg", strip)
    more, said = streets.embed()
    assert (more["embedded"], path_of(more)) == (1, path_of(found))
    assert "no baseline JPEG but strips, which Pillow cuts, among the images" in said
    assert streets.run("probe", "--probe", "ridge", "--features", "tiny").exit_code == 0
    new = streets.folder / "new"
    new.mkdir()
    (new / "strip.jpg").write_bytes(jpeg(71, (900, 40)))
    words = ("--system", "ridge-tiny", "--images", str(new), "--workers", "0", "-o")
    done = streets.run("predict", *words, str(streets.folder / "a"))
    assert done.exit_code == 0, done.output


@pytest.mark.proves("memory")
@pytest.mark.parametrize("command", ["embed", "predict"])
def test_a_crop_that_does_not_fit_at_the_trial_is_one_line(streets, monkeypatch, command) -> None:
    if command == "predict":
        streets.embed()
        assert streets.run("probe", "--probe", "ridge", "--features", "tiny").exit_code == 0
        new = streets.folder / "new"
        new.mkdir()
        (new / "one.jpg").write_bytes(jpeg(50))
        words = ["--system", "ridge-tiny", "--images", str(new), "-o", str(streets.folder / "a")]
    else:
        words = []

    def forward(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(torch.nn.Conv2d, "_conv_forward", forward)
    done = streets.run(command, *words, "--workers", "0")
    assert (done.exit_code, done.stdout) == (1, ""), done.output
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: out of memory ") and "timm:test_vit" in last


@pytest.mark.proves("numbers")
@pytest.mark.parametrize("by", [as_a_gpu_does, None])
def test_tuned_networks_look_at_what_they_were_trained_on(streets, by) -> None:
    streets.by(by)
    streets.embed()
    recipe = streets.folder / "own.toml"
    text = '[model]\nbackbone = "tiny"\n[schedule]\nepochs = 1\n[rows]\ninner_folds = 2\n'
    recipe.write_text(text)
    words = ("--fold", "all", "--full", "--device", "cpu", "--workers", "0")
    done = streets.run("finetune", "--recipe", str(recipe), *words)
    assert done.exit_code == 0, done.output
    done = streets.run("embed", "--backbone", "tuned:own", "--workers", "0")
    assert done.exit_code == 0, done.output
    assert streets.caches("tuned:own")[0].fingerprint["preprocess"].get("decode") is None
    done = streets.run("probe", "--probe", "ridge", "--features", "tuned:own")
    assert done.exit_code == 0, done.output
    new = streets.folder / "new"
    new.mkdir()
    (new / "one.jpg").write_bytes(jpeg(50))
    words = ("--images", str(new), "--workers", "0", "-o", str(streets.folder / "a"))
    done = streets.run("predict", "--system", "ridge-tuned@own", *words)
    assert done.exit_code == 0, done.output


def test_what_was_embedded_with_another_decoding_is_named(streets) -> None:
    streets.embed()
    streets.settings("exact")
    done = streets.run("probe", "--probe", "ridge", "--features", "tiny")
    assert done.exit_code == 1
    assert "with views 'crops6' in" in done.stderr and ", only with another decode:" in done.stderr
