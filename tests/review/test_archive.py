"""A review of an archive that `predict` has answered: images from where they lie, proved."""

import hashlib
from pathlib import Path

import pytest
from click.testing import CliRunner
from reviewed import COUNT, answered, begin, review_all, review_of
from unit_archive import archive_of, picture

from archiveprobe.archive.source import open_source
from archiveprobe.base.errors import InputError
from archiveprobe.cli import main
from archiveprobe.predict.archive import How, predict_folder
from archiveprobe.review.images import images_of
from archiveprobe.review.prove import prove
from archiveprobe.review.queue import Queue
from archiveprobe.review.refit import Refits
from archiveprobe.review.store import Wish, open_review
from archiveprobe.task.config import Task


def test_an_archive_is_reviewed_from_its_answers(task: Task, tmp_path: Path) -> None:
    review = review_of(task, answered(task, tmp_path))
    assert review.name == "answers"
    assert review.state.opened["system"] == "ridge-hog"
    assert (review.state.opened["images"], review.state.opened["outside"]) == (COUNT, 1)
    queue = Queue(review)
    item = queue.next("Ann")[0]
    images = images_of(review)
    assert hashlib.sha256(images.content(item.image)).hexdigest() == item.image
    for shown in (images.small(item.image), images.large(item.image)):
        assert shown is not None
        assert shown[8:12] == b"WEBP"
    assert len(review_all(queue, "Ann", lambda name: "dark")) == COUNT
    proof = prove(review, item.id)
    assert proof.ok, proof.faults
    with pytest.raises(InputError, match=r"no image of the review has an embedding"):
        Refits(queue, 5)


def test_a_column_that_was_named_for_the_answers_is_known_to_the_review(
    task: Task, tmp_path: Path
) -> None:
    archive_of(tmp_path / "archive", [picture(100), picture(101)])
    names = [file.name for file in sorted((tmp_path / "archive").iterdir())]
    lines = [f"old-{name},archive/{name}" for name in names]
    (tmp_path / "t.csv").write_text("\n".join(["old,now", *lines]))
    source = open_source(str(tmp_path / "t.csv"), path_column="now")
    how = How(device="cpu", workers=0)
    predict_folder(task, "ridge-hog", source, tmp_path / "answers", how)
    review = review_of(task, tmp_path / "answers")
    image = review.population.digest(0)
    assert hashlib.sha256(images_of(review).content(image)).hexdigest() == image


def test_it_learns_from_embeddings_that_were_kept(task: Task, tmp_path: Path) -> None:
    queue = Queue(review_of(task, answered(task, tmp_path, keep=True)))
    refits = Refits(queue, 5)
    review_all(queue, "Ann", lambda name: "dark", most=6)
    assert refits.run_if_due()


def test_what_changed_behind_it_is_named(task: Task, tmp_path: Path) -> None:
    answers = answered(task, tmp_path)
    review = review_of(task, answers)
    item = Queue(review).next("Ann")[0]
    (tmp_path / "archive" / item.id).write_bytes(picture(999))
    assert images_of(review).small(item.image) is None
    assert "has other bytes than were answered" in prove(review, item.id).faults[-1]
    record = answers / "answers.json"
    record.rename(tmp_path / "away.json")
    done = CliRunner().invoke(main, ["review", str(task.folder), "--status"])
    assert done.exit_code == 1
    assert "is no folder of answers" in done.stderr


def test_another_system_or_folder_is_refused(task: Task, tmp_path: Path) -> None:
    answers = answered(task, tmp_path)
    with pytest.raises(InputError, match="holds answers of ridge-hog, not of lda-hog"):
        open_review(task, Wish("lda-hog", answers))
    review_of(task, answers)
    with pytest.raises(InputError, match=r"has source .*answers, not None"):
        begin(task, name="answers")
