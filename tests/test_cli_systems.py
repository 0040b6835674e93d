"""The command line of systems: a leaderboard, ensembles, thresholds; faults as one line."""

import shutil
from pathlib import Path

import click
import pytest
from striped_archive import result_of, striped_archive
from stripes import run

from archiveprobe.commands.systems import ensemble as ensemble_command
from archiveprobe.commands.systems import probe as probe_command
from archiveprobe.evaluate.combine import METHODS
from archiveprobe.evaluate.thresholding import THRESHOLD_RULES


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of noisy stripes, an eighth of them labelled wrongly, six without a label."""
    return striped_archive(tmp_path_factory.mktemp("stripes"))


@pytest.fixture(scope="module")
def probed(embedded: Path) -> dict:
    return result_of("probe", embedded, "--probe", "ridge", "--probe", "knn")


def test_the_leaderboard_has_the_promised_form(probed: dict) -> None:
    names = [line["system"] for line in probed["leaderboard"]]
    assert sorted(names) == ["greedy", "knn-hog", "ridge-hog"]
    promised = "system features macro_f1 low high accuracy threshold optimistic seconds".split()
    for line in probed["leaderboard"]:
        assert set(promised) <= set(line)
        assert 0 <= line["low"] <= line["macro_f1"] <= line["high"] <= 1
    scores = [line["macro_f1"] for line in probed["leaderboard"]]
    assert scores == sorted(scores, reverse=True)
    assert probed["best"] in names
    assert set(probed["model_selection"]) == set(probed["leaderboard"][0])
    assert set(probed["majority"]) == {"label", "macro_f1", "accuracy"}
    assert min(scores) > 0.7


def test_people_see_a_table_and_the_recommended_system(embedded: Path, probed: dict) -> None:
    done = run("probe", embedded, "--probe", "ridge", "--probe", "knn")
    header, *lines = done.stdout.splitlines()
    assert header.startswith("system") and "macro-F1 [95% CI]" in header
    assert len(lines) == len(probed["leaderboard"]) + 3
    assert lines[-2].startswith("model selection (nested): macro-F1 0.")
    assert lines[-1].startswith(f"recommended: {probed['best']}, ")
    assert f"submit {embedded} --system {probed['best']}" in done.stderr
    groups = probed["leaderboard"][0]["groups"]
    assert f"intervals rest on {groups} independent groups" in done.stderr


def test_systems_are_listed_and_combined(embedded: Path, probed: dict) -> None:
    listed = result_of("list", "systems", embedded)["systems"]
    assert {line["system"] for line in listed} >= {"greedy", "knn-hog", "ridge-hog"}
    assert {line["state"] for line in listed} == {"ok"}
    board = result_of("ensemble", embedded, "--method", "mean", "--name", "both")
    assert {line["system"] for line in board["leaderboard"]} == {
        "both",
        "knn-hog",
        "ridge-hog",
    }


def test_a_threshold_is_shown_chosen_and_fixed(embedded: Path, probed: dict) -> None:
    shown = result_of("threshold", embedded, "--system", "ridge-hog")
    line = next(one for one in probed["leaderboard"] if one["system"] == "ridge-hog")
    assert shown["threshold"] == line["threshold"]
    assert shown["macro_f1"] == pytest.approx(line["macro_f1"])
    assert shown["low"] <= shown["threshold"] <= shown["high"]
    at_best = max(point["macro_f1"] for point in shown["curve"])
    assert at_best >= shown["optimistic"] - 1e-9

    fixed = result_of("threshold", embedded, "--system", "ridge-hog", "--set", "0.99")
    assert (fixed["threshold"], fixed["method"]) == (0.99, "fixed")
    assert fixed["macro_f1"] < shown["macro_f1"]
    assert result_of("threshold", embedded, "--system", "ridge-hog") == fixed

    again = result_of(
        "threshold", embedded, "--system", "ridge-hog", "--threshold-rule", "smoothed"
    )
    assert again == shown


def test_people_see_the_curve(embedded: Path, probed: dict) -> None:
    done = run("threshold", embedded, "--system", "knn-hog")
    assert done.stdout.count("<- chosen") == 1
    assert "with thresholds chosen on other rows" in " ".join(done.stdout.split())


def test_a_threshold_of_the_table_is_shown_once(embedded: Path, probed: dict) -> None:
    before = result_of("threshold", embedded, "--system", "knn-hog")
    done = run("threshold", embedded, "--system", "knn-hog", "--set", "0.4")
    assert done.stdout.count("0.400  ") == 1 and done.stdout.count("<- chosen") == 1
    assert "threshold 0.400 (fixed): macro-F1" in done.stdout
    assert done.stderr.startswith("stored with knn-hog")
    rule = ("--threshold-rule", before["method"])
    assert result_of("threshold", embedded, "--system", "knn-hog", *rule) == before


def test_changed_labels_put_systems_out_of_date(
    embedded: Path, probed: dict, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(embedded, folder)
    first = next((folder / "across").iterdir())
    first.rename(folder / "down" / f"moved{first.name}")
    assert run("embed", folder).exit_code == 0
    states = {line["state"] for line in result_of("list", "systems", folder)["systems"]}
    assert {state.split(":")[0] for state in states} == {"out of date"}
    assert all("labels" in state for state in states)
    for words in (["ensemble", folder], ["threshold", folder, "--system", "ridge-hog"]):
        done = run(*words)
        assert done.exit_code == 1
        assert "archiveprobe probe" in done.stderr and "changed since" in done.stderr


FAULTS = [
    (["probe", "--probe", "rigde"], "unknown probe 'rigde'", "did you mean 'ridge'"),
    (["probe", "--features", "hgo"], "hgo", "hog"),
    (["threshold", "--system", "rigde-hog"], "no system 'rigde-hog'", "ridge-hog"),
    (["threshold", "--system", "ridge-hog", "--set", "7"], "got 7", "between 0 and 1"),
    (["ensemble", "--system", "ridge-hog"], "an ensemble needs two systems", "name two"),
    (["ensemble", "--name", "../out"], "cannot name a system", "letters, digits"),
]


@pytest.mark.parametrize(("words", "what", "remedy"), FAULTS, ids=lambda v: str(v)[:30])
def test_a_fault_is_one_line(
    embedded: Path, probed: dict, words: list[str], what: str, remedy: str
) -> None:
    before = sorted(embedded.rglob("*"))
    done = run(words[0], embedded, *words[1:])
    assert done.exit_code == 1
    assert not done.stdout
    assert done.stderr.count("\n") == 1
    assert what in done.stderr and remedy in done.stderr
    assert sorted(embedded.rglob("*")) == before


def test_choices_are_those_that_exist() -> None:
    def choices(command: click.Command, name: str) -> list[str]:
        found = next(one for one in command.params if one.name == name)
        assert isinstance(found.type, click.Choice)
        return list(found.type.choices)

    assert choices(probe_command, "threshold_rule") == list(THRESHOLD_RULES)
    assert sorted(choices(ensemble_command, "method")) == sorted(METHODS)


def test_without_a_cache_probe_says_what_to_do(tmp_path: Path, embedded: Path) -> None:
    shutil.copytree(embedded, tmp_path / "bare", ignore=shutil.ignore_patterns("work"))
    done = run("probe", tmp_path / "bare")
    assert done.exit_code == 1
    assert "run `archiveprobe embed" in done.stderr


def test_a_label_with_few_rows_is_said(tmp_path: Path, embedded: Path) -> None:
    folder = tmp_path / "rare"
    shutil.copytree(embedded, folder, ignore=shutil.ignore_patterns("folds.csv", "runs"))
    for file in sorted((folder / "down").iterdir())[2:]:
        file.unlink()
    assert run("embed", folder).exit_code == 0
    board = result_of("probe", folder, "--probe", "knn", "--probe", "ridge")
    [said] = [warning for warning in board["warnings"] if "labelled row" in warning]
    assert said.startswith("'down' has 2 ")
