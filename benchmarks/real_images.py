"""Embed 1,714 real images with two real networks, and see whether the numbers are right.

    make bench
    .venv/bin/python benchmarks/real_images.py [--images N] [--json FILE]

Needs ../shared. Prints a table; every figure comes from this run. Takes about four minutes on two
cores: 20,568 views, less where crops of a square image are equal.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from common import ROOT, Figure, arguments, at_least, at_most, exactly, load, report, run

SHARED = ROOT.parent / "shared"
IMAGES = SHARED / "data" / "vehicle_severity"
EMBED_SECONDS, IDLE_SECONDS, HELP_SECONDS = 600, 1.5, 0.4
F1_FLOOR, AGREEMENT = 0.935, 0.9995
NETWORKS = {"mobilenetv1": "mobilenetv1_100", "mobilenetv2": "mobilenetv2_100"}

TASK = """
name = "vehicle-severity"
labels = ["not_destruction", "destruction"]
positive = "destruction"
[images]
root = {root}
table = "labels.csv"
split = "split"
[embed]
backbones = {backbones}
views = "crops6"
"""
BACKBONE = """
[backbone.{name}]
library = "timm"
name = "{model}"
weights = {weights}
arguments = {{ pad_type = "same" }}
[backbone.{name}.preprocess]
size = {size}
resize = {resize}
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""


def main(words: list[str] | None = None) -> None:
    """Run everything and print the table."""
    parser = arguments(__doc__, "real_images")
    parser.add_argument("--images", type=int, default=None)
    options = parser.parse_args(words)
    if not IMAGES.is_dir():
        sys.exit(f"skipped: this benchmark needs the images in {IMAGES}")
    before = load()
    with tempfile.TemporaryDirectory() as folder:
        task = write_task(Path(folder), options.images)
        figures = [*embed_figures(task), *start_figures(task), *quality_figures(task)]
    report(options.json, figures, before)


def write_task(folder: Path, images: int | None, size: int = 224) -> Path:
    """Write a task.toml over the shared images, with the two shared networks at a size."""
    lines = (IMAGES / "labels.csv").read_text().splitlines()
    kept = None if images is None else images + 1
    (folder / "labels.csv").write_text("\n".join(lines[:kept]) + "\n")
    text = TASK.format(
        root=json.dumps(str(IMAGES / "images")), backbones=json.dumps(list(NETWORKS))
    )
    for name, model in NETWORKS.items():
        weights = json.dumps(str(SHARED / "weights" / f"{model}.safetensors"))
        # Shorter sides in the proportion that the networks were made with.
        sides = {"size": size, "resize": round(size * 256 / 224)}
        text += BACKBONE.format(name=name, model=model, weights=weights, **sides)
    (folder / "task.toml").write_text(text)
    return folder / "task.toml"


def embed_figures(task: Path) -> list[Figure]:
    """Return the whole embed run, and the run after it, which has nothing to do."""
    first, seconds = run("embed", task, "--json")
    again, idle = run("embed", task, "--json")
    views = sum(cache["rows"] * cache["views"] for cache in first["caches"])
    rows = {cache["backbone"]: cache["rows"] for cache in first["caches"]}
    return [
        Figure("images", first["images"]),
        *(exactly(f"rows, {name}", count, first["images"]) for name, count in rows.items()),
        exactly("failed", first["failed"], 0),
        at_most("embed", round(seconds, 1), EMBED_SECONDS, "s"),
        Figure("views per second", round(views / seconds, 1)),
        exactly("embedded by the second run", again["embedded"], 0),
        at_most("second run", round(idle, 2), IDLE_SECONDS, "s"),
    ]


def start_figures(task: Path) -> list[Figure]:
    """Return how long a user waits for the things that need no work."""
    times = [run("--help")[1] for _ in range(5)]
    _, verify = run("cache", "verify", task, "--deep", "--json")
    median = round(float(np.median(times)), 2)
    return [
        at_most("--help, median of 5", median, HELP_SECONDS, "s"),
        Figure("cache verify --deep", round(verify, 2), "s"),
    ]


def quality_figures(task: Path) -> Iterator[Figure]:
    """Return what the exported embeddings are worth, and whether they agree with a plain loop."""
    file = task.parent / "all.h5"
    _, seconds = run("cache", "export", task, "-o", file)
    yield Figure("cache export", round(seconds, 2), "s")
    with h5py.File(file) as export:
        labels = export["label"].asstr()[:]
        ids = export["id"].asstr()[:]
        stored = {name: export[f"embeddings/{name}"][:].astype(np.float32) for name in NETWORKS}
    known = labels != ""
    truth = labels[known] == "destruction"
    means = {name: rows[known].mean(1) for name, rows in stored.items()}
    for name, matrix in {**means, "both": np.hstack(list(means.values()))}.items():
        score = round(macro_f1(matrix, truth), 3)
        what = f"macro-F1 of logistic regression, {name}, six views"
        # Set for one of the networks, over all images.
        yield at_least(what, score, F1_FLOOR) if name == "mobilenetv2" else Figure(what, score)
    middle = macro_f1(stored["mobilenetv2"][known, 1], truth)
    yield Figure("macro-F1 of logistic regression, mobilenetv2, one view", round(middle, 3))
    for name, model in NETWORKS.items():
        worst = worst_cosine(model, ids[::40], stored[name][::40])
        yield at_least(f"worst cosine to a plain loop, {name}", round(worst, 6), AGREEMENT)


def macro_f1(matrix: np.ndarray, truth: np.ndarray) -> float:
    """Score macro-F1 at 0.5 over 5 folds repeated three times, scaled columns, C = 0.01."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    scores = []
    for seed in range(3):
        folds = StratifiedKFold(5, shuffle=True, random_state=seed)
        guessed = cross_val_predict(model, matrix, truth, cv=folds)
        scores.append(f1_score(truth, guessed, average="macro"))
    return float(np.mean(scores))


def worst_cosine(model_name: str, ids: np.ndarray, stored: np.ndarray) -> float:
    """Return the worst agreement with timm, torchvision, fp32, one image and one view at a time."""
    from archiveprobe.embed.libraries import make_torchvision_importable

    make_torchvision_importable()
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import load_file
    from torchvision.transforms import functional

    model = timm.create_model(model_name, pad_type="same").eval()
    model.load_state_dict(load_file(SHARED / "weights" / f"{model_name}.safetensors"), strict=True)
    model.reset_classifier(0)
    worst = 1.0
    for name, rows in zip(ids, stored, strict=True):
        image = Image.open(IMAGES / "images" / name).convert("RGB")
        image = functional.resize(image, 224, functional.InterpolationMode.BICUBIC)
        across = image.width - 224 or image.height - 224
        wide = image.width > 224
        crops = [
            functional.crop(image, 0 if wide else at, at if wide else 0, 224, 224)
            for at in (0, round(across / 2), across)
        ]
        for row, crop in zip(rows, [*crops, *map(functional.hflip, crops)], strict=True):
            pixels = functional.normalize(functional.to_tensor(crop), [0.5] * 3, [0.5] * 3)
            with torch.inference_mode():
                expected = model(pixels[None])[0].numpy()
            cosine = row @ expected / (np.linalg.norm(row) * np.linalg.norm(expected))
            worst = min(worst, float(cosine))
    return worst


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
