"""Images and tasks over them, drawn from seeds: benchmarks need no data."""

import io
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from archiveprobe.base.cores import usable_cores
from archiveprobe.cache.spec import CacheRecord
from archiveprobe.task.config import Task
from archiveprobe.task.manifest import read_manifest_with_digest
from archiveprobe.task.snapshot import CacheInUse, Snapshot, update_snapshot

# Random weights compute as fast as trained ones. "tiny" is for trying a benchmark out.
NETWORKS = {
    "clip": ("open_clip", "ViT-B-32-quickgelu", ""),
    "clip-l14": ("open_clip", "ViT-L-14-quickgelu", ""),
    "convnext": (
        "timm",
        "convnextv2_nano",
        "[backbone.convnext.preprocess]\nsize = 384\n"
        "mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]",
    ),
    "tiny": ("timm", "test_vit", ""),
}
LONG_NAMES = {
    "clip": "CLIP ViT-B/32",
    "clip-l14": "CLIP ViT-L/14",
    "convnext": "ConvNeXt-V2 Nano 384",
    "tiny": "tiny ViT",
}
# From so many images on they are drawn by a process per core.
_MANY = 200


def draw_images(
    folder: Path, form: str, count: int, *, width: int = 1080, height: int = 1350
) -> None:
    """Write files of smooth colour with grain, so that they compress as images do."""
    folder.mkdir(parents=True)
    draw = partial(_draw_image, folder, form, width, height)
    if count < _MANY:
        for number in range(count):
            draw(number)
        return
    with get_context("spawn").Pool(usable_cores()) as pool:
        pool.map(draw, range(count), chunksize=8)


def _draw_image(folder: Path, form: str, width: int, height: int, number: int) -> None:
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (40, 32, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))
    grain = rng.integers(-6, 7, (height, width, 1), dtype=np.int16)
    image = np.clip(smooth.astype(np.int16) + grain, 0, 255).astype(np.uint8)
    Image.fromarray(image).save(folder / f"{number:04}.{form.lower()}", form, quality=85)


def small_image(seed: int, side: int = 64) -> bytes:
    """Draw a JPEG of a few hundred bytes, another image for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    out = io.BytesIO()
    large = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    large.save(out, "JPEG", quality=80)
    return out.getvalue()


def write_task(
    folder: Path, networks: list[str], views: str, images: str = "", decode: str = "exact"
) -> Path:
    """Return a task.toml over `folder`/images; `images` are further lines under [images]."""
    quoted = ", ".join(f'"{name}"' for name in networks)
    lines = ['name = "benchmark"', 'labels = ["intact", "destroyed"]', "[images]", images]
    lines += ["[embed]", f"backbones = [{quoted}]", f'views = "{views}"']
    if decode != "exact":
        # A checkout that is measured against this one may not know the setting.
        lines.append(f'decode = "{decode}"')
    for name in networks:
        if name in NETWORKS:
            library, model, more = NETWORKS[name]
            lines += [f"[backbone.{name}]", f'library = "{library}"', f'name = "{model}"']
            lines += ['weights = "random"', more]
    (folder / "task.toml").write_text("\n".join([*lines, ""]))
    return folder / "task.toml"


def pin_caches(task: Task) -> None:
    """Write the snapshot of drawn caches and a drawn manifest, as `embed` does at its end."""
    records = [CacheRecord.read(file.parent) for file in task.work.glob("cache/*/fingerprint.json")]
    in_use = tuple(
        CacheInUse(record.request["asked"], record.folder.name, record.digest, True)
        for record in records
    )
    digest = read_manifest_with_digest(task)[1]
    update_snapshot(task, lambda _: Snapshot(task.file.name, digest, True, {}, in_use))
