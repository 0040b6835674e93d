"""Films of drawn scenes, and what `frames` makes of them."""

import csv
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from archiveprobe import cli

Draw = Callable[..., Image.Image]
WIDE, HIGH = 96, 64


@pytest.fixture(scope="session")
def film(draw: Draw) -> Callable[..., Path]:
    av = pytest.importorskip("av", reason="the extra `frames` is not installed")

    def film(
        file: Path,
        scenes: Sequence[int | Image.Image],
        *,
        seconds: int = 2,
        rate: int = 10,
        codec: str = "mpeg4",
        prepare: Callable[[Any], None] = lambda _: None,
    ) -> Path:
        """A film of scenes without motion: drawn images, or those of these seeds."""
        file.parent.mkdir(parents=True, exist_ok=True)
        images = [draw(scene, WIDE, HIGH) if isinstance(scene, int) else scene for scene in scenes]
        with av.open(os.fspath(file), "w") as container:
            video = container.add_stream(codec, rate=rate)
            video.width, video.height, video.pix_fmt = *images[0].size, "yuv420p"
            video.bit_rate = 4_000_000
            prepare(video)
            for image in images:
                for _ in range(seconds * rate):
                    container.mux(video.encode(av.VideoFrame.from_image(image)))
            container.mux(video.encode())
        return file

    return film


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "frames"


def take(source: Path, target: Path, *words: str, code: int = 0) -> Result:
    command = ["frames", str(source), "-o", str(target), *words]
    done = CliRunner().invoke(cli.main, command)
    assert done.exit_code == code, done.stderr
    return done


def table(target: Path, name: str = "frames.csv") -> list[dict[str, str]]:
    with (target / name).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def error(target: Path, line: dict[str, str], expected: Image.Image) -> float:
    found = Image.open(target / line["image"])
    assert found.size == expected.size
    difference = np.asarray(found).astype(int) - np.asarray(expected.convert("RGB")).astype(int)
    return float(np.abs(difference).mean())
