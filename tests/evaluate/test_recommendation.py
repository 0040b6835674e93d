"""What a leaderboard recommends, and why; nothing where every line is at chance."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score
from striped_archive import result_of, striped_archive
from stripes import run

from archiveprobe.evaluate.leaderboard import chance, leaderboard
from archiveprobe.evaluate.metrics import macro_f1
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_store import load_run, save_run
from archiveprobe.task.config import load_task

PROBE = ("--probe", "ridge", "--probe", "knn")


def nearest_means(rows: Predictions, seed: int) -> Predictions:
    """A system that decides by the nearer class mean of columns that are noise."""
    x = np.random.default_rng([seed, 3]).standard_normal((len(rows.labels), 10))
    y, decision = rows.labels, np.empty_like(rows.decision)
    for repeat, fold in enumerate(rows.fold):
        for held in range(5):
            out, inside = fold != held, fold == held
            zero, one = (x[out & (y == label)].mean(0) for label in (0, 1))
            decision[repeat, inside] = (x[inside] - (zero + one) / 2) @ (one - zero) > 0
    return replace(rows, decision=decision)


@pytest.mark.proves("intervals")
def test_nothing_is_recommended_where_labels_are_random(draw_dataset, draw_system) -> None:
    nothing = 0
    for seed in range(20):
        rows = draw_system(draw_dataset(n=100, repeats=3, seed=seed), seed=seed)
        systems = [nearest_means(rows, 10 * seed + at) for at in range(4)]
        nothing += leaderboard(systems, seconds=0.0).best is None
    assert nothing >= 18


@pytest.mark.parametrize("share", [0.1, 0.35, 0.5])
def test_no_blind_answer_beats_chance(share) -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(200_000) < share).astype(int)
    scores = {
        yes: macro_f1(y, (rng.random(len(y)) < yes).astype(int), 2)
        for yes in (0.0, 0.05, share, 0.5, 0.8, 1.0)
    }
    assert max(scores.values()) < chance(2) + 0.003
    assert scores[share] == pytest.approx(chance(2), abs=0.003)


def deciding(rows: Predictions, share: float, seed: int, **origin) -> Predictions:
    wrong = np.random.default_rng(seed).random(rows.decision.shape) < share
    decision = np.where(wrong, 1 - rows.labels, rows.labels)
    return replace(rows, decision=decision, origin={**rows.origin, **origin})


def test_the_reason_names_the_rule_and_the_distance(draw_dataset, draw_system) -> None:
    rows = draw_system(draw_dataset(n=200, repeats=3))
    simple = deciding(rows, 0.14, 1, system="simple", complexity=1)
    involved = deciding(rows, 0.10, 2, system="involved", complexity=9)
    board = leaderboard([simple, involved], seconds=0.0, caution=3.0)
    first, second = (line.macro_f1 for line in board.lines)
    assert board.best == "simple" and board.lines[0].system == "involved"
    assert board.reason.startswith("the simplest within 3 standard errors (0.")
    assert board.reason.endswith(f") of the first; {first - second:.3f} below it")
    board = leaderboard([simple, involved], seconds=0.0, caution=0.0)
    assert (board.best, board.reason[:10]) == ("involved", "the first,")
    assert leaderboard([simple], seconds=0.0).reason == ""
    coin = deciding(rows, 0.5, 3, system="coin", complexity=0)
    # A simple system at chance is never recommended, however wide the errors are.
    assert leaderboard([coin, involved], seconds=0.0, caution=99.0).best == "involved"
    board = leaderboard([coin], seconds=0.0)
    assert board.best is None and "no interval lies above 0.5" in board.reason


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    folder = striped_archive(tmp_path_factory.mktemp("stripes"))
    result_of("probe", folder, *PROBE)
    return folder


def test_the_majority_class_has_a_line_and_is_no_system(archive) -> None:
    board = result_of("probe", archive, *PROBE)
    majority = board["majority"]
    assert "majority class" not in [line["system"] for line in board["leaderboard"]]
    y = load_run(load_task(archive), "ridge-hog").predictions().labels
    assert majority["label"] == ("across", "down")[np.bincount(y).argmax()]
    always = np.full_like(y, np.bincount(y).argmax())
    expected = f1_score(y, always, average="macro", zero_division=0)
    assert majority["macro_f1"] == pytest.approx(expected)
    assert majority["accuracy"] == pytest.approx((y == always).mean())
    for words in (("probe", archive, *PROBE), ("leaderboard", archive)):
        table = run(*words).stdout
        [line] = [line for line in table.splitlines() if line.startswith("majority class")]
        assert line.split()[2:4] == [f"{majority['macro_f1']:.4f}", f"{majority['accuracy']:.4f}"]
        assert max(map(len, table.splitlines()[:5])) <= 80


def test_at_chance_nothing_is_recommended(tmp_path) -> None:
    folder = striped_archive(tmp_path, wrong=1)
    board = result_of("probe", folder, *PROBE)
    assert board["best"] is None and "no interval lies above 0.5" in board["reason"]
    done = run("probe", folder, *PROBE)
    assert "recommended: none, no interval lies above 0.5" in done.stdout
    assert "None" not in done.output and "submit" not in done.stderr
    assert f"then: archiveprobe audit {folder}" in done.stderr


def test_people_are_told_why(archive) -> None:
    board = result_of("probe", archive, *PROBE)
    assert board["best"] is not None
    last = run("probe", archive, *PROBE).stdout.splitlines()[-1]
    assert last == f"recommended: {board['best']}, {board['reason']}"


def tuned(folder: Path, **changed) -> None:
    """A system of one repeat beside the others, as `finetune` leaves one."""
    task = load_task(folder)
    other = load_run(task, "ridge-hog")
    stored = other.predictions()
    record = {**other.record, "system": "tiny", "kind": "finetune", **changed}
    one = replace(
        stored,
        origin={**stored.origin, "system": "tiny", "complexity": 501.0},
        **{name: getattr(stored, name)[:1] for name in ("fold", "oof", "decision", "thresholds")},
    )
    save_run(task, "tiny", record, one)


def test_fine_tuned_lines_stay_on_every_leaderboard(archive, tmp_path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(archive, folder)
    tuned(folder)
    pair = ("--system", "ridge-hog", "--system", "knn-hog")
    boards = {
        words[0]: result_of(*words)
        for words in (
            ("probe", folder, *PROBE),
            ("ensemble", folder, "--method", "mean", *pair),
            ("leaderboard", folder),
        )
    }
    for name, board in boards.items():
        assert "tiny" in [line["system"] for line in board["leaderboard"]], name
    assert len(load_run(load_task(folder), "mean").record["members"]) == 2
    greedy = load_run(load_task(folder), "greedy").record["members"]
    assert "tiny" not in [member["system"] for member in greedy]
    names = {line["system"] for line in boards["leaderboard"]["leaderboard"]}
    assert names == {"tiny", "ridge-hog", "knn-hog", "greedy", "mean"}
    tuned(folder, snapshot={})
    for words in (("probe", folder, *PROBE), ("ensemble", folder, *pair), ("leaderboard", folder)):
        board = result_of(*words)
        assert "tiny" not in [line["system"] for line in board["leaderboard"]]
        assert any(said.startswith("left out: tiny is out of date") for said in board["warnings"])


def test_the_stored_leaderboard_fits_nothing(archive, monkeypatch, tmp_path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(archive, folder)
    board = result_of("probe", folder, *PROBE)
    monkeypatch.setattr("archiveprobe.probe.crossval.cross_validate", lambda *_, **__: 1 / 0)
    before = sorted((folder / "work" / "runs").rglob("*"))
    again = result_of("leaderboard", folder)
    assert sorted((folder / "work" / "runs").rglob("*")) == before
    for name in ("leaderboard", "model_selection", "best", "reason", "majority"):
        assert again[name] == board[name], name
    # Nor does it need the cache, as on a laptop that has only the figures.
    shutil.rmtree(folder / "work" / "cache")
    shutil.rmtree(folder / "work" / "audit")
    again = result_of("leaderboard", folder)
    assert again["leaderboard"] == board["leaderboard"]
    assert "no look for a shift" in again["warnings"][0]
    shutil.rmtree(folder / "work" / "runs")
    done = run("leaderboard", folder)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        f"error: no systems yet: run `archiveprobe probe {folder / 'task.toml'}`\n"
    )
