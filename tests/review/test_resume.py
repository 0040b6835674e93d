"""What was decided before a review goes on, and what is taken back, counts right."""

import json
from pathlib import Path

import pytest
from review_commands import exported, fault, read_for, run, write
from reviewed import COPIES, OPEN, begin, digest_of_image, review_all, truth

from archiveprobe.base.errors import InputError
from archiveprobe.review.decisions import SETTLE, TWICE
from archiveprobe.review.drawing import DrawWish, declare
from archiveprobe.review.queue import Queue
from archiveprobe.review.reviewing import Given, Reviewing
from archiveprobe.review.stopped import Stopped
from archiveprobe.review.store import find_review
from archiveprobe.task.config import Task

ALL = OPEN + COPIES


def drawn_and_resumed(task: Task, size: int = 8) -> set[str]:
    """Review a part, answer a draw, and go on; return the images drawn."""
    queue = Queue(begin(task))
    review_all(queue, "Ann", most=10)
    Reviewing(queue, "Ann").stop()
    images = set(declare(queue.review, DrawWish(size)).content["images"])
    review_all(queue, "Ann")
    Reviewing(queue, "Ann").resume()
    return images


@pytest.mark.proves("review")
def test_images_of_an_earlier_draw_are_reviewed(task: Task, tmp_path: Path) -> None:
    drawn = drawn_and_resumed(task)
    before = json.loads(run(task, "--status", "--json").stdout)
    rows = exported(task, tmp_path / "rest.csv")
    assert not drawn & {row["image"] for row in rows}
    assert len(rows) == before["looks_left"]
    assert sum(int(row["images"]) for row in rows) == ALL - before["reviewed"]
    for row in rows:
        row["answer"] = truth(row["id"])
    assert run(task, "--import", write(tmp_path / "rest.csv", rows)).exit_code == 0
    assert "nothing is left" in fault(task, "--export", tmp_path / "none.csv")
    done = run(task, "--stop")
    assert f"of {ALL} images reviewed are dark, 0 were not looked at" in done.stdout
    stopped = Stopped(find_review(task))
    said = stopped.line.content
    assert (said["reviewed"], said["unseen"]) == (len(stopped.answers), 0)
    assert said["found"] == stopped.found


def test_what_was_decided_of_a_draw_counts_once_after_it(task: Task) -> None:
    drawn_and_resumed(task)
    state = find_review(task).state
    assert sum(each["decisions"] for each in state.reviewers()) == len(state.reviewed)


def test_a_draw_that_was_looked_at_says_what_comes_next(task: Task) -> None:
    queue = Queue(begin(task))
    review_all(queue, "Ann", most=10)
    Reviewing(queue, "Ann").stop()
    declare(queue.review, DrawWish(4))
    assert "a random draw is looked at" in run(task, "--status").stdout
    review_all(queue, "Ann")
    assert "a random draw was looked at: certify" in run(task, "--status").stdout


@pytest.mark.proves("review")
def test_nobody_overwrites_the_answers_of_an_earlier_draw(task: Task, tmp_path: Path) -> None:
    drawn = drawn_and_resumed(task)
    name = next(iter(drawn))
    bad = write(tmp_path / "bad.csv", [{"image": name, "answer": "unsure", "reviewer": "Bob"}])
    assert "was decided by Ann already" in fault(task, "--import", bad)
    assert not drawn & {row["image"] for row in read_for(task, tmp_path / "bob.csv", "Bob")}
    queue = Queue(find_review(task))
    Reviewing(queue, "Ann").undo(name, "draw")
    assert len(queue.undecided(name))
    assert len(Reviewing(queue, "Bob").decide([Given(name, "dark", alone=True)])) == 1


def twice_reviewed(task: Task) -> tuple[Queue, str]:
    """Let Ann and Bob differ on an image; return it."""
    queue = Queue(begin(task, twice=1.0, similarity=None))
    image = queue.next("Ann")[0].image
    Reviewing(queue, "Ann").decide([Given(image, "dark")])
    Reviewing(queue, "Bob").decide([Given(image, "bright")])
    return queue, image


@pytest.mark.proves("review")
def test_a_first_answer_taken_back_ends_the_second(task: Task) -> None:
    queue, image = twice_reviewed(task)
    Reviewing(queue, "Ann").undo(image)
    state = queue.review.state
    assert (state.pairs(), queue.twice_left(), state.waiting_for_second()) == ([], 0, [])
    Reviewing(queue, "Bob").decide([Given(image, "bright")])
    assert not state.pairs()
    assert state.waiting_for_second() == [image]
    assert queue.twice_left() == 1
    assert image not in {item.image for item in queue.next("Bob", 100)}
    with pytest.raises(InputError, match="decided by Bob already"):
        Reviewing(queue, "Bob").decide([Given(image, "bright")])
    # Another process reads the same from the log.
    assert json.loads(run(task, "--status", "--json").stdout)["twice_left"] == 1


@pytest.mark.proves("review")
@pytest.mark.parametrize(("reviewer", "part"), [("Ann", "queue"), ("Bob", TWICE)])
def test_a_settled_answer_ends_with_what_it_settled(task: Task, reviewer: str, part: str) -> None:
    queue, image = twice_reviewed(task)
    Reviewing(queue, "Cem").decide([Given(image, "dark", settles=True)])
    Reviewing(queue, reviewer).undo(image, part)
    state = queue.review.state
    assert image not in state.parts[SETTLE]
    Reviewing(queue, reviewer).decide([Given(image, "bright" if reviewer == "Ann" else "dark")])
    assert state.settled(image) == (None if reviewer == "Ann" else "dark")
    assert state.disputed() == []


def test_messages_name_ids(task: Task) -> None:
    queue = Queue(begin(task))
    image = digest_of_image("40.png")
    ann = Reviewing(queue, "Ann")
    with pytest.raises(InputError, match=r"Ann has not decided 40.png"):
        ann.undo(image)
    ann.decide([Given(image, "dark")])
    ann.stop()
    with pytest.raises(InputError, match=r"the answer to 40.png counts; --resume goes on"):
        ann.undo(image)


def test_an_answer_to_an_earlier_draw_counts_once_reviewing_stopped(task: Task) -> None:
    name = next(iter(drawn_and_resumed(task)))
    queue = Queue(find_review(task))
    Reviewing(queue, "Ann").stop()
    with pytest.raises(InputError, match=r"reviewing was stopped: the answer to .* counts"):
        Reviewing(queue, "Ann").undo(name, "draw")
    assert name in queue.review.state.reviewed
