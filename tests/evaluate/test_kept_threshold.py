"""Thresholds of stored systems: shown as they are, chosen again to the last bit, and kept."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score
from striped_archive import result_of, striped_archive
from stripes import run

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate import choose_threshold, ensemble
from archiveprobe.evaluate.choose_threshold import report_threshold
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.ensemble import common_record, decided, origin
from archiveprobe.evaluate.kept_rule import rule_for
from archiveprobe.evaluate.leaderboard import leaderboard
from archiveprobe.evaluate.system import assemble
from archiveprobe.evaluate.system_store import load_run, save_run
from archiveprobe.evaluate.thresholding import NUMBERED_RULES, THRESHOLD_RULES

RULES = [*THRESHOLD_RULES, "fixed 0.4", "recall 0.9", "precision 0.7", "cost 5.0"]


@pytest.fixture
def keep(draw_dataset, draw_logits, monkeypatch) -> Callable[..., Dataset]:
    def keep(
        seed: int, skill: float, unreadable: int, rule: str = "smoothed", surest: int | None = None
    ) -> Dataset:
        """A stored system "one" of a dataset whose task finds it, some rows without an image.

        `surest` is a row that it is surest of, whatever its label.
        """
        dataset = draw_dataset(n=90, repeats=3, seed=seed)
        for module in (choose_threshold, ensemble):
            monkeypatch.setattr(module, "load_dataset", lambda _, **__: dataset)
        logits, rest = draw_logits(dataset, skill, seed)
        lost = np.random.default_rng(seed).choice(90, unreadable, replace=False)
        logits[:, lost] = np.nan
        if surest is not None:
            logits[:, surest] = -50, 50
        record = common_record(dataset, "one", rule, 0)
        record |= {"kind": "probe", "features": "a", "complexity": 1, "seconds": 0.5}
        done = assemble(dataset, logits, rest, origin(record), method=rule)
        save_run(dataset.task, "one", record | decided(done), done.predictions)
        return dataset

    return keep


@pytest.mark.parametrize("skill", [0.0, 1.5])
@pytest.mark.parametrize("unreadable", [0, 12])
def test_choosing_the_stored_rule_again_changes_no_bit(keep, skill, unreadable) -> None:
    for seed, rule in enumerate(RULES):
        task = keep(seed, skill, unreadable, rule).task
        before = load_run(task, "one").predictions()
        shown = report_threshold(task, "one")
        assert load_run(task, "one").predictions().digest == before.digest
        assert (shown.rule, shown.threshold.method) == (rule, rule.split()[0])
        assert shown.threshold.value == before.threshold
        try:
            again = report_threshold(task, "one", rule=rule)
        except InputError as error:
            # At chance, or with many rows unreadable, there is no way to store it at all.
            assert rule in str(error)
            continue
        after = load_run(task, "one").predictions()
        for name in ("thresholds", "threshold", "decision", "oof", "test"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name), rule)
        assert again.record() == shown.record()
        assert after.origin["optimistic"] == before.origin["optimistic"]


def test_a_precision_that_is_never_reached_is_said_with_the_best(keep, fault_of) -> None:
    dataset = keep(0, 1.5, 0, surest=int(np.flatnonzero(keep(0, 1.5, 0).labels == 0)[0]))
    before = load_run(dataset.task, "one").predictions().digest
    fault_of(
        lambda: report_threshold(dataset.task, "one", rule="precision 0.999"),
        "precision 0.999 of 'damaged' is reached by no threshold on the labelled rows: 0.",
        "is the most, and finds 0.",
    )
    assert load_run(dataset.task, "one").predictions().digest == before


def test_every_numbered_rule_is_among_those_tried() -> None:
    assert {rule.split()[0] for rule in RULES} == {*THRESHOLD_RULES, *NUMBERED_RULES}


def test_a_rule_that_was_chosen_is_kept_unless_it_cannot_be(keep) -> None:
    dataset = keep(0, 1.5, 3)
    said: list[str] = []
    assert rule_for(dataset, "one", None, notify=said.append) == ("smoothed", {})
    assert rule_for(dataset, "two", "half", notify=said.append) == ("half", {})
    assert said == []
    report_threshold(dataset.task, "one", rule="recall 0.9")
    mark = {"threshold_chosen": True}
    assert rule_for(dataset, "one", None, notify=said.append) == ("recall 0.9", mark)
    assert said.pop().startswith("one: threshold for recall 0.9, kept; `archiveprobe threshold ")
    assert rule_for(dataset, "one", "half", notify=said.append) == ("half", {})
    assert said.pop() == "one: threshold for recall 0.9, dropped: --threshold-rule half"
    assert rule_for(dataset, "one", None, possible=False, notify=said.append) == ("smoothed", {})
    assert said.pop().endswith("dropped: this system has no threshold")
    assert rule_for(dataset, "one", "recall 0.9", notify=said.append) == ("recall 0.9", mark)
    assert said == []
    # A damaged system has forgotten its answers, and not what was chosen for it.
    for path in load_run(dataset.task, "one").paths.values():
        path.write_bytes(b"damaged")
    assert rule_for(dataset, "one", None)[0] == "recall 0.9"
    (dataset.task.work / "runs" / "one" / "run.json").write_bytes(b"damaged")
    assert rule_for(dataset, "one", None, notify=said.append) == ("smoothed", {})
    assert said.pop() == "one: whether a threshold was chosen for it cannot be read any more"
    keep(0, 1.5, 3)
    report_threshold(dataset.task, "one", rule="fixed 0.4")
    report_threshold(dataset.task, "one", rule="smoothed")
    assert rule_for(dataset, "one", None, notify=said.append) == ("smoothed", {})
    assert said == []


@pytest.mark.parametrize("name", ["recall", "precision"])
def test_a_board_says_which_aim_the_labelled_rows_miss(keep, name) -> None:
    dataset = keep(0, 1.5, 3)
    report_threshold(dataset.task, "one", rule=f"{name} 0.8")
    stored = load_run(dataset.task, "one").predictions()
    score = {"recall": recall_score, "precision": precision_score}[name]
    true, above = stored.labels == stored.positive, stored.decision == stored.positive
    shown = np.mean([score(true, of_repeat) for of_repeat in above])
    for aim in (shown - 0.01, shown + 0.01):
        aimed = replace(stored, origin={**stored.origin, "threshold_rule": f"{name} {aim}"})
        said = [w for w in leaderboard([aimed], seconds=0).warnings if "aims at" in w]
        assert len(said) == (aim > shown)
        assert all(f"show {shown:.3f}" in warning for warning in said)


@pytest.fixture(scope="module")
def embedded(tmp_path_factory) -> Path:
    return striped_archive(tmp_path_factory.mktemp("stripes"))


def line_of(board: dict, system: str) -> dict:
    return next(line for line in board["leaderboard"] if line["system"] == system)


@pytest.mark.proves("state")
def test_a_threshold_set_by_hand_outlives_probe_and_ensemble(embedded) -> None:
    probe = ("probe", embedded, "--probe", "ridge", "--probe", "knn")
    before = result_of(*probe)
    assert before["warnings"] == []
    done = run("threshold", embedded, "--system", "ridge-hog", "--set", "0.7")
    assert "kept when it is made again" in done.stderr
    shown = result_of("threshold", embedded, "--system", "ridge-hog")

    board = result_of(*probe)
    line = line_of(board, "ridge-hog")
    assert (line["threshold"], line["threshold_rule"]) == (0.7, "fixed 0.7")
    assert line["macro_f1"] == pytest.approx(shown["macro_f1"])
    assert line["macro_f1"] != line_of(before, "ridge-hog")["macro_f1"]
    (said,) = board["warnings"]
    assert said.startswith("ridge-hog: threshold 0.7, set by hand, kept; `archiveprobe threshold ")
    assert said.endswith("--system ridge-hog --threshold-rule smoothed` chooses it again")
    people = run(*probe)
    assert "0.700 fixed" in people.stdout and f"note: {said}" in people.stderr
    # Members and ensembles say the same.
    assert {row["state"] for row in result_of("list", "systems", embedded)["systems"]} == {"ok"}
    run("ensemble", embedded, "--method", "vote", "--name", "both")
    run("threshold", embedded, "--system", "greedy", "--recall", "0.9")
    board = result_of("ensemble", embedded)
    assert line_of(board, "greedy")["threshold_rule"] == "recall 0.9"
    assert board["warnings"][0].startswith("greedy: threshold for recall 0.9, kept")

    board = result_of(*probe, "--threshold-rule", "half")
    assert board["warnings"] == [
        "ridge-hog: threshold 0.7, set by hand, dropped: --threshold-rule half",
        "greedy: threshold for recall 0.9, dropped: --threshold-rule half",
    ]
    assert line_of(board, "ridge-hog")["threshold"] == 0.5
    run("threshold", embedded, "--system", "ridge-hog", "--set", "0.7")
    run("threshold", embedded, "--system", "ridge-hog", "--threshold-rule", "smoothed")
    again = result_of(*probe)
    for board in (before, again):
        for row in board["leaderboard"]:
            del row["seconds"]
    assert (again["leaderboard"], again["warnings"]) == (before["leaderboard"], [])
