"""Real photographs: every row agrees with a plain computation, one picture at a time.

The reference takes nothing from `embed`: models by the libraries themselves, their transforms or
torchvision's, fp32. Weights of CLIP and ConvNeXt-V2 cannot be had offline, so theirs are random,
saved to a file and loaded back by the way that real ones take.
"""

import csv
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from snapshots import current_cache

import archiveprobe as ap
from archiveprobe.cache.store import Reader
from archiveprobe.embed.run import Options, Summary, embed
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.manifest import read_manifest

pytestmark = pytest.mark.real

IMAGES = 12
AGREEMENT = 0.9995

TABLE = """
name = "real"
labels = ["not_destruction", "destruction"]
[images]
root = "{root}"
table = "labels.csv"
split = "split"
[embed]
backbones = [{backbones}]
views = "{views}"
"""
MOBILENET = """
[backbone.{name}]
library = "timm"
name = "{name}_100"
weights = "{weights}/{name}_100.safetensors"
arguments = {{ pad_type = "same" }}
[backbone.{name}.preprocess]
size = 224
resize = 256
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
"""


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def photographs(shared: Path) -> list[str]:
    with (shared / "data" / "vehicle_severity" / "labels.csv").open(newline="") as stream:
        return [row["image"] for row in csv.DictReader(stream)][:IMAGES]


def make_task(folder: Path, shared: Path, backbones: list[str], views: str, own: str) -> Task:
    data = shared / "data" / "vehicle_severity"
    lines = (data / "labels.csv").read_text().splitlines()[: IMAGES + 1]
    (folder / "labels.csv").write_text("\n".join([*lines, ""]))
    names = ", ".join(f'"{name}"' for name in backbones)
    head = TABLE.format(root=data / "images", backbones=names, views=views)
    (folder / "task.toml").write_text(head + own)
    return load_task(folder)


def rows_of(task: Task, backbone: str) -> np.ndarray:
    """(pictures, views, width) float64 in the order of the table."""
    keys = [bytes.fromhex(entry.digest) for entry in read_manifest(task)]
    record = current_cache(task, backbone)
    assert record is not None
    present, rows = Reader(record.folder).read(keys)
    assert present.all()
    return rows.astype(np.float64)


def agrees(rows: np.ndarray, wanted: np.ndarray) -> None:
    """Every row points the way of its own reference; those of other pictures do not."""
    assert rows.shape == wanted.shape
    assert cosines(rows, wanted).min() >= AGREEMENT
    assert cosines(rows, np.roll(wanted, 1, axis=0)).max() < AGREEMENT


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    return (left * right).sum(-1) / lengths


def one_by_one(files: list[Path], look: Callable[[Image.Image], Any], model: Any) -> np.ndarray:
    """Pictures through `look` (giving (views, 3, side, side)) and the model, one at a time."""
    rows = []
    with torch.inference_mode(), threads(1):
        for file in files:
            with Image.open(file) as image:
                rows.append(model(look(image.convert("RGB"))).numpy())
    return np.stack(rows).astype(np.float64)


@pytest.fixture(scope="module")
def mobilenets(shared, tmp_path_factory) -> tuple[Task, Summary]:
    folder = tmp_path_factory.mktemp("mobilenets")
    names = ["mobilenetv1", "mobilenetv2"]
    own = "".join(MOBILENET.format(name=name, weights=shared / "weights") for name in names)
    task = make_task(folder, shared, names, "crops6", own)
    with threads(1):
        return task, embed(task, Options(workers=1, device="cpu"))


def test_every_image_has_its_rows(mobilenets) -> None:
    _, summary = mobilenets
    assert (summary.images, summary.embedded, summary.failed) == (IMAGES, IMAGES, 0)
    assert [(one.rows, one.views, one.width) for one in summary.caches] == [
        (IMAGES, 6, 1024),
        (IMAGES, 6, 1280),
    ]


