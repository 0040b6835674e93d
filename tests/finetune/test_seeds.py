"""Rows that chose the epoch, learned; several seeds, averaged or mixed; BatchNorms after mixing."""

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

import archiveprobe.finetune.fits as fits
from archiveprobe.base.errors import InputError
from archiveprobe.embed.tuned import read_weights
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.finetune.forward import ForwardPasses
from archiveprobe.finetune.inference import average, load_tuned_system
from archiveprobe.finetune.mixing import greedy_soup, mean_of, update_batch_norms
from archiveprobe.finetune.recipe_file import changed, load_recipe
from archiveprobe.finetune.recipe_run import Options, RecipeRun
from archiveprobe.finetune.train import Stop
from archiveprobe.task.config import load_task

Command = Callable[..., Result]
RESNET = ("--set", "model.backbone=timm:test_resnet")
TWO = ("--set", "seeds.count=2")
SOUP = (*TWO, "--set", "seeds.combine=soup")


class Fitted:
    """What every call of `train` was given, and what it kept."""

    def __init__(self, patch: pytest.MonkeyPatch, fail_at: int | None = None) -> None:
        self.calls: list[tuple[Any, Stop | None, Any, int]] = []
        real = fits.train

        def train(network: Any, data: Any, recipe: Any, **how: Any) -> Any:
            if len(self.calls) == fail_at:
                raise InputError("the power failed: try again")
            done = real(network, data, recipe, **how)
            self.calls.append((data.part, how["stop"], done, recipe.seed))
            return done

        patch.setattr(fits, "train", train)

    @property
    def names(self) -> list[str]:
        return [part.name for part, *_ in self.calls]


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> Fitted:
    return Fitted(monkeypatch)


def record_of(folder: Path, system: str, part: str) -> Any:
    file = folder / "work/finetune" / system / part / "part.json"
    return json.loads(file.read_text())


LEARNED = ("--set", "rows.selection=learned")
NAME = "quick+rows.selection=learned"


@pytest.mark.proves("leaks")
def test_rows_that_chose_the_epoch_are_learned_for_as_many_epochs(
    archive: Path, finetune: Command, fitted: Fitted
) -> None:
    done = finetune(archive, "--fold", "all", "--full", *LEARNED)
    assert done.exit_code == 0, done.stderr
    dataset = load_dataset(load_task(archive))
    folds = [(f"fold-{fold}/selection", f"fold-{fold}") for fold in range(3)]
    assert fitted.names == [*(name for pair in folds for name in pair), "full"]
    for fold in range(3):
        first, again = fitted.calls[2 * fold : 2 * fold + 2]
        outside = set(np.flatnonzero(dataset.fold[0] != fold).tolist())
        assert len(first[0].validation) and {*first[0].train, *first[0].validation} == outside
        assert set(again[0].train.tolist()) == outside and not len(again[0].validation)
        assert again[1] == Stop(first[2].epoch, None) and again[2].epoch == first[2].epoch
        record = record_of(archive, NAME, f"fold-{fold}")
        assert [each["macro_f1"] is not None for each in record["selection"]] == [True, True]
        assert not (archive / "work/finetune" / NAME / f"fold-{fold}/selection").exists()
    # Every labelled row has an answer by a network that has not seen it.
    found = load_run(load_task(archive), NAME).predictions()
    assert np.isfinite(found.oof).all()
    assert "also on the 5 rows that chose it" in done.stderr
    # A second time there is nothing to do.
    count = len(fitted.calls)
    assert finetune(archive, "--fold", "all", *LEARNED).exit_code == 0
    assert len(fitted.calls) == count


@pytest.mark.proves("leaks")
def test_labels_of_the_reported_fold_change_nothing_that_is_learned(
    archive: Path, tmp_path: Path
) -> None:
    def digest(folder: Path, planted: int | None) -> str:
        shutil.copytree(archive, folder)
        dataset = load_dataset(load_task(folder))
        if planted is not None:
            other = np.where(dataset.fold[0] == planted, 1 - dataset.labels, dataset.labels)
            dataset = replace(dataset, labels=other)
        recipe = changed(
            load_recipe(str(folder / "quick.toml")),
            {"rows.selection": "learned", "seeds.count": 2, "seeds.combine": "soup"},
        )
        with RecipeRun(dataset, recipe, Options("quick", device="cpu", workers=0)) as running:
            return str(running.part("fold-0").digest)

    plain = digest(tmp_path / "plain", None)
    assert digest(tmp_path / "planted", 0) == plain
    assert digest(tmp_path / "elsewhere", 1) != plain


