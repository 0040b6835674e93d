"""`review` from the command line: tables out and in, stopping, status, and what is refused."""

import json
from pathlib import Path

import pytest
from openpyxl import Workbook
from review_commands import exported, fault, read, read_for, run, write
from reviewed import COPIES, OPEN, POSITIVE, begin, digest_of_image, review_all, truth

from archiveprobe.review.queue import Queue
from archiveprobe.review.store import find_review
from archiveprobe.task.config import Task

ALL = OPEN + COPIES


@pytest.mark.usefixtures("known_seed")
def test_a_table_goes_out_is_filled_in_and_comes_back(task: Task, tmp_path: Path) -> None:
    rows = exported(task, tmp_path / "queue.csv", "--system", "ridge-hog", "--twice", 0.5)
    assert len(rows) == OPEN
    assert sum(int(row["images"]) for row in rows) == ALL
    for row in rows[:10]:
        row["answer"] = truth(row["id"]).upper()
    file = write(tmp_path / "queue.csv", rows)
    done = run(task, "--import", file, "--json")
    assert done.exit_code == 0, done.output
    images = sum(int(row["images"]) for row in rows[:10])
    assert json.loads(done.stdout) == {
        "file": str(file), "rows": 10, "images": images, "known": 0,
    }  # fmt: skip
    review = find_review(task)
    assert {each.reviewer for each in review.state.reviewed.values()} == {"Ann"}
    assert all(truth(each.id) == each.answer for each in review.state.reviewed.values())
    assert {each.shown for each in review.state.reviewed.values()} <= {"file", "group"}
    [line] = [line for line in review.log.lines if line.kind == "import"]
    assert line.content["decisions"] == images

    again = run(task, "--import", file)
    assert "0 images decided" in again.stdout
    assert "10 were recorded before" in again.stdout
    assert len(exported(task, tmp_path / "rest.csv")) == OPEN - 10
    second = read_for(task, tmp_path / "second.csv", "Bob")
    assert {row["part"] for row in second} == {"queue", "twice"}
    assert len(exported(task, tmp_path / "top.csv", "--top", 3)) == 3


def test_what_excel_saves_is_understood(task: Task, tmp_path: Path) -> None:
    begin(task)
    semicolons = tmp_path / "semicolons.csv"
    semicolons.write_bytes("id;answer;reviewer\r\n40.png;Bright;Zoë\r\n;;\r\n".encode("cp1252"))
    assert run(task, "--import", semicolons).exit_code == 0
    book = Workbook()
    book.active.append(["image", "answer"])
    book.active.append([digest_of_image("41.png"), "dark "])
    book.active.append([digest_of_image("42.png"), None])
    book.save(tmp_path / "book.xlsx")
    assert run(task, "--import", tmp_path / "book.xlsx", "--reviewer", "Ann").exit_code == 0
    decided = find_review(task).state.reviewed.values()
    assert [(each.id, each.answer, each.reviewer) for each in decided] == [
        ("40.png", "bright", "Zoë"),
        ("41.png", "dark", "Ann"),
    ]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("99.png,dark,A", "line 2: '99.png' is no image of this review"),
        ("40.png,drak,A", "unknown answers: 'drak' (1, first line 2; did you mean 'dark'?)"),
        ("40.png,dark,A\n40.png,bright,A", "line 2 and line 3: two answers of A, dark and bright"),
        ("40.png,dark,A\n40.png,dark,B", "line 2 and line 3: two reviewers of one image"),
        (
            "40.png,dark,A\n41.png,dark,A\n44.png,dark,A",
            "line 4: 44.png was decided by Ann already",
        ),
    ],
)
def test_bad_rows_are_named_and_nothing_is_half_applied(
    task: Task, tmp_path: Path, lines: str, said: str
) -> None:
    begin(task)
    good = tmp_path / "good.csv"
    good.write_text("id,answer,reviewer\n44.png,bright,Ann\n")
    assert run(task, "--import", good).exit_code == 0
    before = find_review(task).log.head
    bad = tmp_path / "bad.csv"
    bad.write_text(f"id,answer,reviewer\n{lines}\n")
    assert said in fault(task, "--import", bad)
    assert find_review(task).log.head == before


def test_a_table_without_the_columns_is_refused(task: Task, tmp_path: Path) -> None:
    begin(task)
    for header, missing in (("id,anwser", "'answer'"), ("image_id,answer", "'id'")):
        (tmp_path / "bad.csv").write_text(f"{header}\n40.png,dark\n")
        assert f"no column {missing}" in fault(task, "--import", tmp_path / "bad.csv")


