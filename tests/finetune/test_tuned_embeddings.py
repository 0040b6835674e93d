"""Probes on the embeddings of fine-tuned networks: every fold through its own network, no leak."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from noise import add_row_to_predict, draw_noise
from PIL import Image

import archiveprobe.finetune.fits as fits
from archiveprobe.embed.tuned import read_weights
from archiveprobe.embed.view_sets import view_set
from archiveprobe.embed.views import render
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.metrics import macro_f1
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.evaluate.tuned import current_networks
from archiveprobe.finetune.augment import normalise
from archiveprobe.finetune.model import backbone_of, build_network
from archiveprobe.finetune.recipe_file import load_recipe
from archiveprobe.finetune.split import Part
from archiveprobe.probe.choice import parse_choice
from archiveprobe.probe.crossval import cross_validate
from archiveprobe.probe.features import Features, load_features
from archiveprobe.probe.linear import Ridge
from archiveprobe.task.config import load_task

Command = Callable[..., Result]
# It learns sixty random labels by heart.
MEMORY = """
[model]
backbone = "timm:test_vit"
weights = "random"
size = 32
[optimizer]
lr = 1e-3
weight_decay = 0.0
[schedule]
epochs = 20
monitor = "none"
[augment]
crop_scale = [1, 1]
crop_ratio = [1, 1]
flip = 0
[rows]
merged = true
"""
TUNED = "tuned:memory"


@pytest.fixture(scope="module")
def learned() -> list[Part]:
    """The rows that every part of the noise was trained with."""
    return []


@pytest.fixture(scope="module")
def noise_archive(
    tmp_path_factory: pytest.TempPathFactory, run: Command, finetune: Command, learned: list[Part]
) -> Path:
    """Random images with random labels, and the embeddings of networks that know them by heart."""
    folder = tmp_path_factory.mktemp("noise")
    draw_noise(folder, 60, 4, repeats=2)
    for row in range(60, 64):
        add_row_to_predict(folder, row)
    (folder / "memory.toml").write_text(MEMORY)
    assert run("embed", folder, "--workers", "0").exit_code == 0
    real = fits.train

    def train(network: Any, data: Any, *rest: Any, **how: Any) -> Any:
        learned.append(data.part)
        return real(network, data, *rest, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fits, "train", train)
        recipe = str(folder / "memory.toml")
        done = finetune(folder, "--fold", "all", "--full", recipe=recipe)
    assert done.exit_code == 0, done.stderr
    done = run("embed", folder, "--backbone", TUNED, "--workers", "0", "--precision", "fp32")
    assert done.exit_code == 0, done.stderr
    return folder


def score(features: Features, folder: Path) -> float:
    """Macro-F1 of a ridge probe, out of fold."""
    dataset = load_dataset(load_task(folder))
    logits = cross_validate({"ridge": Ridge}, features, dataset)["ridge"].logits
    assert len(logits) == 1
    return macro_f1(dataset.labels, logits[0].argmax(-1), 2)


@pytest.mark.proves("leaks")
def test_random_labels_are_at_chance_and_networks_of_other_folds_would_leak(
    noise_archive: Path, run: Command
) -> None:
    done = run("probe", noise_archive, "--features", TUNED, "--probe", "ridge", "--json")
    assert done.exit_code == 0, done.stderr
    figures = {line["system"]: line for line in json.loads(done.stdout)["leaderboard"]}
    assert figures["ridge-tuned@memory"]["macro_f1"] < 0.65
    features = load_features(load_dataset(load_task(noise_archive)), parse_choice(TUNED))
    assert score(features, noise_archive) < 0.65
    # What fold 1 is held out from has learned the labels of fold 0.
    shifted = replace(features, by_fold=[*features.by_fold[1:], features.by_fold[0]])
    assert score(shifted, noise_archive) > 0.8


@pytest.mark.proves("leaks")
def test_no_fold_is_embedded_by_a_network_that_has_seen_its_rows(
    noise_archive: Path, learned: Sequence[Part]
) -> None:
    task = load_task(noise_archive)
    dataset = load_dataset(task)
    features = load_features(dataset, parse_choice(TUNED))
    networks = current_networks(dataset, TUNED)
    recipe = load_recipe(str(noise_archive / "memory.toml"))
    backbone = backbone_of(recipe.model, task)
    network = build_network(recipe.model, backbone, 2, seed=recipe.seed)
    images = [Image.open(noise_archive / entry.path) for entry in dataset.labelled.entries]
    geometry, views = network.preprocess.geometry, view_set("center")
    crops = np.concatenate([render(each, geometry, views, seed="").crops for each in images])
    rows_of = {part.name: {*part.train, *part.validation} for part in learned}
    counted = np.zeros(len(dataset), int)
    for fold, (seen, tuned) in enumerate(zip(features.by_fold, networks.folds, strict=True)):
        network.load_state(read_weights(tuned.file, tuned.sha256))
        with torch.inference_mode():
            own = network.body(normalise(crops, network.preprocess)).numpy()
        cosines = (own * seen[:, 0]).sum(1) / np.linalg.norm(own, axis=1)
        assert (cosines / np.linalg.norm(seen[:, 0], axis=1) > 0.9995).all()
        held_out = np.flatnonzero(dataset.fold[0] == fold)
        assert not rows_of[tuned.part] & set(held_out.tolist())
        counted[held_out] += 1
    assert (counted == 1).all()
    assert rows_of["full"] == set(range(60))


def test_the_final_network_answers_rows_images_and_in_ensembles(
    noise_archive: Path, run: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(noise_archive, folder)
    choices = ("--features", f"hog+{TUNED}", "--features", "hog")
    assert run("probe", folder, *choices, "--probe", "logistic").exit_code == 0
    system = "logistic-hog+tuned@memory"
    done = run("ensemble", folder, "--method", "probability", "--name", "both")
    assert done.exit_code == 0, done.stderr
    done = run("submit", folder, "--system", system, "-o", tmp_path / "submission.csv")
    assert done.exit_code == 0, done.stderr
    images = tmp_path / "images"
    images.mkdir()
    for number in range(58, 64):
        shutil.copy(folder / f"{number}.png", images)
    Image.open(folder / "0.png").resize((40, 40)).save(images / "new.png")
    for name in (system, "both"):
        stored = load_run(load_task(folder), name).predictions()
        out = tmp_path / f"{name}.csv"
        done = run("predict", folder, "--system", name, "--images", images, "-o", out)
        assert done.exit_code == 0, done.stderr
        with out.open(newline="") as stream:
            rows = {Path(row["id"]).name: row for row in csv.DictReader(stream)}
        assert len(rows) == 7 and rows["new.png"]["status"] == "ok"
        for id_, p in zip(stored.test_ids.tolist(), stored.test, strict=True):
            assert float(rows[f"{id_}.png"]["p_yes"]) == pytest.approx(p[1], abs=1e-5)


@pytest.fixture
def changeable(noise_archive: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "archive"
    shutil.copytree(noise_archive, folder)
    return folder


def fault(done: Result, *words: str) -> None:
    assert done.exit_code == 1 and not done.stdout
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
    assert done.stderr.splitlines()[-1] == line
    for word in words:
        assert word in line


@pytest.mark.proves("leaks")
@pytest.mark.proves("state")
def test_folds_that_have_moved_are_refused(changeable: Path, run: Command) -> None:
    probed = ("probe", changeable, "--features", TUNED, "--probe", "ridge")
    assert run(*probed).exit_code == 0
    (changeable / "work/folds.csv").unlink()
    file = changeable / "task.toml"
    file.write_text(file.read_text().replace("repeats = 2", "repeats = 2\nseed = 5"))
    assert run("embed", changeable, "--workers", "0").exit_code == 0
    words = "memory is out of date (folds changed since): run `archiveprobe finetune"
    fault(run(*probed), words)
    fault(run("embed", changeable, "--backbone", TUNED), words)
    # The probe that stands is made of it.
    fault(run("submit", changeable, "--system", "ridge-tuned@memory", "-o", "x.csv"), "finetune")


@pytest.mark.proves("state")
def test_networks_that_were_trained_again_are_embedded_again(
    changeable: Path, run: Command, finetune: Command
) -> None:
    probed = ("probe", changeable, "--features", TUNED, "--probe", "ridge")
    assert run(*probed).exit_code == 0
    shutil.rmtree(changeable / "work/finetune")
    recipe = changeable / "memory.toml"
    recipe.write_text(MEMORY.replace("epochs = 20", "epochs = 1"))
    done = finetune(changeable, "--fold", "all", "--full", recipe=str(recipe))
    assert done.exit_code == 0, done.stderr
    fault(run(*probed), "trained again since it was embedded", f"--backbone {TUNED}`")
    done = run("embed", changeable, "--backbone", TUNED, "--workers", "0", "--json")
    assert json.loads(done.stdout)["embedded"] == 64
    listed = run("list", "systems", changeable).stdout
    assert "out of date: the cache of tuned:memory" in listed
    assert run(*probed).exit_code == 0
    assert "out of date" not in run("list", "systems", changeable).stdout


def test_a_second_run_embeds_nothing_and_new_rows_say_what_to_run(
    changeable: Path, run: Command
) -> None:
    embedding = ("embed", changeable, "--backbone", TUNED, "--workers", "0", "--json")
    record = json.loads(run(*embedding).stdout)
    assert (record["embedded"], record["reused"]) == (0, 64)
    names = [cache["backbone"] for cache in record["caches"]]
    assert names == [TUNED, *(f"{TUNED}/fold-{fold}" for fold in range(3))]
    with (changeable / "rows.csv").open("a") as table:
        table.write("64,64.png,\n")
    Image.new("RGB", (32, 32), "blue").save(changeable / "64.png")
    assert run("embed", changeable, "--workers", "0").exit_code == 0
    probed = ("probe", changeable, "--features", TUNED, "--probe", "ridge")
    fault(run(*probed), "1 row not in the cache", f"--backbone {TUNED}`")
    assert json.loads(run(*embedding).stdout)["embedded"] == 1
    assert run(*probed).exit_code == 0


@pytest.mark.proves("damage")
def test_changed_weights_are_refused(changeable: Path, run: Command) -> None:
    file = changeable / "work/finetune/memory/fold-1/weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    shutil.rmtree(changeable / "work/cache")
    done = run("embed", changeable, "--backbone", TUNED, "--workers", "0")
    fault(done, "weights.safetensors has changed")


def test_what_is_no_tuned_backbone_is_refused(
    noise_archive: Path, tuned: Path, run: Command, finetune: Command, tmp_path: Path
) -> None:
    fault(run("embed", tuned, "--backbone", "tuned:quick"), "no network of all", "--full`")
    fault(run("embed", tuned, "--backbone", "tuned:ridge-hog"), "is no system of finetune")
    fault(run("embed", tuned, "--backbone", "tuned:quik"), "'quick'")
    single = f"{TUNED}/fold-0"
    fault(run("probe", noise_archive, "--features", single), f"use {TUNED}, which gives every fold")
    fault(run("embed", noise_archive, "--backbone", f"{TUNED}/fold-7"), "fold-7")
    # A recipe must not begin where the rows of all folds are known.
    recipe = tmp_path / "again.toml"
    recipe.write_text(MEMORY.replace("timm:test_vit", TUNED).replace("size = 32\n", ""))
    fault(finetune(noise_archive, "--fold", "all", recipe=str(recipe)), "the rows of every fold")
    folder = tmp_path / "archive"
    shutil.copytree(noise_archive, folder)
    file = folder / "task.toml"
    file.write_text(file.read_text().replace('"hog"', f'"hog", "{TUNED}"'))
    fault(run("embed", folder), f"--backbone {TUNED} and probe")


def test_a_last_block_is_laid_over_the_weights_beneath(
    embedded: Path, run: Command, finetune: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(embedded, folder)
    recipe = folder / "last.toml"
    recipe.write_text(
        '[model]\nbackbone = "tiny"\nweights = "random"\nunfreeze = "last-block"\n'
        "[schedule]\nepochs = 2\n"
    )
    changed = ("--set", "optimizer.lr=0.01")
    done = finetune(folder, "--fold", "all", "--full", *changed, recipe=str(recipe))
    assert done.exit_code == 0, done.stderr
    name = "tuned:last+optimizer.lr=0.01"
    done = run("embed", folder, "--backbone", name, "--workers", "0", "--precision", "fp32")
    assert done.exit_code == 0, done.stderr
    done = run("probe", folder, "--features", f"tiny+{name}:rows", "--probe", "ridge", "--json")
    assert done.exit_code == 0, done.stderr
    dataset = load_dataset(load_task(folder))
    features = load_features(dataset, parse_choice(f"tiny+{name}"))
    plain, *folds = (rows[:, 0] for rows in (features.labelled, *features.by_fold))
    width = plain.shape[1] // 2
    for seen in folds:
        # The other backbone has one network for all.
        assert np.array_equal(seen[:, :width], plain[:, :width], equal_nan=True)
        assert not np.allclose(seen[:, width:], seen[:, :width])
        assert not np.allclose(seen[:, width:], plain[:, width:])
    # Nothing was trained of a frozen backbone.
    recipe.write_text('[model]\nbackbone = "tiny"\nunfreeze = "none"\nweights = "random"\n')
    recipe.rename(folder / "frozen.toml")
    done = finetune(
        folder,
        "--fold",
        "all",
        "--full",
        "--set",
        "schedule.epochs=1",
        recipe=str(folder / "frozen.toml"),
    )
    assert done.exit_code == 0, done.stderr
    fault(run("embed", folder, "--backbone", "tuned:frozen+schedule.epochs=1"), "use tiny itself")
