"""Stored systems answer as they did when they were fitted, or say why they cannot."""

import json
import shutil

import numpy as np
import pytest
from snapshots import seal_anything

from archiveprobe.evaluate.choose_threshold import report_threshold
from archiveprobe.evaluate.combine import METHODS, own_answers
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.ensemble import run_ensemble
from archiveprobe.evaluate.system_names import systems
from archiveprobe.evaluate.system_store import load_run, save_run
from archiveprobe.predict.checks import is_memorized
from archiveprobe.predict.systems import AGREEMENT, load_system
from archiveprobe.probe.run import Options, run_probes

TWO, THREE = ("intact", "destroyed"), ("intact", "damaged", "destroyed")


@pytest.mark.parametrize("labels", [TWO, THREE], ids=len)
def test_every_system_reproduces_its_stored_probabilities(fitted, labels) -> None:
    dataset = load_dataset(fitted(labels=labels).task)
    names = systems(dataset.task)
    assert set(METHODS) < set(names)
    for name in names:
        system = load_system(dataset, name)
        found = system.answer(dataset.unlabelled)
        assert np.abs(found.proba - system.stored.test).max() <= AGREEMENT, name
        # Each by itself, and in another order.
        back = dataset.unlabelled.select(range(len(dataset.unlabelled))[::-1])
        assert np.array_equal(system.answer(back).decision[::-1], found.decision), name


@pytest.mark.parametrize("views", ["mean", "rows", "logits"])
def test_every_way_with_views(draw, views) -> None:
    archive = draw(known=45, test=9)
    run_probes(archive.task, Options(probes=("logistic",), features=(f"hog:{views}",), workers=1))
    dataset = load_dataset(archive.task)
    (name,) = systems(archive.task)
    system = load_system(dataset, name)
    answers = system.answer(dataset.unlabelled)
    assert np.abs(answers.proba - system.stored.test).max() <= AGREEMENT


@pytest.mark.parametrize("probe", ["knn", "svm", "lightgbm"])
def test_probes_that_are_not_linear(draw, probe) -> None:
    archive = draw(known=45, test=9, labels=THREE)
    run_probes(archive.task, Options(probes=(probe,), workers=1))
    dataset = load_dataset(archive.task)
    system = load_system(dataset, f"{probe}-hog")
    answers = system.answer(dataset.unlabelled)
    assert np.abs(answers.proba - system.stored.test).max() <= AGREEMENT


def test_the_threshold_decides(archive) -> None:
    report_threshold(archive.task, "ridge-hog", rule="fixed 0.9")
    dataset = load_dataset(archive.task)
    system = load_system(dataset, "ridge-hog")
    answers = system.answer(dataset.unlabelled)
    known = answers.readable
    expected = np.where(answers.proba[:, 1] > 0.9, 1, 0)
    assert np.array_equal(answers.decision[known], expected[known])
    assert np.array_equal(own_answers(system.stored)[known], expected[known])


def test_unreadable_rows_get_the_unreadable_answer(archive) -> None:
    archive.set('[submission]\nunreadable = "destroyed"\n')
    archive.fit()
    dataset = load_dataset(archive.task)
    for name in systems(archive.task):
        answers = load_system(dataset, name).answer(dataset.unlabelled)
        assert np.flatnonzero(~answers.readable).tolist() == [3, 8]
        assert answers.decision[~answers.readable].tolist() == [1, 1]


def test_nothing_to_answer(archive) -> None:
    dataset = load_dataset(archive.task)
    for name in systems(archive.task):
        answers = load_system(dataset, name).answer(dataset.unlabelled.select([]))
        assert answers.proba.shape == (0, 2)


@pytest.mark.proves("state")
def test_changed_labels_put_a_system_out_of_date(archive, fault_of) -> None:
    archive.truth[0] = "destroyed"
    archive._write_table()
    load = load_dataset(archive.task)
    fault_of(lambda: load_system(load, "ridge-hog"), "out of date", "labels", "probe")


@pytest.mark.proves("state")
def test_changed_folds_put_a_system_out_of_date(archive, fault_of) -> None:
    (archive.task.work / "folds.csv").unlink()
    file = archive.folder / "task.toml"
    file.write_text(file.read_text().replace("repeats = 2", "repeats = 3"))
    fault_of(
        lambda: load_system(load_dataset(archive.task), "mean"),
        "out of date",
        "folds",
        "archiveprobe probe ",
    )


