"""Second looks, settling and corrections in a spreadsheet."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from review_commands import exported, fault, read_for, run, write
from reviewed import COPIES, OPEN, begin, review_all, truth

from archiveprobe.base.errors import InputError
from archiveprobe.cli import main
from archiveprobe.review.decisions import DECISION, SETTLE, TWICE, Decision, DecisionFile
from archiveprobe.review.log import Line
from archiveprobe.review.queue import Queue
from archiveprobe.review.reviewing import Reviewing
from archiveprobe.review.store import find_review
from archiveprobe.task.config import Task

ALL = OPEN + COPIES


def taken(task: Task, file: Path, rows: list[dict[str, str]], *words: str) -> str:
    done = run(task, "--import", write(file, rows), *words)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_second_looks_and_settling_go_through_tables(task: Task, tmp_path: Path) -> None:
    review_all(Queue(begin(task, twice=1.0)), "Ann")
    second = read_for(task, tmp_path / "bob.csv", "Bob")
    assert [row["part"] for row in second] == [TWICE] * ALL
    assert len(exported_top(task, tmp_path / "top.csv", 7)) == 7
    for row in second:
        row["answer"] = "dark"
    taken(task, tmp_path / "bob.csv", second)
    disputed = set(find_review(task).state.disputed())
    assert disputed
    # Those who differ do not settle it in a table; somebody else does, after reviewing stopped.
    for name in ("Ann", "Bob"):
        words = ("--export", tmp_path / "none.csv", "--reviewer", name)
        assert "nothing is left to look at" in fault(task, *words)
    Reviewing(Queue(find_review(task)), "Ann").stop()
    third = read_for(task, tmp_path / "cem.csv", "Cem")
    assert ({row["image"] for row in third}, {row["part"] for row in third}) == (
        disputed,
        {SETTLE},
    )
    for row in third:
        row["answer"] = truth(row["id"])
    taken(task, tmp_path / "cem.csv", third)
    assert "recorded before" in taken(task, tmp_path / "cem.csv", third)
    state = find_review(task).state
    assert state.disputed() == []
    assert {state.settled(image) for image in disputed} == {"bright"}
    third[0]["answer"] = "unsure"
    taken(task, tmp_path / "cem.csv", third, "--replace")
    assert find_review(task).state.settled(third[0]["image"]) == "unsure"


def exported_top(task: Task, file: Path, top: int) -> list[dict[str, str]]:
    return exported(task, file, "--reviewer", "Bob", "--top", top)


@pytest.mark.proves("review")
def test_an_answer_is_corrected_in_a_table(task: Task, tmp_path: Path) -> None:
    begin(task)
    rows = exported(task, tmp_path / "queue.csv")
    for row in rows:
        row["answer"] = "bright"
    taken(task, tmp_path / "queue.csv", rows)
    pair = next(row for row in rows if row["images"] == "2")
    single = next(row for row in rows if row["images"] == "1")
    pair["answer"] = single["answer"] = "dark"
    before = find_review(task).log.head
    said = fault(task, "--import", write(tmp_path / "again.csv", rows))
    assert f"{single['id']} was decided by Ann already (bright): take that back first" in said
    assert "--replace" in said
    assert find_review(task).log.head == before
    said = taken(task, tmp_path / "again.csv", rows, "--replace")
    assert said.startswith(f"3 images decided by {tmp_path / 'again.csv'}, {len(rows) - 2} were")
    state = find_review(task).state
    assert len(state.reviewed) == ALL
    group = state.reviewed[pair["image"]].group
    dark = {image for image, each in state.reviewed.items() if each.answer == "dark"}
    assert dark == {
        single["image"],
        *(image for image, each in state.reviewed.items() if each.group == group),
    }
    kinds = [line.kind for line in find_review(task).log.lines]
    assert kinds[-7:] == ["withdrawal"] * 3 + ["decision"] * 3 + ["import"]
    # A table of one's own corrects that image alone.
    own = [{"id": pair["id"], "answer": "unsure", "reviewer": "Ann"}]
    assert "1 image decided" in taken(task, tmp_path / "own.csv", own, "--replace")
    answers = [each.answer for each in find_review(task).state.reviewed.values()]
    assert (len(answers), answers.count("unsure")) == (ALL, 1)


def test_what_cannot_be_corrected_is_refused_whole(task: Task, tmp_path: Path) -> None:
    queue = Queue(begin(task))
    review_all(queue, "Ann")
    rows = [{"id": name, "answer": "unsure", "reviewer": "Bob"} for name in ("40.png", "41.png")]
    said = fault(task, "--import", write(tmp_path / "bob.csv", rows), "--replace")
    assert "line 2: 40.png was decided by Ann already (bright)" in said
    assert "line 3: 41.png was decided by Ann" in said
    Reviewing(queue, "Ann").stop()
    head = find_review(task).log.head
    mine = [{**row, "reviewer": "Ann"} for row in rows]
    said = fault(task, "--import", write(tmp_path / "ann.csv", mine), "--replace")
    assert "the answer to 40.png counts; --resume goes on" in said
    assert find_review(task).log.head == head
    assert run(task, "--replace", "--stop").exit_code == 2


def test_an_empty_table_says_why(task: Task, tmp_path: Path) -> None:
    queue = Queue(begin(task))
    review_all(queue, "Ann", most=OPEN - 1)
    done = run(task, "--export", tmp_path / "one.csv")
    assert done.stdout.startswith("1 look at ")
    Reviewing(queue, "Ann").stop()
    said = fault(task, "--export", tmp_path / "none.csv", "--reviewer", "Ann")
    assert "reviewing was stopped with 1 look left" in said
    assert "no folder" in fault(task, "--export", tmp_path / "absent" / "x.csv")
    assert not (tmp_path / "absent").exists()


def test_another_label_is_looked_for(task: Task, tmp_path: Path) -> None:
    file = tmp_path / "dark.csv"
    assert " to find dark, in " in run(task, "--system", "ridge-hog", "--export", file).stdout
    words = ("--system", "ridge-hog", "--label", "bright", "--name", "other")
    done = run(task, *words, "--export", tmp_path / "bright.csv")
    assert " to find bright, in " in done.stdout
    dark, bright = (find_review(task, name) for name in ("ridge-hog", "other"))
    assert bright.population.scores + dark.population.scores == pytest.approx(1)
    assert bright.population.margins == pytest.approx(dark.population.margins)
    items = Queue(bright).preview("Ann", 1)
    assert items[0].score == bright.population.scores.max()
    assert (
        json.loads(run(task, "--name", "other", "--status", "--json").stdout)["label"] == "bright"
    )
    review_all(Queue(bright), "Ann")
    assert "18 of 36 images reviewed are bright" in run(task, "--name", "other", "--stop").stdout
    proof = CliRunner().invoke(main, ["prove", str(task.folder), "40.png", "--name", "other"])
    assert proof.exit_code == 0, proof.output
    said = fault(task, "--name", "other", "--label", "dark", "--status")
    assert "has label bright, not dark" in said
    said = fault(
        task, "--system", "ridge-hog", "--name", "third", "--label", "brigt", "--export", file
    )
    assert "no label 'brigt'" in said
    assert "did you mean 'bright'" in said


def test_a_kill_between_taking_back_and_deciding_loses_nothing(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(task)
    rows = [{"id": name, "answer": "dark", "reviewer": "Ann"} for name in ("40.png", "41.png")]
    taken(task, tmp_path / "ann.csv", rows)
    append = DecisionFile.append

    def full(self: DecisionFile, decisions: list[Decision], kind: str = DECISION) -> list[Line]:
        if kind == DECISION:
            raise InputError("no space left")
        return append(self, decisions, kind)

    rows[0]["answer"] = "bright"
    with monkeypatch.context() as patch:
        patch.setattr(DecisionFile, "append", full)
        said = fault(task, "--import", write(tmp_path / "ann.csv", rows), "--replace")
    assert "no space left" in said
    assert len(find_review(task).state.reviewed) == 1
    assert "1 image decided" in taken(task, tmp_path / "ann.csv", rows)
    answers = {each.id: each.answer for each in find_review(task).state.reviewed.values()}
    assert answers == {"40.png": "bright", "41.png": "dark"}