@pytest.mark.proves("killed")
def test_a_second_training_goes_on_from_the_epoch_that_was_chosen(
    archive: Path, finetune: Command, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    shutil.copytree(archive, whole)
    assert finetune(whole, "--fold", "0", *LEARNED).exit_code == 0
    with pytest.MonkeyPatch.context() as patch:
        Fitted(patch, fail_at=1)
        assert finetune(archive, "--fold", "0", *LEARNED).exit_code == 1
    with pytest.MonkeyPatch.context() as patch:
        later = Fitted(patch)
        done = finetune(archive, "--fold", "0", *LEARNED)
    assert "fold-0/selection: trained before" in done.stderr and later.names == ["fold-0"]
    one, other = (record_of(folder, NAME, "fold-0") for folder in (archive, whole))
    assert one["digests"] == other["digests"]


def test_without_a_flag_no_figure_is_left(archive: Path, finetune: Command) -> None:
    done = finetune(archive, *LEARNED, "--json")
    record = json.loads(done.stdout)
    assert record["parts"][0]["macro_f1"] is None
    assert "every labelled row is trained on" in record["notes"][-1]
    assert (archive / "work/finetune" / NAME / "split/answers.csv").exists()


@pytest.mark.proves("killed")
def test_seeds_are_averaged_and_each_goes_on_by_itself(
    archive: Path, finetune: Command, run: Command, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        first = Fitted(patch, fail_at=1)
        assert finetune(archive, "--fold", "all", *TWO).exit_code == 1
    with pytest.MonkeyPatch.context() as patch:
        later = Fitted(patch)
        done = finetune(archive, "--fold", "all", "--full", *TWO)
    assert done.exit_code == 0, done.stderr
    names = [
        f"{part}/seed-{seed}" for part in ("fold-0", "fold-1", "fold-2", "full") for seed in (0, 1)
    ]
    assert first.names + later.names == names
    # All choose on the same rows; what they draw differs.
    (one, _, left, a), (other, _, right, b) = later.calls[1:3]
    assert (a, b) == (0, 1) and np.array_equal(one.validation, other.validation)
    assert [each.loss for each in left.history] != [each.loss for each in right.history]
    system, task = "quick+seeds.count=2", load_task(archive)
    stored = load_run(task, system)
    networks = stored.record["networks"]
    assert [(each["part"], each["seed"]) for each in networks] == [("full", 0), ("full", 1)]
    assert len(stored.record["folds"]) == 6
    place = archive / "work/finetune" / system
    logits = [np.load(next((place / f"full/seed-{seed}").glob("logits-*.npy"))) for seed in (0, 1)]
    mean = average(average(np.stack(logits), 0)[36:], 1)
    np.testing.assert_allclose(stored.arrays()["logits"], mean)
    # New images are answered by both.
    out = tmp_path / "answers.csv"
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(archive / "40.png", images)
    done = run("predict", archive, "--system", system, "--images", images, "-o", out)
    assert done.exit_code == 0, done.stderr
    assert len(load_tuned_system(task, stored.record).states) == 2
    with out.open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    expected = stored.predictions().test[stored.predictions().test_ids.tolist().index("40"), 1]
    assert float(row["p_down"]) == pytest.approx(expected, abs=1e-4)
    # Their embeddings lie in two spaces.
    done = run("embed", archive, "--backbone", f"tuned:{system}")
    assert done.exit_code == 1 and 'seeds.combine = "soup"' in done.stderr
    with pytest.MonkeyPatch.context() as patch:
        again = Fitted(patch)
        assert finetune(archive, "--fold", "all", "--full", *TWO).exit_code == 0
    assert not again.calls


def test_a_soup_is_one_network_with_statistics_of_its_own(
    archive: Path, finetune: Command, run: Command
) -> None:
    done = finetune(archive, "--fold", "all", "--full", *RESNET, *SOUP)
    assert done.exit_code == 0, done.stderr
    assert "fold-0: mean of the weights of 2 of 2 seeds" in done.stderr
    system = "quick+model.backbone=timm-test_resnet+seeds.combine=soup+seeds.count=2"
    record = record_of(archive, system, "fold-1")
    assert [(each["seed"], each["used"]) for each in record["seeds"]] == [(0, True), (1, True)]
    place = archive / "work/finetune" / system / "fold-1"
    assert not list(place.glob("seed-*"))
    stored = load_run(load_task(archive), system)
    assert [each["part"] for each in stored.record["networks"]] == ["full"]
    # The statistics were counted again, over the batches of the rows that it has learned.
    state = read_weights(place / "weights.safetensors", record["digests"]["weights.safetensors"])
    counts = {int(value) for name, value in state.items() if "num_batches" in name}
    assert counts == {1}
    assert run("embed", archive, "--backbone", f"tuned:{system}", "--workers", "0").exit_code == 0
    assert run("probe", archive, "--features", f"tuned:{system}", "--probe", "ridge").exit_code == 0


def test_batch_norms_of_a_mean_of_weights_are_counted_again(noise: Any, network_for: Any) -> None:
    recipe = changed(load_recipe("demo-tiny"), {"model.backbone": "own", "model.size": None})
    network = network_for(recipe, "test_resnet")
    data = noise(16)
    rows = data.part.train
    update_batch_norms(network, data.inputs, rows, 0, ForwardPasses())
    images = data.inputs.pixels[rows]
    with torch.inference_mode():
        expected = network(images)
    state = network.state(whole=False)
    # BatchNorm makes a convolution nine times as strong the same function, with statistics of its
    # own; so is the mean of the two, but not with the mean of their statistics.
    stronger = {}
    for name, tensor in state.items():
        factor = 9.0 if tensor.ndim == 4 else 1.0
        factor = 9.0 if name.endswith("running_mean") else factor
        stronger[name] = tensor * (81.0 if name.endswith("running_var") else factor)
    stronger = {name: stronger[name].to(tensor.dtype) for name, tensor in state.items()}
    network.load_state(stronger)
    with torch.inference_mode():
        assert torch.allclose(network(images), expected, atol=1e-3)
    network.load_state(mean_of([state, stronger]))
    with torch.inference_mode():
        assert not torch.allclose(network(images), expected, atol=1e-2)
    before = torch.get_rng_state()
    update_batch_norms(network, data.inputs, rows, 0, ForwardPasses())
    assert torch.equal(torch.get_rng_state(), before)
    assert not network.module.training
    with torch.inference_mode():
        assert torch.allclose(network(images), expected, atol=1e-3)


def test_frozen_batch_norms_keep_their_statistics(noise: Any, network_for: Any) -> None:
    recipe = changed(
        load_recipe("demo-tiny"),
        {"model.backbone": "own", "model.size": None, "model.unfreeze": "none"},
    )
    network = network_for(recipe, "test_resnet")
    before = network.state()
    update_batch_norms(network, noise(16).inputs, np.arange(16), 0, ForwardPasses())
    after = network.state()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_wise_ft_counts_statistics_again_between_the_ends(archive: Path, finetune: Command) -> None:
    found = {}
    for alphas in ("[0.5]", "[1.0]"):
        mixing = ("--set", f"interpolate.alphas={alphas}", "--set", "optimizer.batch_size=4")
        done = finetune(archive, "--fold", "0", *RESNET, *mixing)
        assert done.exit_code == 0, done.stderr
        (part,) = (archive / "work/finetune").glob(f"*{alphas[1:-1]}*/fold-0/part.json")
        digest = json.loads(part.read_text())["digests"]["weights.safetensors"]
        state = read_weights(part.parent / "weights.safetensors", digest)
        found[alphas] = {int(value) for name, value in state.items() if "num_batches" in name}
    # One batch of all rows, against the steps of training.
    assert found["[0.5]"] == {1} and min(found["[1.0]"]) >= 5


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({(0,): 0.5, (1,): 0.7, (2,): 0.6, (1, 2): 0.7, (1, 2, 0): 0.6}, [1, 2]),
        ({(0,): 0.5, (1,): 0.4, (0, 1): 0.4}, [0]),
        ({(0,): float("nan"), (1,): 0.1, (1, 0): float("nan")}, [1]),
    ],
)
def test_a_greedy_soup_takes_what_scores_no_worse(
    scores: dict[tuple[int, ...], float], expected: list[int]
) -> None:
    count = 1 + max(max(key) for key in scores)

    def score(states: Sequence[Any]) -> float:
        return scores[tuple(state["number"] for state in states)]

    assert greedy_soup([{"number": number} for number in range(count)], score) == expected


