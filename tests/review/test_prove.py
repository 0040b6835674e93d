"""`prove`: an image's way, its answer computed again, and every changed byte named."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from reviewed import begin, digest_of_image, review_all

from archiveprobe.cli import main
from archiveprobe.review.queue import Queue
from archiveprobe.review.store import Review
from archiveprobe.task.config import Task

NAME = "40.png"


@pytest.fixture
def review(task: Task) -> Review:
    queue = Queue(begin(task))
    review_all(queue, "Ann")
    return queue.review


def run(task: Task, *words: str) -> Result:
    return CliRunner().invoke(main, ["prove", str(task.folder), *words])


@pytest.mark.proves("review")
def test_the_way_of_an_image_is_told(task: Task, review: Review) -> None:
    done = run(task, NAME, "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["ok"]
    assert record["image"] == digest_of_image(NAME)
    assert record["score_again"] == pytest.approx(record["score"], abs=1e-6)
    assert record["system"] == "ridge-hog"
    assert record["system_sha256"] == review.state.opened["system_digest"]
    assert record["fingerprints"][0]["backbone"] == "hog"
    assert record["embeddings"][0]["cosine"] == pytest.approx(1, abs=1e-6)
    [decision] = record["decisions"]
    assert (decision["reviewer"], decision["kind"]) == ("Ann", "decision")
    assert record["log"] == review.log.head
    again = run(task, digest_of_image(NAME))
    assert again.exit_code == 0
    assert digest_of_image(NAME) in again.stdout


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.proves("review")
@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (f"images/{NAME}", "has other bytes than were answered"),
        ("work/runs/ridge-hog/model-*.safetensors", "is damaged"),
        ("work/runs/ridge-hog/run.json", "is damaged"),
        ("work/review/ridge-hog/log.jsonl", "log.jsonl: line"),
        ("work/review/ridge-hog/decisions.csv", "decisions.csv: line"),
        ("work/review/ridge-hog/*-images.parquet", "was changed"),
    ],
)
def test_a_changed_byte_is_named(task: Task, review: Review, pattern: str, said: str) -> None:
    [file] = task.folder.glob(pattern)
    damage(file)
    done = run(task, NAME)
    assert done.exit_code == 1
    assert said in done.output


def test_a_shard_of_other_numbers_is_named(task: Task, review: Review) -> None:
    [file] = task.folder.glob("work/cache/*/shards/*.h5")
    damage(file)
    done = run(task, NAME)
    assert done.exit_code == 1
    assert file.name in done.output


def test_an_image_that_is_not_there_is_refused(task: Task, review: Review) -> None:
    done = run(task, "4o.png")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "no image '4o.png' in the review ridge-hog (did you mean" in done.stderr
    assert run(task, "0" * 64).exit_code == 1


@pytest.mark.usefixtures("review")
def test_an_image_that_cannot_be_read_is_told_from_an_unknown_one(task: Task) -> None:
    for name, said in (("broken.png", "cannot be read"), ("none.png", "no image 'none.png'")):
        done = run(task, name)
        assert done.exit_code == 1
        assert said in done.stderr
