"""A small task with many images to review, some of them copies, and what is true of them."""

import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from unit_archive import TASK, archive_of, fit, picture

from archiveprobe.archive.source import open_source
from archiveprobe.predict.archive import How, predict_folder
from archiveprobe.review.queue import Queue
from archiveprobe.review.reviewing import Given, Reviewing
from archiveprobe.review.store import Review, Wish, open_review
from archiveprobe.task.config import Task, load_task

LABELLED, OPEN, COPIES = 20, 30, 6
COUNT = 12
"""Images of the archive that `answered` makes."""
POSITIVE = "dark"


def copy_of(seed: int) -> bytes:
    """The same pixels in other bytes."""
    out = io.BytesIO()
    Image.open(io.BytesIO(picture(seed))).save(out, "PNG", compress_level=1)
    return out.getvalue()


def contents() -> dict[str, bytes]:
    """The images by name; those of odd numbers are positive, copies have the number they copy."""
    images = {f"{at:02}.png": picture(at) for at in range(LABELLED + OPEN)}
    return images | {f"copy-{at:02}.png": copy_of(at) for at in range(LABELLED, LABELLED + COPIES)}


def truth(name: str) -> str:
    return ("bright", POSITIVE)[int(name[-6:-4]) % 2]


def digest_of_image(name: str) -> str:
    return hashlib.sha256(contents()[name]).hexdigest()


@pytest.fixture(scope="session")
def reviewed_task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Embed the task and fit two probes; nobody may change it."""
    folder = tmp_path_factory.mktemp("reviewed") / "task"
    (folder / "images").mkdir(parents=True)
    lines = ["image,label"]
    for at, (name, content) in enumerate(contents().items()):
        (folder / "images" / name).write_bytes(content)
        lines.append(f"{name},{truth(name) if at < LABELLED else ''}")
    (folder / "images" / "broken.png").write_bytes(b"no image")
    (folder / "labels.csv").write_text("\n".join([*lines, "broken.png,"]))
    (folder / "task.toml").write_text(TASK.format(backbone="hog", views="flip"))
    task = load_task(folder)
    fit(task)
    return task


@pytest.fixture
def task(reviewed_task: Task, tmp_path: Path) -> Task:
    """A copy, free to be changed."""
    shutil.copytree(reviewed_task.folder, tmp_path / "task")
    return load_task(tmp_path / "task")


@pytest.fixture
def known_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the same images every time: some draws miss the truth, or what a test is about."""
    monkeypatch.setattr("secrets.token_hex", lambda count: "5a" * count)


def begin(task: Task, **wish: object) -> Review:
    """Begin a review of the rows to predict by the answers of ridge."""
    return open_review(task, Wish(**{"system": "ridge-hog", **wish}))  # type: ignore[arg-type]


def review_all(
    queue: Queue, reviewer: str, answer: Callable[[str], str] = truth, most: int = 1000
) -> list[str]:
    """Let a reviewer answer what the queue gives, at most so many looks; return what was shown."""
    reviewing, shown = Reviewing(queue, reviewer), []
    while len(shown) < most and (items := queue.next(reviewer, 1)):
        reviewing.decide([Given(items[0].image, answer(items[0].id))])
        shown.append(items[0].id)
    return shown


def answered(task: Task, folder: Path, *, keep: bool = False) -> Path:
    images = archive_of(folder / "archive", [picture(100 + at) for at in range(COUNT)])
    (images / "zz.png").write_bytes(b"no image")
    how = How(device="cpu", workers=0, keep_embeddings=keep)
    predict_folder(task, "ridge-hog", open_source(str(images)), folder / "answers", how)
    return folder / "answers"


def review_of(task: Task, answers: Path) -> Review:
    return begin(task, system=None, source=answers)