def test_a_greedy_soup_is_chosen_on_rows_that_select(archive: Path, finetune: Command) -> None:
    words = (*TWO, "--set", "seeds.combine=greedy-soup")
    done = finetune(archive, "--fold", "all", "--full", *words)
    assert done.exit_code == 0, done.stderr
    assert "full: mean of the weights of 2 of 2 seeds" in done.stderr
    system = "quick+seeds.combine=greedy-soup+seeds.count=2"
    used = [each["used"] for each in record_of(archive, system, "fold-0")["seeds"]]
    assert len(used) == 2 and any(used)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rows.selection": "learned", "schedule.monitor": "none"}, "no row chooses anything"),
        ({"seeds.combine": "soup"}, "set seeds.count"),
        (
            {"seeds.combine": "greedy-soup", "seeds.count": 2, "rows.selection": "learned"},
            "rows that were not trained on",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    archive: Path, settings: dict[str, Any], words: str, fault_of: Callable[..., str]
) -> None:
    recipe = load_recipe(str(archive / "quick.toml"))
    fault_of(lambda: changed(recipe, settings), words)


def test_parts_of_earlier_versions_are_known_again(tuned: Path) -> None:
    settings = record_of(tuned, "quick", "fold-0")["settings"]["recipe"]
    assert "seeds" not in settings and "selection" not in settings["rows"]
