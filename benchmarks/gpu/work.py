"""What the checks of a GPU share: networks of random weights, drawn tasks, commands that end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import COMMAND, ROOT
from drawn import draw_images
from PIL import Image

from archiveprobe.embed.backbones import BACKBONES, RANDOM, Backbone

# Tiny ones walk through a check on a CPU.
TINY = {
    "tiny-vit": Backbone("tiny-vit", "timm", "test_vit", weights=RANDOM),
    "tiny-conv": Backbone("tiny-conv", "timm", "test_convnext2", weights=RANDOM),
}
_SIDES = {True: (108, 135), False: (1080, 1350)}


class Attempt(NamedTuple):
    """How a command ended: its exit status (None: stopped at the limit), outputs and seconds."""

    status: int | None
    out: str
    err: str
    seconds: float

    @property
    def record(self) -> dict[str, Any]:
        """Return the JSON on stdout, empty where there is none."""
        result: dict[str, Any] = json.loads(self.out) if self.out.startswith("{") else {}
        return result

    @property
    def last_line(self) -> str:
        """Return the last line on stderr."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        return lines[-1][:240] if lines else ""

    @property
    def in_one_line(self) -> bool:
        """Say whether a fault was answered as promised: status 1, one line, no traceback."""
        return (
            self.status == 1
            and self.last_line.startswith("error: ")
            and "Traceback" not in self.err
        )


def random_backbones(names: Sequence[str], *, tiny: bool) -> list[Backbone]:
    """Return backbones of the table with random weights; with `tiny` two small networks."""
    if tiny:
        return list(TINY.values())
    return [replace(BACKBONES[name], weights=RANDOM) for name in names]


def draw_crops(side: int, count: int) -> np.ndarray:
    """Draw smooth crops (count, side, side, 3) uint8, another one for every number."""
    crops = []
    for number in range(count):
        coarse = np.random.default_rng(number).integers(0, 256, (9, 7, 3), np.uint8)
        large = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        crops.append(np.asarray(large))
    return np.stack(crops)


def draw_task(
    folder: Path,
    form: str,
    count: int,
    backbones: Sequence[Backbone],
    *,
    tiny: bool,
) -> Path:
    """Draw images with labels and write a task over them."""
    if not (folder / "images").exists():
        width, height = _SIDES[tiny]
        draw_images(folder / "images", form, count, width=width, height=height)
    files = sorted(path.name for path in (folder / "images").iterdir())
    rows = [f"{name},{('intact', 'destroyed')[at % 2]}" for at, name in enumerate(files)]
    (folder / "rows.csv").write_text("\n".join(["image,label", *rows, ""]))
    lines = ['name = "gpu"', 'labels = ["intact", "destroyed"]', "[images]", 'table = "rows.csv"']
    lines += ["[folds]", "count = 3", "repeats = 1", "[embed]"]
    lines += ['backbones = ["hog"]']
    for backbone in backbones:
        lines += [f"[backbone.{backbone.name}]", f'library = "{backbone.library}"']
        lines += [f'name = "{backbone.described.partition(":")[2]}"', f'weights = "{RANDOM}"']
    (folder / "task.toml").write_text("\n".join([*lines, ""]))
    return folder / "task.toml"


def attempt(
    *words: str | Path | int,
    limit: float,
    program: Sequence[str] = ("-c", COMMAND),
    prefix: Sequence[str] = (),
) -> Attempt:
    """Run a command and all its processes for at most `limit` seconds."""
    started = time.perf_counter()
    running = start(*words, program=program, prefix=prefix)
    try:
        out, err = running.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        kill(running)
        out, err = running.communicate()
        return Attempt(None, out, err, time.perf_counter() - started)
    return Attempt(running.returncode, out, err, time.perf_counter() - started)


def start(
    *words: str | Path | int,
    program: Sequence[str] = ("-c", COMMAND),
    prefix: Sequence[str] = (),
) -> "subprocess.Popen[str]":
    """Start a command as the first of a group of processes."""
    return subprocess.Popen(
        [*prefix, sys.executable, *program, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


def kill(running: "subprocess.Popen[str]") -> None:
    """Kill a command with all its processes."""
    os.killpg(running.pid, signal.SIGKILL)
