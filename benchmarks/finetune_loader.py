"""What decoding once saves in training, and whether the loader keeps up with the network.

    .venv/bin/python benchmarks/finetune_loader.py [--images N] [--repeats N] [--device D]

First, epochs without a network over drawn 1080 x 1350 JPEGs: pixels decoded once and drawn from by
`finetune.loader`, against a DataLoader that opens, decodes and augments every image in every
epoch, as training scripts on torchvision and timm do. Both draw a recipe's augmentation in a
process per core. No target is set: the ratio hangs on how much of an image the recipe draws. Given
beside it is after how many epochs the one decoding has paid; the start of the decoder processes,
which is the same for any number of images, is a figure of its own.

Second, epochs of training through the loader, over the same steps on tensors that lie on the device
already; random weights, whose speed is that of trained ones. On a GPU, with the recipes' own
networks and three epochs of --rows rows in a row, the target is 1.2. On a CPU, with a small network
at 128 pixels, drawing and computing share the same cores, so the ratio says what drawing costs
beside computing: with the default number of processes there, whose target is 1.2 too, with none and
with one per core.

Paired measurements are taken in turn and every repeat gives a ratio; figures are medians. What a
loader has drawn ahead, as while another one was measured, is taken from it before: its figure is
that of a long run. Takes some five minutes on two idle cores, and several times that on busy ones.
"""

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from common import Figure, arguments, at_most, cores, load, report, timed
from drawn import draw_images
from PIL import Image

from archiveprobe.base.cores import let_waiting_threads_sleep
from archiveprobe.embed.backbones import BACKBONES, RANDOM, Backbone
from archiveprobe.embed.device import default_device
from archiveprobe.embed.libraries import make_torchvision_importable
from archiveprobe.embed.preprocess import Geometry, Preprocess
from archiveprobe.embed.view_sets import view_set
from archiveprobe.embed.views import RESAMPLING
from archiveprobe.finetune.augment import Augmentation, rand_augment
from archiveprobe.finetune.images import (
    MEMORY_LIMIT,
    ImageRows,
    Pixels,
    PixelSpec,
    load_pixels,
    stored_side,
)
from archiveprobe.finetune.loader import (
    AHEAD_PER_WORKER,
    Batch,
    BatchSampler,
    Draw,
    default_drawing,
    training_batches,
)
from archiveprobe.finetune.model import Network, build_network
from archiveprobe.finetune.recipe import Augment, Model, Recipe
from archiveprobe.finetune.recipe_file import load_recipe
from archiveprobe.finetune.split import Part
from archiveprobe.finetune.train import Trainer, TrainingData
from archiveprobe.task.decoding import digest

LIMIT = 1.2
# On a GPU an epoch takes seconds, and begins with what was drawn while the one before it ended.
EPOCHS = 3
Batches = Sequence[np.ndarray]
# The recipes whose augmentations are the lightest and the heaviest, at the side of their networks.
SIDES = {"nu-clip-last-block": 224, "kvochur-convnextv2-nano": 384}
SMALL = Model(backbone="timm:mobilenetv2_100", weights="random", size=128)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Album:
    """Images in a folder: their (name, digest), and where decoded ones may lie."""

    folder: Path
    files: list[tuple[str, str]]

    @property
    def images(self) -> Path:
        """Where the files lie."""
        return self.folder / "images"

    def pixels(self, spec: PixelSpec, files: Sequence[tuple[str, str]]) -> Pixels:
        """Files decoded as a run with a loader process per core decodes them."""
        return load_pixels(
            self.images,
            files,
            spec,
            self.folder / "work",
            workers=cores(),
            memory_limit=0 if cores() else MEMORY_LIMIT,
        )


@dataclass(frozen=True)
class Peers:
    """The dataset of a training script: an image is opened whenever it is asked for."""

    files: list[Path]
    augment: Augment
    preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Any:
        with Image.open(self.files[row]) as image:
            return peers_transform(self.augment, self.preprocess)(image.convert("RGB"))


@cache
def peers_transform(settings: Augment, preprocess: Preprocess) -> Any:
    """Return the recipe's augmentation in torchvision's and timm's own classes."""
    make_torchvision_importable()
    from torchvision import transforms as t

    size = preprocess.geometry.size
    asked = preprocess.geometry.interpolation
    name = asked if settings.interpolation == "weights" else settings.interpolation
    way = t.InterpolationMode(name)
    steps = [t.RandomResizedCrop(size, settings.crop_scale, settings.crop_ratio, way)]
    steps += [t.RandomHorizontalFlip(settings.flip)]
    if settings.rotation:
        steps.append(t.RandomRotation(settings.rotation))
    if any(settings.jitter):
        steps.append(t.ColorJitter(*settings.jitter))
    if settings.rand_augment is not None:
        steps.append(rand_augment(settings.rand_augment, size, preprocess.mean, RESAMPLING[name]))
    steps += [t.ToTensor(), t.Normalize(preprocess.mean, preprocess.std)]
    if settings.erasing:
        from timm.data.random_erasing import RandomErasing

        steps.append(RandomErasing(settings.erasing, mode="pixel", device="cpu"))
    return t.Compose(steps)


