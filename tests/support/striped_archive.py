"""Small archives of noisy stripes, drawn and embedded, and what their commands answer."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from stripes import run

LABELS = ("across", "down", "plain")
_TASK = """
name = "stripes"
labels = {labels}
{positive}
[images]
root = "."
[folds]
count = 3
repeats = 2
group = "none"
[embed]
backbones = ["hog"]
views = "center"
"""


def result_of(*words: str | Path) -> dict:
    """Run a command that answers with one JSON object on one line."""
    done = run(*words, "--json")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.count("\n") == 1
    result: dict = json.loads(done.stdout)
    return result


def striped_archive(
    folder: Path, labelled: int = 48, to_predict: int = 6, labels: int = 2, wrong: int = 8
) -> Path:
    """An embedded archive; one of `wrong` labels is wrong, all are random where that is 1."""
    rng = np.random.default_rng(0)
    for number in range(labelled + to_predict):
        kind = number % labels
        label = kind
        if wrong == 1:
            label = int(rng.integers(0, labels))
        elif number % wrong == 0:
            label = (kind + 1) % labels
        place = folder / (LABELS[label] if number < labelled else "unlabelled")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_stripes(kind, rng)).save(place / f"{number}.png")
    positive = 'positive = "down"' if labels == 2 else ""
    text = _TASK.format(labels=json.dumps(LABELS[:labels]), positive=positive)
    (folder / "task.toml").write_text(text)
    assert run("embed", folder).exit_code == 0
    return folder


def _stripes(kind: int, rng: np.random.Generator) -> np.ndarray:
    stripes = np.tile(np.arange(64) // 8 % 2 * 60 + 60, (64, 1))
    flat = (stripes.T, stripes, np.full((64, 64), 90))[kind]
    return (flat[..., None] + rng.integers(0, 90, (64, 64, 3))).astype(np.uint8)
