"""What a fine-tuned system answers: submit, predict, as a member; known, or looked at again."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

import archiveprobe.predict.systems as tuned_module
from archiveprobe.evaluate.combine import combine
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.system_store import load_run, save_run
from archiveprobe.finetune.inference import TunedSystem
from archiveprobe.predict.systems import load_system
from archiveprobe.task.config import load_task

Command = Callable[..., Result]


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images networks were shown, call by call."""
    counts: list[int] = []
    real = tuned_module.TunedSystem.logits

    def logits(self: TunedSystem, root: Path, files: list, work: Path, **how: object) -> object:
        counts.append(sum(bool(key) for _, key in files))
        return real(self, root, files, work, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(TunedSystem, "logits", logits)
    return counts


@pytest.fixture
def own(tuned: Path, tmp_path: Path) -> Path:
    """A copy of the tuned archive."""
    folder = tmp_path / "archive"
    shutil.copytree(tuned, folder)
    return folder


def rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        yield from csv.DictReader(stream)


def test_a_submission_remembers_and_looks_at_a_few_again(
    own: Path, run: Command, tmp_path: Path, looked_at: list[int]
) -> None:
    file = tmp_path / "submission.csv"
    done = run("submit", own, "--system", "quick", "-o", file, "--json")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["rows"] == 6 and record["unreadable"] == 1
    assert record["spot_check"] == {"rows": 5, "by": "images"}
    # Those of the spot check, and the labelled rows that might have been memorised.
    assert looked_at == [5, 12]
    stored = load_run(load_task(own), "quick").predictions()
    written = [next(iter(row.values())) for row in rows(file)]
    assert written == stored.test_ids.tolist()


def test_predict_gives_the_stored_probabilities(own: Path, run: Command, tmp_path: Path) -> None:
    file = tmp_path / "answers.csv"
    done = run("predict", own, "--system", "quick", "-o", file)
    assert done.exit_code == 0, done.stderr
    stored = load_run(load_task(own), "quick").predictions()
    for row, p in zip(rows(file), stored.test, strict=True):
        if row["status"] == "ok":
            assert float(row["p_down"]) == pytest.approx(p[1], abs=1e-6)
    assert row["status"] != "ok" and row["p_down"] == ""


def test_looking_again_gives_what_is_remembered(own: Path, looked_at: list[int]) -> None:
    dataset = load_dataset(load_task(own))
    system = load_system(dataset, "quick")
    known = system.answer(dataset.unlabelled)
    assert not looked_at
    again = system.answer(dataset.unlabelled, afresh=True)
    assert looked_at == [5]
    np.testing.assert_allclose(again.proba, known.proba, atol=1e-6)
    assert np.array_equal(again.decision, known.decision)


def test_new_images_are_answered_as_the_same_ones_were(
    own: Path, run: Command, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    new.mkdir()
    for number in (36, 37):
        shutil.copy(own / f"{number}.png", new / f"copy-{number}.png")
    (new / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    file = tmp_path / "answers.csv"
    words = ("--images", new, "-o", file, "--device", "cpu", "--workers", "0")
    done = run("predict", own, "--system", "quick", *words)
    assert done.exit_code == 0, done.stderr
    stored = load_run(load_task(own), "quick").predictions()
    found = {row["id"]: row for row in rows(file)}
    assert found.keys() == {"copy-36.png", "copy-37.png", "torn.png"}
    for number in (36, 37):
        p = stored.test[stored.test_ids.tolist().index(str(number))][1]
        assert float(found[f"copy-{number}.png"]["p_down"]) == pytest.approx(p, abs=1e-5)
    assert found["torn.png"]["status"] not in ("ok", "new") and found["torn.png"]["p_down"] == ""


def test_an_ensemble_of_a_probe_and_networks_answers(
    own: Path, run: Command, tmp_path: Path, looked_at: list[int]
) -> None:
    assert run("ensemble", own, "--method", "mean", "--name", "both").exit_code == 0
    file = tmp_path / "submission.csv"
    done = run("submit", own, "--system", "both", "-o", file)
    assert done.exit_code == 0, done.stderr
    assert looked_at == [5, 12]
    new = tmp_path / "new"
    new.mkdir()
    shutil.copy(own / "36.png", new / "36.png")
    words = ("--images", new, "-o", file, "--device", "cpu", "--workers", "0")
    done = run("predict", own, "--system", "both", *words)
    assert done.exit_code == 0, done.stderr
    stored = load_run(load_task(own), "both").predictions()
    (row,) = rows(file)
    assert float(row["p_down"]) == pytest.approx(stored.test[0][1], abs=1e-5)


@pytest.mark.proves("answers")
def test_a_submission_of_foreign_answers_is_refused(
    own: Path, run: Command, tmp_path: Path
) -> None:
    task = load_task(own)
    one = load_run(task, "quick")
    arrays = {"logits": np.roll(one.arrays()["logits"][:, ::-1], 1, axis=0) * 3 + 1}
    save_run(task, "quick", one.record, one.predictions(), arrays)
    file = tmp_path / "submission.csv"
    done = run("submit", own, "--system", "quick", "-o", file)
    assert done.exit_code == 1 and not file.exists()
    launch = one.record["launch"]
    assert launch["recipe"].endswith("quick.toml")
    assert "finetune" in done.stderr and f"--recipe {launch['recipe']}" in done.stderr


def test_without_the_images_what_is_remembered_is_submitted(
    own: Path, run: Command, tmp_path: Path
) -> None:
    for file in own.glob("*.png"):
        file.unlink()
    file = tmp_path / "submission.csv"
    done = run("submit", own, "--system", "quick", "-o", file, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["spot_check"]["by"] == "manifest"


@pytest.mark.proves("state")
def test_other_rows_to_predict_are_answered_without_training(
    own: Path, run: Command, finetune: Command, tmp_path: Path
) -> None:
    before = load_run(load_task(own), "quick")
    Image.new("RGB", (50, 40), "navy").save(own / "new.png")
    table = own / "rows.csv"
    table.write_text(table.read_text() + "new,new.png,,test\n")
    assert run("embed", own, "--workers", "0").exit_code == 0
    # The stored system looks at it by itself.
    file = tmp_path / "submission.csv"
    done = run("submit", own, "--system", "quick", "-o", file)
    assert done.exit_code == 0, done.stderr
    assert len(list(rows(file))) == 7
    done = finetune(own, "--fold", "all")
    assert done.exit_code == 0, done.stderr
    assert "fold-1: other rows to predict than before" in done.stderr
    after = load_run(load_task(own), "quick")
    assert after.record["networks"] == before.record["networks"]
    found = after.predictions()
    assert found.test_ids.tolist()[-1] == "new" and np.isfinite(found.test[-1]).all()
    np.testing.assert_allclose(found.test[:5], before.predictions().test[:5], atol=1e-6)
    assert np.array_equal(found.oof, before.predictions().oof)
    assert "trained before" in finetune(own, "--fold", "0").stderr


def test_rows_answered_as_blank_images_are_counted_aloud(
    own: Path, run: Command, finetune: Command, tmp_path: Path
) -> None:
    recipe = own / "white.toml"
    recipe.write_text((own / "quick.toml").read_text() + '[rows]\nunreadable = "blank"\n')
    assert finetune(own, "--fold", "all", recipe=str(recipe)).exit_code == 0
    done = run("submit", own, "--system", "white", "-o", tmp_path / "submission.csv", "--json")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout)
    assert record["unreadable"] == 0 and record["reasons"] == {}
    assert "1 row without a readable image, answered as blank: 1 " in done.stderr


def test_a_vote_stays_a_vote_in_a_vote(
    own: Path, run: Command, finetune: Command, tmp_path: Path
) -> None:
    recipe = own / "voting.toml"
    text = (own / "quick.toml").read_text().replace('views = "flip"', 'views = "crops6"')
    recipe.write_text(text + 'combine = "vote"\nthreshold_rule = "half"\n')
    assert finetune(own, "--fold", "all", recipe=str(recipe)).exit_code == 0
    # Its answers as the others' so that they decide: two against one.
    words = ("--method", "vote", "--system", "voting", "--system", "quick", "--name", "votes")
    assert run("ensemble", own, *words).exit_code == 0
    task = load_task(own)
    voting = load_run(task, "voting").predictions()
    assert voting.answer is not None and np.isnan(voting.threshold)
    # Another answer than its mean probability has: it must be the one that counts.
    turned = replace(voting, answer=1 - voting.answer)
    other = replace(voting, origin={**voting.origin, "system": "other"}, answer=1 - voting.answer)
    found = combine([turned, other, load_run(task, "quick").predictions()], "vote")
    assert np.array_equal(found.answer, turned.answer)
    file = tmp_path / "submission.csv"
    assert run("submit", own, "--system", "votes", "-o", file).exit_code == 0


@pytest.mark.proves("state")
def test_prune_keeps_what_systems_look_through(own: Path, run: Command, finetune: Command) -> None:
    recipe = own / "block.toml"
    recipe.write_text('[model]\nbackbone = "tiny"\nunfreeze = "last-block"\n[augment]\n'
                      "crop_scale = [1.0, 1.0]\nflip = 0.0\n[schedule]\nepochs = 1\n")  # fmt: skip

    def prunable() -> set[str]:
        items = json.loads(run("cache", "prune", own, "--json").stdout)["items"]
        return {Path(item["path"]).name.rpartition("-")[0] for item in items}

    assert finetune(own, "--fold", "all", "--from-cache", recipe=str(recipe)).exit_code == 0
    task = own / "task.toml"
    task.write_text(task.read_text().replace('backbones = ["hog", "tiny"]', 'backbones = ["tiny"]'))
    # A probe looks through hog's, and the block was trained from the tokens.
    assert prunable() == set()
    shutil.rmtree(own / "work/runs")
    assert prunable() == {"hog", "tiny"}