@pytest.mark.proves("state")
def test_a_system_of_another_task(archive, draw, fault_of) -> None:
    other = draw(known=45, test=9, seed=1, labels=THREE)
    other.set("")
    text = (other.folder / "task.toml").read_text().replace('"drawn"', '"elsewhere"')
    (other.folder / "task.toml").write_text(text)
    run_probes(other.task, Options(probes=("lda",), workers=1))
    home = archive.task.work / "runs" / "lda-hog"
    shutil.rmtree(home)
    shutil.copytree(other.task.work / "runs" / "lda-hog", home)
    load = load_dataset(archive.task)
    fault_of(lambda: load_system(load, "lda-hog"), "elsewhere", "drawn", "probe")
    fault_of(lambda: load_system(load, "mean"), "mean", "its member lda-hog", "archiveprobe probe ")


@pytest.mark.proves("state")
def test_a_member_that_was_run_again(archive, fault_of) -> None:
    run_probes(archive.task, Options(probes=("lda",), workers=1, threshold_rule="half"))
    dataset = load_dataset(archive.task)
    fault_of(lambda: load_system(dataset, "greedy"), "its member lda-hog", "--method greedy")
    run_ensemble(archive.task, "greedy", ["lda-hog", "ridge-hog"])
    assert load_system(dataset, "greedy").kind == "ensemble"


def test_a_member_that_is_gone(archive, fault_of) -> None:
    shutil.rmtree(archive.task.work / "runs" / "ridge-hog")
    dataset = load_dataset(archive.task)
    fault_of(
        lambda: load_system(dataset, "vote"), "vote", "its member ridge-hog", "archiveprobe probe"
    )


def test_an_ensemble_of_ensembles(archive) -> None:
    run_ensemble(archive.task, "mean", ["vote", "greedy", "lda-hog"], name="all")
    dataset = load_dataset(archive.task)
    system = load_system(dataset, "all")
    answers = system.answer(dataset.unlabelled)
    known = answers.readable
    assert np.abs(answers.proba - system.stored.test)[known].max() <= AGREEMENT


