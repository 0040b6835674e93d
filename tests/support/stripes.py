"""Images of noisy stripes that a tiny task tells apart, and the command line in this process."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from archiveprobe import cli
from archiveprobe.task.config import Task, load_task


def run(*words: str | Path) -> Result:
    """What a command says and answers."""
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def done(*words: str | Path) -> Result:
    """As `run`, of a command that must succeed."""
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    return result


def answer_of(*words: str | Path) -> Any:
    """The JSON answer of a command."""
    return json.loads(done(*words, "--json").stdout)


def quick(folder: Path, *words: str | Path) -> tuple[Task, str]:
    """The task after `init`, with fewer folds and views, and what was said."""
    said = done("init", folder, *words).stderr
    file = folder / "task.toml"
    text = file.read_text().replace("count = 5", "count = 3").replace("repeats = 5", "repeats = 1")
    file.write_text(text.replace('views = "crops6"', 'views = "center"'))
    return load_task(folder), said


def submitted(folder: Path) -> list[list[str]]:
    """The lines of the submission after embed and probe."""
    done("embed", folder)
    best = answer_of("probe", folder, "--probe", "ridge")["leaderboard"][0]["system"]
    done("submit", folder, "--system", best, "-o", folder.parent / "out.csv")
    return read_csv(folder.parent / "out.csv")


def draw_stripes(file: Path, number: int) -> str:
    """An image after a number, and its label: down for odd ones, across for even ones."""
    down = number % 2
    stripes = np.tile(np.arange(64) // 8 % 2 * 60 + 60, (64, 1))
    noise = np.random.default_rng(number).integers(0, 90, (64, 64, 3))
    pixels = (stripes if down else stripes.T)[..., None] + noise
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return ("across", "down")[down]


def write_csv(file: Path, rows: Sequence[Sequence[object]], encoding: str = "utf-8") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream).writerows(rows)


def read_csv(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.reader(stream))