def test_stop_resume_and_status(task: Task) -> None:
    queue = Queue(begin(task, twice=0.9))
    review_all(queue, "Ann", most=6)
    review_all(queue, "Bob", most=2)
    assert "reviewing stopped" in run(task, "--stop", "--reviewer", "Ann").stdout
    done = json.loads(run(task, "--status", "--json").stdout)
    assert done["stage"] == "stopped"
    assert done["reviewed"] == len(find_review(task).state.reviewed)
    assert done["kappa"] is None or done["kappa"] == pytest.approx(1)
    assert [each["reviewer"] for each in done["reviewers"]] == ["Ann", "Bob"]
    assert done["log"] == find_review(task).log.head
    assert "stopped already" in fault(task, "--stop")
    assert "no draw of the review ridge-hog is declared" in fault(task, "--draw")
    assert "goes on" in run(task, "--resume").stdout
    shown = run(task, "--status").stdout
    assert "reviewer Ann" in shown
    assert "open" in shown


@pytest.mark.proves("review")
def test_an_edited_log_is_refused(task: Task) -> None:
    review_all(Queue(begin(task)), "Ann", most=6)
    log = find_review(task).log.file
    whole = log.read_bytes()
    log.write_bytes(whole.replace(b'"answer": "dark"', b'"answer": "bright"', 1))
    assert "was changed" in fault(task, "--status")
    log.write_bytes(whole)
    table = log.parent / "decisions.csv"
    table.write_text(table.read_text().replace("dark", "bright", 1))
    assert "decisions.csv: line" in fault(task, "--status")


def test_wrong_words_are_refused(task: Task) -> None:
    assert "no review in" in fault(task, "--status")
    assert "did you mean 'ridge-hog'" in fault(task, "--system", "rigde-hog", "--status")
    assert run(task, "--stop", "--resume").exit_code == 2
    assert run(task, "--json").exit_code == 2
    assert run(task, "--top", 3).exit_code == 2


def test_second_looks_and_differences_go_through_tables(task: Task, tmp_path: Path) -> None:
    review_all(Queue(begin(task, twice=1.0)), "Ann")
    second = read_for(task, tmp_path / "second.csv", "Bob")
    assert len(second) == ALL
    for row in second:
        row["answer"] = POSITIVE
    assert run(task, "--import", write(tmp_path / "second.csv", second)).exit_code == 0
    words = ("--settle", "--reviewer", "Cem", "--export")
    assert run(task, *words, tmp_path / "settle.csv").exit_code == 0
    differing = read(tmp_path / "settle.csv")
    assert {row["part"] for row in differing} == {"settle"}
    for row in differing:
        row["answer"] = truth(row["id"])
    assert run(task, "--import", write(tmp_path / "settle.csv", differing)).exit_code == 0
    assert find_review(task).state.disputed() == []
    assert "no two reviewers differ" in fault(task, *words, tmp_path / "settle.csv")
    assert run(task, "--settle").exit_code == 2


def test_an_answer_is_taken_back_by_a_command(task: Task, tmp_path: Path) -> None:
    begin(task)
    table = tmp_path / "table.csv"
    table.write_text("id,answer\n40.png,dark\n")
    assert run(task, "--import", table, "--reviewer", "Ann").exit_code == 0
    table.write_text("id,answer\n40.png,bright\n")
    said = fault(task, "--import", table, "--reviewer", "Ann")
    assert "line 2: 40.png was decided by Ann already (dark): take that back first" in said
    assert "--undo '40.png'" in said
    assert "only who has decided" in fault(task, "--import", table, "--reviewer", "Bob")
    assert "Bob has not decided" in fault(task, "--undo", "40.png", "--reviewer", "Bob")
    assert "no image '4o.png'" in fault(task, "--undo", "4o.png", "--reviewer", "Ann")
    done = run(task, "--undo", "40.png", "--reviewer", "Ann")
    assert done.stdout == "taken back: 1 answer of Ann to 40.png\n"
    assert run(task, "--import", table, "--reviewer", "Ann").exit_code == 0
    assert [each.answer for each in find_review(task).state.reviewed.values()] == ["bright"]


@pytest.mark.parametrize("words", [["--status"], ["--stop"], ["--draw"], ["--undo", "40.png"]])
def test_only_the_page_and_a_table_begin_a_review(task: Task, words: list[str]) -> None:
    assert "no review 'ridge-hog' in" in fault(task, "--system", "ridge-hog", *words)
    assert not (task.work / "review").exists()


def test_status_shows_a_review_whose_images_have_changed(task: Task) -> None:
    review_all(Queue(begin(task)), "Ann", most=3)
    table = task.folder / "labels.csv"
    table.write_text(table.read_text().replace("\n30.png,", "\n30.png,dark"))
    done = run(task, "--status")
    assert done.exit_code == 0
    assert "have changed (images gone: 1, new: 0) since the review was opened" in done.stderr
    assert "have changed" in fault(task, "--stop")


def test_more_wrong_words_are_refused(task: Task, tmp_path: Path) -> None:
    begin(task)
    for words in (["--name", ""], ["--reviewer", " "]):
        assert run(task, *words, "--stop").exit_code == 2
    assert "has similarity 0.98, not 0.9" in fault(task, "--similarity", 0.9, "--status")
    assert len(fault(task, "--name", "x" * 10_000, "--status")) < 400
    assert run(task, "--stop").exit_code == 0
    said = fault(task, "--export", tmp_path / "x.csv")
    assert "reviewing was stopped with 30 looks left" in said
    assert "--resume" in said
