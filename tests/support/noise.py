"""Small archives of noise with random labels: nothing can be learnt but the images themselves."""

from pathlib import Path

import numpy as np
from PIL import Image

_TASK = """
name = "noise"
labels = ["no", "yes"]
positive = "yes"
[images]
root = "."
table = "rows.csv"
id = "id"
path = "image"
[folds]
count = 3
repeats = {repeats}
group = "none"
[embed]
backbones = ["hog"]
views = "center"
"""


def draw_noise(folder: Path, labelled: int, more: int, *, repeats: int = 1) -> None:
    """Write an archive: so many images in the table with a label, half of each, and `more` files.

    The files without a line are named on after the others.
    """
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for row in range(labelled + more):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{row}.png")
    labels = rng.permutation(np.arange(labelled) % 2)
    lines = [f"{row},{row}.png,{('no', 'yes')[label]}" for row, label in enumerate(labels)]
    (folder / "rows.csv").write_text("\n".join(["id,image,label", *lines, ""]))
    (folder / "task.toml").write_text(_TASK.format(repeats=repeats))


def add_row_to_predict(folder: Path, row: int) -> None:
    """Give a file a line without a label."""
    with (folder / "rows.csv").open("a") as table:
        table.write(f"{row},{row}.png,\n")