def main(words: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = arguments(__doc__, "finetune_loader")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default=None)
    parser.add_argument("--rows", type=int, default=1400)
    parser.add_argument("--recipes", nargs="+", choices=list(SIDES), default=list(SIDES))
    options = parser.parse_args(words)
    # As the commands do, before torch is loaded.
    let_waiting_threads_sleep()
    before = load()
    device = options.device or default_device()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as name:
        draw_images(Path(name) / "images", "JPEG", options.images)
        paths = sorted((Path(name) / "images").iterdir())
        album = Album(Path(name), [(path.name, digest(path.read_bytes())) for path in paths])
        for recipe in map(load_recipe, options.recipes):
            figures += drawing(album, recipe, options.repeats)
        if device == "cpu":
            small = load_recipe("kvochur-convnextv2-nano").model_copy(update={"model": SMALL})
            figures += training(album, small, device, len(paths), options.repeats)
        else:
            for recipe in map(load_recipe, options.recipes):
                figures += training(album, recipe, device, options.rows, options.repeats)
    report(options.json, figures, before)


def drawing(album: Album, recipe: Recipe, repeats: int) -> list[Figure]:
    """Epochs without a network: drawn from pixels decoded once, and decoded again."""
    size = SIDES[recipe.name]
    preprocess = Preprocess(Geometry(size, size), MEAN, STD)
    spec = spec_of(recipe, preprocess)
    few, start = timed(lambda: album.pixels(spec, album.files[:1]))
    with few:
        pass
    pixels, decode = timed(lambda: album.pixels(spec, album.files))
    peers = peers_loader(album, recipe, preprocess)
    pairs = []
    with pixels:
        source = ImageRows(pixels, preprocess, Augmentation(recipe.augment, preprocess, 0))
        for number in range(repeats + 1):
            with steady(source, recipe, len(album.files), workers=cores()) as batches:
                mine = timed(lambda at=batches: [0 for _ in at])[1]
            pair = mine, timed(lambda: [0 for _ in peers])[1]
            # The first round starts the processes.
            if number:
                pairs.append(pair)
    return drawing_figures(recipe.name, len(album.files), pairs, start, decode)


def sampler_of(recipe: Recipe, count: int, epochs: int) -> BatchSampler:
    """Return batches of all rows in every epoch."""
    rows, size = np.arange(count), recipe.optimizer.batch_size
    return BatchSampler(rows, rows % 2, batch_size=size, seed=0, epochs=range(epochs))