@pytest.mark.proves("hostile")
@pytest.mark.parametrize("name", ["run", "predictions", "model"])
def test_a_damaged_system(archive, fault_of, name) -> None:
    (file,) = (archive.task.work / "runs" / "ridge-hog").glob(f"{name}*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    load = load_dataset(archive.task)
    fault_of(lambda: load_system(load, "ridge-hog"), file.name, "run that system")


@pytest.mark.parametrize(
    "change",
    [
        {"probe": "oracle"},
        {"classes": ["intact", "damaged", "destroyed"]},
        {"calibration": {"method": "sorcery", "parameters": []}},
        {"kind": "novel"},
        {"sources": {}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_record_of_another_version(archive, fault_of, change) -> None:
    run = load_run(archive.task, "ridge-hog")
    save_run(archive.task, "ridge-hog", {**run.record, **change}, run.predictions(), run.arrays())
    dataset = load_dataset(archive.task)
    fault_of(
        lambda: load_system(dataset, "ridge-hog").answer(dataset.unlabelled),
        "ridge-hog",
        "run that system again",
    )


def test_a_model_that_lacks_its_arrays(archive, fault_of) -> None:
    run = load_run(archive.task, "ridge-hog")
    foreign = {"weights": np.ones(2), "w1": np.ones((2, 2))}
    save_run(archive.task, "ridge-hog", run.record, run.predictions(), foreign)
    fault_of(lambda: load_system(load_dataset(archive.task), "ridge-hog"), "run that system again")


@pytest.mark.parametrize(
    "change",
    [
        lambda coef: coef[:, :-1],
        lambda coef: coef[:, :, :1],
        lambda coef: coef.repeat(2, 2),
        lambda coef: coef[1:],
        lambda coef: coef * np.nan,
    ],
    ids=["width", "one class", "four classes", "candidates", "numbers"],
)
def test_a_model_that_does_not_fit(archive, fault_of, change) -> None:
    run = load_run(archive.task, "ridge-hog")
    arrays = run.arrays()
    arrays["coef"] = np.ascontiguousarray(change(arrays["coef"]))
    save_run(archive.task, "ridge-hog", run.record, run.predictions(), arrays)
    dataset = load_dataset(archive.task)
    fault_of(
        lambda: load_system(dataset, "ridge-hog").answer(dataset.unlabelled),
        "ridge-hog",
        "run that system again",
    )


def test_settings_of_another_version(draw, fault_of) -> None:
    archive = draw(known=45, test=9)
    run_probes(archive.task, Options(probes=("knn",), workers=1))
    run = load_run(archive.task, "knn-hog")
    record = {**run.record, "settings": {"neighbours": 3}}
    save_run(archive.task, "knn-hog", record, run.predictions(), run.arrays())
    dataset = load_dataset(archive.task)
    fault_of(lambda: load_system(dataset, "knn-hog"), "neighbours", "run that system again")


@pytest.mark.parametrize("content", ["[]", "{", "[" * 99999], ids=["list", "torn", "deep"])
def test_a_record_that_is_none(archive, fault_of, content) -> None:
    folder = archive.task.work / "runs" / "ridge-hog"
    seal_anything(folder / "run.json", content)
    load = load_dataset(archive.task)
    fault_of(lambda: load_system(load, "ridge-hog"), "ridge-hog", "run that system again")


def test_a_image_that_one_of_two_backbones_could_not_embed(draw) -> None:
    archive = draw(known=45, test=9)
    archive.add_backbone("resnet18", failed=(4, 50))
    run_probes(archive.task, Options(probes=("ridge",), features=("hog+resnet18",), workers=1))
    dataset = load_dataset(archive.task)
    system = load_system(dataset, "ridge-hog+resnet18")
    answers = system.answer(dataset.unlabelled)
    assert np.flatnonzero(~answers.readable).tolist() == [5]
    assert np.flatnonzero(~system.stored.readable).tolist() == [4]
    assert np.nanmax(np.abs(answers.proba - system.stored.test)) <= AGREEMENT


def test_a_renamed_folder(archive, fault_of) -> None:
    runs = archive.task.work / "runs"
    (runs / "ridge-hog").rename(runs / "mine")
    fault_of(lambda: load_system(load_dataset(archive.task), "mine"), "'ridge-hog'", "that name")


def test_a_lost_cache(archive, fault_of) -> None:
    shutil.rmtree(archive.task.work / "cache")
    dataset = load_dataset(archive.task)
    system = load_system(dataset, "ridge-hog")
    fault_of(lambda: system.answer(dataset.unlabelled), "hog", "embed", "probe")


@pytest.mark.proves("state")
def test_members_from_different_folds(archive, fault_of) -> None:
    run = load_run(archive.task, "lda-hog")
    other = run.predictions()
    turned = json.loads(json.dumps(dict(run.record)))
    shuffled = type(other)(**{**other.__dict__, "fold": other.fold[::-1].copy()})
    save_run(archive.task, "lda-hog", turned, shuffled, run.arrays())
    fault_of(
        lambda: run_ensemble(archive.task, "mean", ["lda-hog", "ridge-hog"]), "different folds"
    )


@pytest.mark.proves("state")
def test_a_system_that_was_trained_on_the_rows_it_is_judged_by(archive) -> None:
    dataset = load_dataset(archive.task)
    run = load_run(archive.task, "ridge-hog")
    system = load_system(dataset, "ridge-hog")
    assert not is_memorized(system, dataset)
    one = run.predictions()
    leaked = np.broadcast_to(system.answer(dataset.labelled).proba, one.oof.shape).copy()
    cheat = type(one)(**{**one.__dict__, "oof": leaked})
    save_run(archive.task, "ridge-hog", run.record, cheat, run.arrays())
    assert is_memorized(load_system(dataset, "ridge-hog"), dataset)


def test_one_choice_of_features_named_in_two_ways_is_fitted_once(draw) -> None:
    archive = draw(known=40, test=4)
    options = Options(probes=("ridge", "lda"), features=("hog", "hog:mean"), workers=1)
    board = run_probes(archive.task, options)
    assert sorted(line.system for line in board.lines) == ["greedy", "lda-hog", "ridge-hog"]
