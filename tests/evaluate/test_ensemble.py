"""Stored ensembles, the list of systems, and thresholds that are shown, chosen again or fixed."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from archiveprobe.evaluate import choose_threshold, ensemble
from archiveprobe.evaluate.choose_threshold import report_threshold
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.ensemble import (
    common_record,
    decided,
    origin,
    run_ensemble,
)
from archiveprobe.evaluate.system import assemble
from archiveprobe.evaluate.system_names import runs_folder, systems
from archiveprobe.evaluate.system_status import load_systems, overview
from archiveprobe.evaluate.system_store import load_run, save_run
from archiveprobe.evaluate.thresholding import BY_HAND, THRESHOLD_RULES, decide, nested, numbered


@pytest.fixture
def dataset(draw_dataset, monkeypatch) -> Dataset:
    """A dataset that is what every function finds for its task."""
    drawn = draw_dataset(n=90)
    for module in (ensemble, choose_threshold):
        monkeypatch.setattr(module, "load_dataset", lambda _, **__: drawn)
    monkeypatch.setattr("archiveprobe.evaluate.system_status.survey_dataset", lambda _: drawn)
    return drawn


@pytest.fixture
def store(draw_logits) -> Callable[..., None]:
    def store(dataset: Dataset, name: str, seed: int = 0, kind: str = "probe") -> None:
        """A system on disk, as probe and finetune write them."""
        logits, unlabelled = draw_logits(dataset, 1.5, seed)
        logits[:, 4] = np.nan
        record = {
            **common_record(dataset, name, "smoothed", 0),
            "kind": kind,
            "features": "a",
            "complexity": seed,
            "seconds": 0.5,
        }
        done = assemble(dataset, logits, unlabelled, origin(record))
        save_run(dataset.task, name, record | decided(done), done.predictions, {"w": np.ones(2)})

    return store


def test_an_ensemble_is_kept_with_its_members(dataset, store) -> None:
    store(dataset, "one")
    store(dataset, "two", 1)
    board = run_ensemble(dataset.task, "greedy")
    assert {line.system for line in board.lines} == {"one", "two", "greedy"}
    run = load_run(dataset.task, "greedy")
    assert run.record["kind"] == "ensemble" and run.record["method"] == "greedy"
    digests = {name: load_run(dataset.task, name).predictions().digest for name in ("one", "two")}
    assert {one["system"]: one["predictions"] for one in run.record["members"]} == digests
    assert sum(one["weight"] for one in run.record["members"]) == pytest.approx(1)
    assert run.record["threshold"] == run.predictions().threshold
    assert {"method", "parameters"} == set(run.record["calibration"])
    board = run_ensemble(dataset.task, "vote", ties="positive")
    assert board.selection is not None
    record = load_run(dataset.task, "vote").record
    assert {one["system"] for one in record["members"]} == {"one", "two"}
    assert record["threshold"] is None and record["ties"] == "positive"
    # One that is damaged may be made again.
    (runs_folder(dataset.task) / "vote" / "run.json").write_text("{}")
    run_ensemble(dataset.task, "vote", ("one", "two"))
    assert load_run(dataset.task, "vote").record["kind"] == "ensemble"


def test_an_ensemble_that_loses_members_says_so(dataset, store) -> None:
    for seed, name in enumerate(("one", "two", "three")):
        store(dataset, name, seed)
    run_ensemble(dataset.task, "greedy")
    said = run_ensemble(dataset.task, "greedy", ("one", "two")).warnings[0]
    assert said.startswith("greedy: 2 members now, 3 before, without three; `archiveprobe ensemble")
    again = ["--method greedy --name greedy", *(f"--system {name}" for name in ("one", "three"))]
    assert all(words in said for words in again)
    assert not any("before" in said for said in run_ensemble(dataset.task, "greedy").warnings)


def test_an_ensemble_never_replaces_a_probe(dataset, store, fault_of) -> None:
    store(dataset, "one")
    store(dataset, "two", 1)
    store(dataset, "three", 2)
    task = dataset.task
    pair = ("one", "two")
    fault_of(lambda: run_ensemble(task, "mean", pair, name="one"), "'one' is one of the members")
    fault_of(lambda: run_ensemble(task, "mean", pair, name="three"), "'probe'", "another name")
    run_ensemble(task, "mean")
    fault_of(lambda: run_ensemble(task, "mean", ("mean", "one")), "'mean' is one of the members")
    assert load_run(task, "one").record["kind"] == "probe"


def test_the_list_names_what_is_damaged_or_out_of_date(dataset, store, monkeypatch) -> None:
    for seed, name in enumerate(("bad", "good", "old")):
        store(dataset, name, seed)
    file = runs_folder(dataset.task) / "bad" / "run.json"
    file.write_text(file.read_text() + " ")
    old = load_run(dataset.task, "old")
    changed = {**old.record["snapshot"], "labels": "other", "folds": "other"}
    save_run(dataset.task, "old", {**old.record, "snapshot": changed}, old.predictions())
    bad, good, stale = overview(dataset.task)
    assert "run that system again" in bad.state
    assert (good.state, good.kind, good.features) == ("ok", "probe", "a")
    assert good.threshold == load_run(dataset.task, "good").predictions().threshold
    assert stale.state == "out of date: labels, folds"


def test_systems_out_of_date_are_left_out_or_refused(dataset, store, fault_of) -> None:
    fault_of(lambda: load_systems(dataset), "no systems", "archiveprobe probe")
    store(dataset, "one")
    store(dataset, "two", 1)
    changed = replace(dataset, labels=1 - dataset.labels)
    fault_of(lambda: load_systems(changed), "one is out of date (labels changed since), two is out")
    fault_of(
        lambda: load_systems(changed, ["one"]), "one is out of date (labels changed since): run `"
    )
    store(changed, "three", 2)
    assert [one.system for one in load_systems(changed)] == ["three"]
    fault_of(lambda: load_systems(dataset, ["tow"]), "'two'")


def test_a_threshold_is_shown_as_it_is_stored(dataset, store) -> None:
    store(dataset, "one")
    before = load_run(dataset.task, "one").predictions()
    report = report_threshold(dataset.task, "one")
    assert report.threshold.value == before.threshold and report.threshold.method == "smoothed"
    assert report.threshold.low < before.threshold < report.threshold.high
    assert report.interval[0] < report.macro_f1 < report.interval[1]
    assert load_run(dataset.task, "one").predictions().digest == before.digest
    record = report.record()
    best = max(record["curve"], key=lambda step: step["macro_f1"])
    assert best["macro_f1"] >= report.optimistic - 0.05
    shown = [line for line in report.lines() if line[""]]
    assert [line["threshold"] for line in shown] == [f"{before.threshold:.3f}"]


@pytest.mark.parametrize("method", THRESHOLD_RULES)
def test_a_threshold_is_chosen_again(dataset, store, draw_logits, method) -> None:
    store(dataset, "one")
    report = report_threshold(dataset.task, "one", rule=method)
    run = load_run(dataset.task, "one")
    one = run.predictions()
    logits, unlabelled = draw_logits(dataset)
    logits[:, 4] = np.nan
    again = assemble(dataset, logits, unlabelled, {}, method=method).predictions
    np.testing.assert_allclose(one.thresholds, again.thresholds, atol=1e-9)
    np.testing.assert_allclose(one.threshold, again.threshold, atol=1e-9)
    assert np.array_equal(one.decision, again.decision)
    assert one.threshold == run.record["threshold"] == report.threshold.value
    assert run.record["threshold_rule"] == one.origin["threshold_rule"] == method
    assert run.arrays()["w"].tolist() == [1, 1]


def test_a_system_without_its_calibrations_has_its_threshold_on_its_probabilities(
    dataset, store
) -> None:
    store(dataset, "one")
    run = load_run(dataset.task, "one")
    one = run.predictions()
    bare = {name: value for name, value in one.origin.items() if name != "calibration"}
    save_run(dataset.task, "one", run.record, replace(one, origin=bare))
    report_threshold(dataset.task, "one", rule="exact")
    expected = nested(one.labels, one.oof[..., 1], one.fold, one.groups, 1, "exact").thresholds
    assert np.array_equal(load_run(dataset.task, "one").predictions().thresholds, expected)


@pytest.mark.parametrize("wrong", [[], [[1.0]], "none", [[[1.0, 0.0]] * 5] * 7])
def test_foreign_calibrations_are_refused_in_one_line(dataset, store, fault_of, wrong) -> None:
    store(dataset, "one")
    run = load_run(dataset.task, "one")
    one = run.predictions()
    hurt = replace(one, origin={**one.origin, "calibration": wrong})
    save_run(dataset.task, "one", run.record, hurt)
    fault_of(lambda: report_threshold(dataset.task, "one"), "damaged", "run that system again")


@pytest.mark.filterwarnings("error")
def test_a_threshold_fixed_by_hand_decides_every_row(dataset, store) -> None:
    store(dataset, "one")
    report = report_threshold(dataset.task, "one", rule="fixed 0.3")
    one = load_run(dataset.task, "one").predictions()
    assert (
        report.threshold.method == BY_HAND
        and one.threshold == 0.3
        and (one.thresholds == 0.3).all()
    )
    expected = decide(one.oof[..., 1], 0.3)
    assert np.array_equal(one.decision, np.where(expected < 0, dataset.unreadable, expected))
    again = report_threshold(dataset.task, "one")
    assert (again.threshold.value, again.threshold.low) == (0.3, 0.3)


def test_impossible_thresholds_are_refused(dataset, store, fault_of, monkeypatch) -> None:
    store(dataset, "one")
    store(dataset, "two", 1)
    for value in (0.0, 1.0, float("nan")):
        fault_of(lambda v=value: numbered(BY_HAND, v), "between 0 and 1")
    run_ensemble(dataset.task, "vote")
    fault_of(lambda: report_threshold(dataset.task, "vote"), "vote has no threshold", "one, two")
    fault_of(lambda: report_threshold(dataset.task, "tree"), "no system 'tree'")
    assert systems(dataset.task) == ["one", "two", "vote"]
