"""The stage: folds, the system on the leaderboard, final fits, answers; faults as one line."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

import archiveprobe.finetune.loader as loader
import archiveprobe.finetune.run as runner
from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.calibration import Calibration
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.finetune.inference import load_tuned_system
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.recipe_file import changed, load_recipe
from archiveprobe.finetune.recipe_names import RECIPES
from archiveprobe.finetune.recipe_run import RecipeRun
from archiveprobe.finetune.run import Options, run_finetune
from archiveprobe.task.config import load_task
from archiveprobe.task.manifest import read_manifest

Command = Callable[..., Result]


def test_the_system_stands_on_the_leaderboard_beside_the_probe(
    tuned: Path, finetune: Command
) -> None:
    done = finetune(tuned, "--fold", "all", "--json")
    record = json.loads(done.stdout)
    assert [line["part"] for line in record["parts"]] == ["fold-0", "fold-1", "fold-2"]
    assert all(line["rows"] == 12 for line in record["parts"])
    assert "fold-2: trained before" in done.stderr
    names = {line["system"] for line in record["leaderboard"]}
    assert names == {"quick", "ridge-hog"}
    run_ = load_run(load_task(tuned), "quick")
    assert run_.record["kind"] == "finetune"
    found = run_.predictions()
    assert found.oof.shape == (1, 36, 2) and np.isfinite(found.oof).all()
    assert found.oof_views is not None and found.oof_views.shape == (1, 36, 2, 2)
    assert np.isfinite(found.test).all(1).tolist() == [True] * 5 + [False]


def test_a_process_that_draws_beside_the_network_changes_no_bit(
    archive: Path, tuned: Path, run: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "_WORTH_A_PROCESS", 0)
    monkeypatch.setattr(loader, "default_workers", lambda: 2)
    asked = []
    real = loader._start_processes

    def start(rows: Any, sampler: Any, workers: int, *more: Any) -> Any:
        asked.append(workers)
        return real(rows, sampler, workers, *more)

    monkeypatch.setattr(loader, "_start_processes", start)
    words = ("--recipe", archive / "quick.toml", "--fold", "0", "--device", "cpu")
    done = run("finetune", archive, *words)
    assert done.exit_code == 0 and asked == [1], done.stderr
    places = [folder / "work/finetune/quick/fold-0" for folder in (archive, tuned)]
    for name in ("weights.safetensors", "curves.csv"):
        one, other = ((place / name).read_bytes() for place in places)
        assert one == other


def test_an_ensemble_takes_one_repeat_beside_two(tuned: Path, run: Command) -> None:
    done = run("ensemble", tuned, "--method", "greedy", "--name", "both", "--json")
    assert done.exit_code == 0, done.stderr
    names = {line["system"] for line in json.loads(done.stdout)["leaderboard"]}
    assert names >= {"both", "quick", "ridge-hog"}
    assert load_run(load_task(tuned), "both").predictions().oof.shape[0] == 1


def part_of(folder: Path, labels: Callable[[Any], np.ndarray], name: str = "fold-0") -> Any:
    dataset = load_dataset(load_task(folder))
    dataset = replace(dataset, labels=labels(dataset))
    recipe = load_recipe(str(folder / "quick.toml"))
    with RecipeRun(dataset, recipe, Options("quick", device="cpu", workers=0)) as running:
        return running.part(name)


@pytest.mark.proves("leaks")
def test_labels_of_the_reported_fold_change_nothing(archive: Path, tmp_path: Path) -> None:
    other = tmp_path / "planted"
    shutil.copytree(archive, other)

    def planted(fold: int) -> Callable[[Any], np.ndarray]:
        return lambda dataset: np.where(dataset.fold[0] == fold, 1 - dataset.labels, dataset.labels)

    plain = part_of(archive, lambda dataset: dataset.labels)
    moved = part_of(other, planted(0))
    for name in ("epoch", "history"):
        assert getattr(moved.record, name) == getattr(plain.record, name)
    assert moved.digest == plain.digest
    assert np.array_equal(moved.logits, plain.logits, equal_nan=True)
    # The same labels do change what a fold learns that has them to learn from.
    assert (
        part_of(other, planted(0), "fold-1").digest
        != part_of(archive, lambda dataset: dataset.labels, "fold-1").digest
    )


def test_a_final_fit_takes_the_folds_epochs_and_answers(
    tuned: Path, tmp_path: Path, finetune: Command
) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(tuned, folder)
    before = load_run(load_task(folder), "quick")
    done = finetune(folder, "--full", "--json")
    assert done.exit_code == 0, done.stderr
    (part,) = json.loads(done.stdout)["parts"]
    epochs = sorted(each["epoch"] for each in before.record["networks"])
    assert (part["part"], part["epochs"], part["macro_f1"]) == ("full", epochs[1], None)
    after = load_run(load_task(folder), "quick")
    assert [each["part"] for each in after.record["networks"]] == ["full"]
    assert np.array_equal(after.predictions().oof, before.predictions().oof)
    assert not np.array_equal(after.predictions().test, before.predictions().test, equal_nan=True)
    # The folds alone do not take the answers back. People see both tables.
    done = finetune(folder, "--fold", "all")
    assert done.stdout.startswith("part")
    assert "recommended: " in done.stdout
    assert len(load_run(load_task(folder), "quick").record["networks"]) == 1


def test_a_stored_system_answers_images_as_it_did(tuned: Path) -> None:
    task = load_task(tuned)
    run_ = load_run(task, "quick")
    loaded = load_tuned_system(task, run_.record)
    known = {entry.id: entry for entry in read_manifest(task)}
    stored = run_.predictions()
    entries = [known[id_] for id_ in stored.test_ids.tolist()]
    files = [(each.path, each.digest if each.usable else "") for each in entries]
    logits, vote = loaded.logits(task.root, files, task.work / "finetune", device="cpu")
    assert vote is None
    proba = Calibration(**run_.record["calibration"]).apply(logits)
    np.testing.assert_allclose(proba, stored.test, atol=1e-6)


@pytest.mark.proves("damage")
def test_changed_weights_of_a_system_are_refused(tuned: Path, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(tuned, folder)
    file = folder / "work/finetune/quick/fold-1/weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    task = load_task(folder)
    loaded = load_tuned_system(task, load_run(task, "quick").record)
    with pytest.raises(InputError, match=r"weights\.safetensors has changed"):
        loaded.logits(task.root, [], task.work, device="cpu")


def test_without_a_flag_validation_selects_and_the_figure_says_so(
    archive: Path, finetune: Command
) -> None:
    done = finetune(archive)
    assert done.exit_code == 0, done.stderr
    assert "the validation rows chose the epoch" in done.stderr
    assert "split: epoch" in done.stderr and "of 2 is kept" in done.stderr
    file = archive / "work/finetune/quick/split/answers.csv"
    assert f"wrote {file}" in done.stderr
    words = f"archiveprobe submit {archive / 'task.toml'} --answers {file} -o submission.csv"
    assert words in done.stderr
    lines = file.read_text().splitlines()
    assert lines[0] == "id,label,p_across,p_down" and len(lines) == 7
    assert lines[-1].endswith(",,")
    assert not (archive / "work/runs/quick").exists()


def test_cached_tokens_serve_a_last_block(archive: Path, finetune: Command) -> None:
    text = '[model]\nbackbone = "tiny"\nunfreeze = "last-block"\n[schedule]\nepochs = 2\n'
    draws = "[augment]\nrotation = 10.0\njitter = [0.2, 0.2, 0.2, 0.1]\n"
    (archive / "block.toml").write_text(text + draws)
    done = finetune(archive, "--fold", "all", "--from-cache", recipe=str(archive / "block.toml"))
    assert done.exit_code == 0, done.stderr
    task = load_task(archive)
    run_ = load_run(task, "block@cache")
    # The same weights answer pixels, end to end.
    known = {entry.id: entry for entry in read_manifest(task)}
    stored = run_.predictions()
    entry = known[str(stored.test_ids[0])]
    loaded = load_tuned_system(task, run_.record)
    files = [(entry.path, entry.digest)]
    logits, _ = loaded.logits(task.root, files, task.work, device="cpu")
    proba = Calibration(**run_.record["calibration"]).apply(logits)
    # Tokens are stored in half precision.
    np.testing.assert_allclose(proba[0], stored.test[0], atol=2e-3)


def test_a_recipes_own_threshold_is_applied_as_it_is_and_recorded_as_fixed(
    archive: Path, finetune: Command, run: Command
) -> None:
    recipe = archive / "own.toml"
    recipe.write_text(
        (archive / "quick.toml").read_text() + "threshold = 0.51\ncalibrate = false\n"
    )
    done = finetune(archive, "--fold", "all", recipe=str(recipe))
    assert done.exit_code == 0, done.stderr
    stored = load_run(load_task(archive), "own")
    assert (stored.record["threshold"], stored.record["threshold_rule"]) == (0.51, "fixed 0.51")
    found = stored.predictions()
    assert (found.thresholds == 0.51).all()
    assert np.array_equal(found.decision, (found.oof[..., 1] > 0.51).astype(int))
    shown = run("threshold", archive, "--system", "own")
    assert shown.exit_code == 0 and "threshold 0.510 (fixed)" in shown.stdout
    # One that a person chose outlives the recipe's.
    run("threshold", archive, "--system", "own", "--set", "0.6")
    done = finetune(archive, "--fold", "all", recipe=str(recipe))
    assert "own: threshold 0.6, set by hand, kept; `archiveprobe threshold " in done.stderr
    again = load_run(load_task(archive), "own")
    assert again.record["threshold"] == 0.6 and (again.predictions().thresholds == 0.6).all()
    assert "0.600 fixed" in done.stdout
    # A part alone answers with it too.
    recipe.write_text(recipe.read_text().replace("0.51", "0.999"))
    shutil.rmtree(archive / "work/finetune/own")
    assert finetune(archive, recipe=str(recipe)).exit_code == 0
    lines = (archive / "work/finetune/own/split/answers.csv").read_text().splitlines()[1:]
    assert {line.split(",")[1] for line in lines} == {"across"}


@pytest.mark.proves("training")
def test_a_threshold_among_three_labels_is_refused_before_any_training(
    archive: Path, finetune: Command
) -> None:
    text = (archive / "quick.toml").read_text() + "threshold = 0.51\ncalibrate = false\n"
    (archive / "own.toml").write_text(text)
    task = archive / "task.toml"
    task.write_text(task.read_text().replace('["across", "down"]', '["across", "down", "none"]'))
    table = archive / "rows.csv"
    table.write_text(re.sub(r"^(\d+[05],.*),across,", r"\1,none,", table.read_text(), flags=re.M))
    done = finetune(archive, "--fold", "all", recipe=str(archive / "own.toml"))
    assert done.exit_code == 1 and not (archive / "work/finetune").exists()
    assert "predict.threshold of recipe own decides between two labels" in done.stderr
    assert "add --set predict.threshold=none" in done.stderr
    recipe = str(archive / "own.toml")
    done = finetune(archive, "--fold", "0", "--set", "predict.threshold=none", recipe=recipe)
    assert "decides between two labels" not in done.stderr


def small(recipe: Recipe) -> Recipe:
    """The recipe for one epoch on a network of toy size."""
    whole = recipe.model.unfreeze == "all" and recipe.model.head_init == "random"
    size = {"model.size": 32} if whole else {"model.size": None}
    return changed(
        recipe,
        {
            "model.backbone": "timm:test_convnext2" if whole else "tiny",
            "model.weights": "random" if whole else "pretrained",
            "schedule.epochs": 1,
            "schedule.warmup": 0.0,
            **size,
        },
    )


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_an_epoch(
    name: str, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "load_recipe", lambda name: small(load_recipe(name)))
    options = Options(name, device="cpu", workers=0)
    done = run_finetune(load_task(archive), options)
    (line,) = done.parts
    assert line.epochs == 1 and np.isfinite(line.loss)
    assert done.answers is not None
    unreadable = done.answers.read_text().splitlines()[-1]
    blank = load_recipe(name).rows.unreadable == "blank"
    assert unreadable.endswith(",,") is not blank


def test_a_final_fit_that_cannot_follow_is_refused_before_any_training(
    archive: Path, finetune: Command
) -> None:
    done = finetune(archive, "--fold", "0", "--full")
    assert done.exit_code == 1
    assert "1 of 3 folds of quick are trained" in done.stderr
    assert not list((archive / "work/finetune/quick").glob("fold-*"))


FAULTS = [
    (["--fold", "7"], "no fold '7'", "use all, or one of 0 to 2"),
    (["--full"], "0 of 3 folds of quick are trained", "--fold all first"),
    (["--device", "gpu"], "unknown device 'gpu'", "use cpu, cuda"),
    (["--from-cache"], "cannot be tuned from cached tokens", "leave out --from-cache"),
    (["--recipe", "demo-tyni"], "unknown recipe 'demo-tyni'", "did you mean 'demo-tiny'"),
]


@pytest.mark.parametrize(("words", "what", "remedy"), FAULTS, ids=lambda value: str(value)[:20])
def test_a_fault_is_one_line(
    archive: Path, words: list[str], what: str, remedy: str, finetune: Command
) -> None:
    done = finetune(archive, *words)
    assert done.exit_code == 1 and not done.stdout
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(told) == 1
    assert what in told[0] and remedy in told[0]
    # A start that failed leaves nothing.
    assert not list((archive / "work").glob("finetune/*"))


@pytest.mark.proves("training")
def test_changed_settings_are_named(tuned: Path, tmp_path: Path, finetune: Command) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(tuned, folder)
    recipe = folder / "quick.toml"
    recipe.write_text(recipe.read_text().replace("epochs = 2", "epochs = 3"))
    done = finetune(folder, "--fold", "0")
    assert done.exit_code == 1
    assert "recipe.schedule.epochs was 2 and is now 3" in done.stderr
    assert "delete that folder" in done.stderr


@pytest.mark.proves("training")
def test_settings_of_the_command_line_make_a_system_of_its_own(
    tuned: Path, tmp_path: Path, finetune: Command, run: Command
) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(tuned, folder)
    before = (folder / "work/runs/quick/run.json").read_bytes()
    words = ("--set", "schedule.epochs=1", "--set", "augment.crop_scale=[0.5, 1]")
    done = finetune(folder, "--fold", "all", *words, "--json")
    assert done.exit_code == 0, done.stderr
    system = "quick+augment.crop_scale=0.5,1.0+schedule.epochs=1"
    record = json.loads(done.stdout)
    assert record["system"] == system
    assert [part["epochs"] for part in record["parts"]] == [1, 1, 1]
    assert {"quick", system} <= {line["system"] for line in record["leaderboard"]}
    # Nothing of the recipe as it stands was touched, and nothing of it was taken for a fold.
    assert (folder / "work/runs/quick/run.json").read_bytes() == before
    stored = load_run(load_task(folder), system).record
    assert stored["recipe"]["schedule"]["epochs"] == 1
    recipe = str(folder / "quick.toml")
    settings = ["augment.crop_scale=[0.5, 1.0]", "schedule.epochs=1"]
    assert stored["launch"] == {"recipe": recipe, "set": settings}
    # The same settings in another order: the same system, which is finished.
    again = finetune(folder, "--fold", "0", *words[2:], *words[:2])
    assert again.exit_code == 0 and "fold-0: trained before" in again.stderr
    # What is out of date names the command that makes it again, file and settings included.
    text = (folder / "task.toml").read_text()
    (folder / "task.toml").write_text(text.replace('"stripes"', '"other"'))
    out_of_date = run("submit", folder, "--system", system, "-o", folder / "answers.csv")
    assert out_of_date.exit_code == 1
    task = str(folder / "task.toml")
    told = ["finetune", task, "--recipe", recipe]
    told += ["--set", settings[0], "--set", settings[1], "--fold", "all"]
    assert f"`archiveprobe {shlex.join(told)}`" in out_of_date.stderr


def test_a_setting_at_fault_is_refused_before_any_training(
    archive: Path, finetune: Command
) -> None:
    done = finetune(archive, "--fold", "all", "--set", "epochs=5")
    assert done.exit_code == 1 and not (archive / "work/finetune").exists()
    assert "unknown key 'epochs' in --set (did you mean 'schedule.epochs'?)" in done.stderr
