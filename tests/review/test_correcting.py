"""The answers of a review as corrections of the task, and as a table of their own."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from review_commands import fault, read, run
from reviewed import (
    COPIES,
    COUNT,
    LABELLED,
    OPEN,
    POSITIVE,
    answered,
    begin,
    digest_of_image,
    review_all,
    review_of,
    truth,
)
from unit_archive import fit

from archiveprobe.cli import main
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.review.queue import Queue
from archiveprobe.review.refit import Refits
from archiveprobe.review.reviewing import Given, Reviewing
from archiveprobe.review.store import find_review
from archiveprobe.task.config import Task
from archiveprobe.task.corrections import Correction, read_corrections, record_corrections


def corrected(task: Task) -> dict[str, object]:
    done = run(task, "--correct", "--json")
    assert done.exit_code == 0, done.stderr
    return dict(json.loads(done.stdout))


def decide(queue: Queue, who: str, name: str, answer: str, *, settles: bool = False) -> None:
    given = Given(digest_of_image(name), answer, alone=True, settles=settles)
    Reviewing(queue, who).decide([given])


def test_answers_become_labels_that_the_next_probe_learns_from(task: Task) -> None:
    review_all(Queue(begin(task)), "Ann")
    told = corrected(task)
    assert (told["changed"], sum(told["answers"].values())) == (OPEN + COPIES, OPEN + COPIES)
    dataset = load_dataset(task)
    given = {row.id: row.label for row in dataset.rows if row.correction is not None}
    assert given == {id_: truth(id_) for id_ in given} and len(given) == OPEN + COPIES
    assert len(dataset) == LABELLED + OPEN + COPIES
    assert {fix.who for fix in read_corrections(task).values()} == {"Ann"}
    done = CliRunner().invoke(main, ["probe", str(task.folder), "--probe", "ridge", "--json"])
    assert done.exit_code == 0, done.stderr
    assert f"{OPEN + COPIES} rows without a label labelled" in done.stderr


def test_the_review_goes_on_where_its_own_answers_are_labels(task: Task) -> None:
    queue = Queue(begin(task))
    shown = review_all(queue, "Ann", most=5)
    corrected(task)
    assert corrected(task)["changed"] == 0
    again = Queue(find_review(task))
    assert again.review.change() is None
    assert not set(review_all(again, "Ann")) & set(shown)
    assert run(task, "--stop").exit_code == 0
    status = json.loads(run(task, "--status", "--json").stdout)
    assert (status["stage"], status["looks_left"]) == ("stopped", 0)


def test_an_image_labelled_by_its_answer_counts_once_in_a_refit(task: Task) -> None:
    queue = Queue(begin(task))
    review_all(queue, "Ann", most=6)
    decided = len(queue.review.state.reviewed)
    corrected(task)
    assert Refits(queue, 5).run_if_due()
    [line] = find_review(task).state.refits
    assert (line.content["decisions"], line.content["labelled"]) == (0, LABELLED + decided)


def test_corrections_follow_the_review(task: Task) -> None:
    queue = Queue(begin(task))
    for name, answer in {"40.png": POSITIVE, "41.png": "unsure", "42.png": POSITIVE}.items():
        decide(queue, "Ann", name, answer)
    assert corrected(task)["answers"] == {POSITIVE: 2, "unsure": 1}
    fixes = read_corrections(task)
    assert (fixes["41.png"].label, fixes["41.png"].decision) == ("", "unsure")
    assert (fixes["40.png"].when, fixes["40.png"].old_label) == (
        queue.review.state.reviewed[digest_of_image("40.png")].time, "",
    )  # fmt: skip
    Reviewing(queue, "Ann").undo(digest_of_image("42.png"))
    Reviewing(queue, "Ann").undo(digest_of_image("41.png"))
    decide(queue, "Ann", "41.png", "bright")
    done = run(task, "--correct")
    assert "corrections.csv: 2 rows without a label labelled" in done.stderr
    assert "2 rows with an answer (1 dark, 1 bright); 1 answer taken back" in done.stdout
    fixes = read_corrections(task)
    assert {id_: fix.label for id_, fix in fixes.items()} == {"40.png": "dark", "41.png": "bright"}


def test_what_others_have_corrected_stays_and_is_named(task: Task) -> None:
    queue = Queue(begin(task))
    for name in ("40.png", "41.png"):
        decide(queue, "Ann", name, POSITIVE)
    others = {"40.png": "bright", "41.png": POSITIVE}
    record_corrections(task, [Correction(*other, who="Bob") for other in others.items()])
    told = corrected(task)
    assert (told["others"], told["changed"], told["answers"]) == (["40.png"], 0, {})
    assert {fix.who for fix in read_corrections(task).values()} == {"Bob"}
    assert "which stays: '40.png'\n" in run(task, "--correct").stdout


def test_where_two_reviewers_differ_nothing_is_recorded_until_it_is_settled(task: Task) -> None:
    queue = Queue(begin(task, twice=1.0))
    decide(queue, "Ann", "40.png", POSITIVE)
    decide(queue, "Bob", "40.png", "bright")
    assert (told := corrected(task))["disputed"] == 1 and not told["answers"]
    decide(queue, "Cem", "40.png", "bright", settles=True)
    corrected(task)
    fix = read_corrections(task)["40.png"]
    assert (fix.label, fix.who) == ("bright", "Cem")


def test_rows_that_the_table_labels_are_left_alone(task: Task) -> None:
    """A re-post of a labelled image lies among the rows to predict."""
    shutil.copy(task.folder / "images/00.png", task.folder / "images/repost.png")
    with (task.folder / "labels.csv").open("a") as table:
        table.write("\nrepost.png,")
    fit(task)
    assert truth("00.png") == "bright"
    review_all(Queue(begin(task)), "Ann", lambda _: "dark")
    corrected(task)
    assert read_corrections(task)["repost.png"].label == "dark"
    assert "00.png" not in read_corrections(task)
    assert find_review(task).change() is None


def test_the_answers_that_count_as_a_table(task: Task, tmp_path: Path) -> None:
    queue, file = Queue(begin(task)), tmp_path / "answers.csv"
    assert "has no answer yet" in fault(task, "--answers", file)
    decide(queue, "Ann", "40.png", POSITIVE)
    decide(queue, "Ann", "41.png", "unsure")
    done = run(task, "--answers", file)
    assert done.stdout == f"{file}: 2 rows with an answer (1 dark, 1 unsure)\n"
    rows = read(file)
    assert [(row["id"], row["answer"], row["reviewer"]) for row in rows] == [
        ("40.png", "dark", "Ann"), ("41.png", "unsure", "Ann"),
    ]  # fmt: skip
    assert rows[0]["image"] == digest_of_image("40.png")
    assert "is the table" in fault(task, "--answers", task.folder / "labels.csv")


def test_an_archive_has_answers_and_no_rows_to_correct(task: Task, tmp_path: Path) -> None:
    review_all(Queue(review_of(task, answered(task, tmp_path))), "Ann", lambda name: "dark")
    assert "has no rows of" in fault(task, "--correct")
    assert run(task, "--answers", tmp_path / "found.csv").exit_code == 0
    assert len(read(tmp_path / "found.csv")) == COUNT


@pytest.mark.parametrize("words", [["--correct", "--stop"], ["--correct", "--undo", "40.png"]])
def test_two_actions_exclude_each_other(task: Task, words: list[str]) -> None:
    begin(task)
    done = run(task, *words)
    assert done.exit_code == 2 and "exclude each other" in done.stderr


def test_corrections_that_are_turned_off_are_not_written(task: Task) -> None:
    decide(Queue(begin(task)), "Ann", "40.png", POSITIVE)
    text = task.file.read_text()
    task.file.write_text(f'corrections = ""\n{text}')
    assert "means that there are none" in fault(task, "--correct")
    assert not (task.folder / "corrections.csv").exists()
