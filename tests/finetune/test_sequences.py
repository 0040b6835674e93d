"""Fine-tuning in the middle of things: folds trained at different times, between other changes.

Steps come in a random order; whatever they were, the system at the end is the one that the same
inputs give in one go, and nothing is trained or told on a state that is not whole.
"""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from archiveprobe.task.config import load_task
from archiveprobe.task.snapshot import update_snapshot

Command = Callable[..., Result]
ROWS, FOLDS, STEPS = 18, 3, 12
TASK = """
name = "noise"
labels = ["no", "yes"]
[images]
root = "images"
table = "rows.csv"
id = "id"
path = "image"
[folds]
count = 3
repeats = 1
group = "none"
[embed]
backbones = ["hog"]
views = "center"
"""
RECIPE = """
[model]
backbone = "timm:test_convnext2"
weights = "random"
size = 32
[optimizer]
lr = 1e-2
[schedule]
epochs = 1
monitor = "none"
[rows]
merged = true
"""


class Sequence:
    """A folder of noise, what was done to it, and the folds that are trained."""

    def __init__(self, folder: Path, run: Command, finetune: Command, seed: int) -> None:
        self.folder, self.run, self._finetune = folder, run, finetune
        self.rng = random.Random(seed)
        self.rows = [(str(at), f"{at}.png", ("no", "yes")[at % 2]) for at in range(ROWS)]
        (folder / "images").mkdir(parents=True)
        for _, name, _ in self.rows:
            self.draw(name)
        (folder / "task.toml").write_text(TASK)
        (folder / "quick.toml").write_text(RECIPE)
        self.write()
        self.embed()

    def draw(self, name: str) -> None:
        pixels = np.random.default_rng(self.rng.randrange(2**32)).integers(0, 256, (32, 32, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(self.folder / "images" / name)

    def write(self) -> None:
        lines = [",".join(row) for row in [("id", "image", "label"), *self.rows]]
        (self.folder / "rows.csv").write_text("\n".join(lines) + "\n")

    def embed(self) -> None:
        done = self.run("embed", self.folder, "--workers", "0")
        assert done.exit_code == 0, done.stderr

    def finetune(self, fold: object) -> Result:
        return self._finetune(self.folder, "--fold", str(fold))

    def refused(self, fold: object, words: str) -> None:
        done = self.finetune(fold)
        told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.exit_code == 1 and len(told) == 1 and words in told[0], done.stderr

    @property
    def trained(self) -> list[int]:
        parts = self.folder.glob("work/finetune/quick/fold-*/part.json")
        return sorted(int(part.parent.name.removeprefix("fold-")) for part in parts)

    # What may happen in between.

    def train(self) -> None:
        assert self.finetune(self.rng.randrange(FOLDS)).exit_code == 0

    def add_to_predict(self) -> None:
        name = f"{len(self.rows)}.png"
        self.draw(name)
        self.rows.append((name, name, ""))
        self.write()
        self.refused(self.rng.randrange(FOLDS), "1 of ")
        self.embed()

    def change_to_predict(self) -> None:
        for _, name, _ in self.rows[ROWS:][:1]:
            self.draw(name)
        self.embed()

    def rename(self) -> None:
        at = self.rng.randrange(len(self.rows))
        id_, name, label = self.rows[at]
        new = f"new-{name}"
        (self.folder / "images" / name).rename(self.folder / "images" / new)
        self.rows[at] = id_, new, label
        self.write()
        self.refused(0, "waits for embed")
        self.embed()

    def interrupt(self) -> None:
        """As a killed embed leaves it; tests/snapshot kills real ones."""
        update_snapshot(load_task(self.folder), lambda now: replace(now, decoded=False))
        self.refused(self.rng.randrange(FOLDS), "was interrupted")
        self.embed()

    def relabel(self) -> None:
        """A part of other labels is never gone on from."""
        id_, name, label = self.rows[0]
        self.rows[0] = id_, name, {"no": "yes", "yes": "no"}[label]
        self.write()
        for fold in self.trained:
            self.refused(fold, "was trained otherwise")
        self.rows[0] = id_, name, label
        self.write()

    def move(self) -> None:
        """To another machine."""
        there = self.folder.with_name(f"{self.folder.name}-moved")
        shutil.copytree(self.folder, there)
        shutil.rmtree(self.folder)
        self.folder = there

    def damage(self) -> None:
        for fold in self.trained[:1]:
            part = self.folder / f"work/finetune/quick/fold-{fold}"
            file = self.rng.choice([*part.glob("*.safetensors"), part / "part.json"])
            content = bytearray(file.read_bytes())
            content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
            file.write_bytes(content)
            self.refused(fold, str(part))
            shutil.rmtree(part)


def result_of(sequence: Sequence) -> tuple[list[dict], list[dict]]:
    done = sequence._finetune(sequence.folder, "--fold", "all", "--json")
    assert done.exit_code == 0, done.stderr
    board = json.loads(done.stdout)["leaderboard"]
    parts = sorted(sequence.folder.glob("work/finetune/quick/fold-*/part.json"))
    return [json.loads(part.read_text()) for part in parts], board


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happened_in_between_the_system_is_that_of_one_go(
    seed: int, tmp_path: Path, run: Command, finetune: Command
) -> None:
    sequence = Sequence(tmp_path / "way", run, finetune, seed)
    steps = [
        *[sequence.train] * 4,
        sequence.add_to_predict,
        sequence.change_to_predict,
        sequence.rename,
        sequence.interrupt,
        sequence.relabel,
        sequence.move,
        sequence.damage,
    ]
    for _ in range(STEPS):
        sequence.rng.choice(steps)()
    parts, board = result_of(sequence)
    direct = tmp_path / "direct"
    shutil.copytree(sequence.folder, direct, ignore=shutil.ignore_patterns("work"))
    (direct / "work").mkdir()
    shutil.copy(sequence.folder / "work/folds.csv", direct / "work/folds.csv")
    sequence.folder = direct
    sequence.embed()
    expected, board_of_one_go = result_of(sequence)
    digest = "weights.safetensors"
    assert [one["digests"][digest] for one in parts] == [one["digests"][digest] for one in expected]
    assert [line["macro_f1"] for line in board] == [line["macro_f1"] for line in board_of_one_go]