@contextmanager
def steady(
    source: ImageRows,
    recipe: Recipe,
    count: int,
    *,
    workers: int,
    epochs: int = 1,
    pin: bool = False,
) -> Iterator[Iterator[Batch]]:
    """Start a loader, and yield the batches of so many epochs that come once it runs steadily.

    What it has drawn ahead by then was drawn at no cost to whoever measures; it is passed over.
    """
    ahead = workers * AHEAD_PER_WORKER
    steps = epochs * sampler_of(recipe, count, 1).steps
    sampler = sampler_of(recipe, count, epochs + -(-2 * ahead // steps) * epochs)
    with closing(training_batches(source, sampler, workers=workers, pin=pin)) as batches:
        for _ in islice(batches, ahead):
            pass
        yield islice(batches, steps)


def peers_loader(album: Album, recipe: Recipe, preprocess: Preprocess) -> Any:
    """Return what goes through the files of an album in every epoch."""
    dataset = Peers([album.images / name for name, _ in album.files], recipe.augment, preprocess)
    workers = cores()
    kept = {"persistent_workers": True, "multiprocessing_context": "spawn"} if workers else {}
    from torch.utils.data import DataLoader

    return DataLoader(
        dataset, recipe.optimizer.batch_size, shuffle=True, num_workers=workers, **kept
    )


def drawing_figures(
    name: str, count: int, pairs: list[tuple[float, float]], start: float, decode: float
) -> list[Figure]:
    """Return how many times as fast, and when the first decoding has paid."""
    mine, peers = (float(np.median(column)) for column in zip(*pairs, strict=True))
    ratio = float(np.median([theirs / ours for ours, theirs in pairs]))
    once = max(0.0, decode - start) / max(1, count - 1)
    saved = (peers - mine) / count
    paid = round(once / saved, 1) if saved > 0 else "never"
    return [
        Figure(f"times as fast as decoding in every epoch, {name}", round(ratio, 2)),
        Figure(f"drawn from pixels decoded once, {name}", round(count / mine, 1), "images/s"),
        Figure(f"decoded in every epoch, {name}", round(count / peers, 1), "images/s"),
        Figure(f"decoding once, {name}", round(decode, 2), "s"),
        Figure(f"of that, starting the processes, {name}", round(start, 2), "s"),
        Figure(f"epochs until decoding once has paid, {name}", paid),
    ]


def training(album: Album, recipe: Recipe, device: str, count: int, repeats: int) -> list[Figure]:
    """Epochs of training, `count` rows each, over the same steps on resident tensors."""
    import torch

    network = fresh(recipe)
    files = [album.files[row % len(album.files)] for row in range(count)]
    default = default_drawing(device, sys.maxsize)
    processes = list(dict.fromkeys((0, default, cores()) if device == "cpu" else (default,)))
    epochs = 1 if device == "cpu" else EPOCHS
    with album.pixels(spec_of(recipe, network.preprocess), files) as pixels:
        draw = Augmentation(recipe.augment, network.preprocess, recipe.seed)
        source = ImageRows(pixels, network.preprocess, draw)
        tensors = torch.stack(
            [source[Draw(row, 0, 0)] for row in range(min(count, len(album.files)))]
        )
        tensors = tensors.to(device)
        trainer = trainer_of(network, source, recipe, device, count)
        times = []
        for number in range(repeats + 1):
            lap = [seconds(trainer, resident(sampler_of(recipe, count, epochs), tensors), epochs)]
            # One at a time: another one would draw ahead at the cost of the one that is measured.
            for workers in processes:
                how: dict[str, Any] = {"workers": workers, "epochs": epochs, "pin": device != "cpu"}
                with steady(source, recipe, count, **how) as batches:
                    lap.append(seconds(trainer, batches, epochs))
            # The first round warms up.
            if number:
                times.append(lap)
    name = recipe.name if device != "cpu" else f"a small network, {device}"
    return training_figures(name, count, processes, np.array(times), default)


def resident(sampler: BatchSampler, tensors: Any) -> Iterator[Batch]:
    """Yield batches of tensors that lie on the device: row r is the image r modulo their number."""
    for draws in sampler:
        yield draws, tensors[[draw.row % len(tensors) for draw in draws]]


def seconds(trainer: Trainer, batches: Iterator[Batch], epochs: int) -> float:
    """Return the seconds of an epoch of several in a row, always the same ones of the schedule."""
    trainer.history.clear()
    return timed(lambda: [trainer.train_epoch(batches) for _ in range(epochs)])[1] / epochs


def trainer_of(network: Network, source: Any, recipe: Recipe, device: str, count: int) -> Trainer:
    """Return a network in training on all rows, with nothing to choose an epoch by."""
    none = np.zeros(0, np.int64)
    part = Part("benchmark", np.arange(count), none, none)
    labels = np.arange(count) % 2
    data = TrainingData(source, labels, np.arange(count).astype(str), 2, 1, part)
    return Trainer(network.to(device), data, recipe, None, device)


def training_figures(
    name: str, count: int, processes: list[int], times: np.ndarray, default: int
) -> Iterator[Figure]:
    """Every loader over the resident tensors; times (repeats, 1 + loaders) in seconds.

    That with the `default` number of processes has a target.
    """
    for at, workers in enumerate(processes, 1):
        ratio = round(float(np.median(times[:, at] / times[:, 0])), 2)
        what = f"epoch through the loader / on resident tensors, {name}, processes: {workers}"
        yield at_most(what, ratio, LIMIT) if workers == default else Figure(what, ratio)
    speeds = count / np.median(times, 0)
    yield Figure(f"trained on resident tensors, {name}", round(float(speeds[0]), 1), "images/s")
    for workers, speed in zip(processes, speeds[1:], strict=True):
        what = f"trained through the loader, {name}, processes: {workers}"
        yield Figure(what, round(float(speed), 1), "images/s")


def spec_of(recipe: Recipe, preprocess: Preprocess) -> PixelSpec:
    """Return what a run keeps of every image."""
    geometry = preprocess.geometry
    side = stored_side(geometry.size, recipe.augment.crop_scale[0])
    return PixelSpec(side, geometry, view_set(recipe.predict.views))


def fresh(recipe: Recipe) -> Network:
    """Return the recipe's network, with random weights."""
    name = recipe.model.backbone
    backbone = BACKBONES.get(name) or Backbone(name, "timm", name.removeprefix("timm:"))
    return build_network(recipe.model, replace(backbone, weights=RANDOM), 2, seed=recipe.seed)


if __name__ == "__main__":
    sys.exit(main())