def test_a_transformer_gives_the_cached_rows(mobilenets) -> None:
    task, _ = mobilenets
    embedder = ap.Embedder("mobilenetv2", task=task.file, device="cpu", workers=0)
    rows = embedder.transform(ap.open(task.file).files())
    assert cosines(rows, rows_of(task, "mobilenetv2").mean(1)).min() > 0.9999


def test_a_second_run_has_nothing_to_do(mobilenets) -> None:
    task, _ = mobilenets
    summary = embed(task, Options(workers=0, device="cpu"))
    assert (summary.embedded, summary.reused) == (0, IMAGES)


def six_crops(image: Image.Image) -> Any:
    tv = importlib.import_module("torchvision.transforms.functional")
    bicubic = tv.InterpolationMode.BICUBIC
    resized = tv.resize(image, 224, bicubic)
    spare = max(resized.size) - 224
    crops = []
    for offset in (0, round(spare / 2), spare):
        corner = (0, offset) if resized.width >= resized.height else (offset, 0)
        crops.append(tv.crop(resized, *corner, 224, 224))
    crops += [tv.hflip(crop) for crop in crops]
    pixels = torch.stack([tv.to_tensor(crop) for crop in crops])
    return tv.normalize(pixels, [0.5] * 3, [0.5] * 3)


@pytest.mark.parametrize("name", ["mobilenetv1", "mobilenetv2"])
def test_mobilenets_agree_in_every_row_and_view(mobilenets, shared, name) -> None:
    task, _ = mobilenets
    model = timm.create_model(f"{name}_100", pretrained=False, pad_type="same").eval()
    state = load_file(shared / "weights" / f"{name}_100.safetensors")
    model.load_state_dict(state, strict=True)
    model.reset_classifier(0)
    files = [task.root / name for name in photographs(shared)]
    wanted = one_by_one(files, six_crops, model)
    agrees(rows_of(task, name), wanted)


def embed_from_file(
    folder: Path, shared: Path, library: str, model: str, state: dict[str, Any]
) -> np.ndarray:
    """The centre views' rows of the photographs, by a backbone whose weights come from a file."""
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()}, folder / "w.safetensors"
    )
    own = f'[backbone.own]\nlibrary = "{library}"\nname = "{model}"\nweights = "w.safetensors"\n'
    task = make_task(folder, shared, ["own"], "center", own)
    with threads(1):
        summary = embed(task, Options(workers=1, device="cpu"))
    assert (summary.embedded, summary.failed) == (IMAGES, 0)
    return rows_of(task, "own")[:, 0]


def test_clip_agrees_with_open_clip_in_every_row(shared, tmp_path) -> None:
    torch.manual_seed(11)
    name = "ViT-B-32-quickgelu"
    model, _, transform = open_clip.create_model_and_transforms(name, load_weights=False)
    rows = embed_from_file(tmp_path, shared, "open_clip", f"{name}/openai", model.state_dict())
    model.eval()
    files = [shared / "data/vehicle_severity/images" / name for name in photographs(shared)]
    look = lambda image: transform(image)[None]  # noqa: E731
    wanted = one_by_one(files, look, model.encode_image)[:, 0]
    assert rows.shape == (IMAGES, 512)
    agrees(rows, wanted)


def test_convnext_v2_agrees_with_timm_in_every_row(shared, tmp_path) -> None:
    torch.manual_seed(12)
    name = "convnextv2_nano.fcmae_ft_in22k_in1k_384"
    model = timm.create_model(name, pretrained=False)
    rows = embed_from_file(tmp_path, shared, "timm", name, model.state_dict())
    model.eval().reset_classifier(0)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    files = [shared / "data/vehicle_severity/images" / name for name in photographs(shared)]
    wanted = one_by_one(files, lambda image: transform(image)[None], model)[:, 0]
    assert rows.shape == (IMAGES, 640)
    agrees(rows, wanted)
