"""Small drawn images, small tasks, and the check that a user's fault is told in one line."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_films import film, source, target  # noqa: F401
from PIL import Image

from archiveprobe.task.config import Task, load_task
from archiveprobe.task.rows import Row

LABELS = 'name = "t"\nlabels = ["intact", "destroyed"]\npositive = "destroyed"\n'
LONG_AGO = 1_600_000_000


@pytest.fixture(scope="session")
def make_task() -> Callable[..., Task]:
    def make_task(folder: Path, settings: str = "", *, head: str = LABELS, **tables: str) -> Task:
        """A task in `folder`; every other keyword is a CSV file's name and its text."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "images").mkdir(exist_ok=True)
        for name, text in tables.items():
            (folder / f"{name}.csv").write_bytes(text.encode())
        file = folder / "task.toml"
        file.write_text(head + settings, "utf-8")
        return load_task(file)

    return make_task


@pytest.fixture
def put(task: Task) -> Callable[..., Row]:
    def put(path: str, content: bytes = b"abc", seconds: int | None = LONG_AGO) -> Row:
        """A file below the root of the test's task, settled long ago, and its row."""
        file = task.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        if seconds is not None:
            os.utime(file, (seconds, seconds))
        return Row(path, path)

    return put


@pytest.fixture
def tree(make_task: Callable[..., Task], tmp_path: Path) -> Callable[..., Task]:
    def tree(*paths: str, settings: str = "") -> Task:
        """A task whose root holds files at `paths` that begin like a JPEG."""
        task = make_task(tmp_path, settings)
        for path in paths:
            file = task.root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"\xff\xd8\xff")
        return task

    return tree


@pytest.fixture(scope="session")
def draw() -> Callable[..., Image.Image]:
    def draw(seed: int, width: int = 120, height: int = 90) -> Image.Image:
        """A smooth image, another one for every seed."""
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    return draw


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    def encode(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
        out = io.BytesIO()
        picture.save(out, form, **options)
        return out.getvalue()

    return encode


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real material beside the repository."""
    folder = Path(__file__).parents[2].parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no real material at {folder}")
    return folder
