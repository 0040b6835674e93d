"""How close embed comes to its limits: decoding alone, forward passes alone, and a peer's loop.

    .venv/bin/python benchmarks/embed_speed.py [--photographs N] [--device cpu|cuda] [--json FILE]

Draws its own 1080 x 1350 photographs and runs CLIP ViT-B/32 and ConvNeXt-V2 Nano 384 with random
weights, whose speed is that of trained ones. Loading libraries, building networks and trying the
precision on the first batch are left out everywhere. Quote the ratios: they come from one run.
"""

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from embed import libraries
from embed.backbones import BACKBONES
from embed.batches import Batches
from embed.decoding import default_workers, prepared
from embed.encoder import Encoder, make_encoder
from embed.job import Job, Settings
from embed.prepare import Order
from embed.run import Options, embed
from embed.views import view_set
from task.config import load_task
from task.images import digest

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = {"clip": ("open_clip", "ViT-B-32-quickgelu"), "convnext": ("timm", "convnextv2_nano")}
CONVNEXT = (
    "\n[backbone.convnext.preprocess]\nsize = 384\n"
    "mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n"
)


def main() -> None:
    """Run every pair of network and file format, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--json", type=Path, default=ROOT / "bench-results" / "embed_speed.json")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for form in ("JPEG", "PNG"):
            folder = Path(name) / form
            draw(folder / "images", form, options.photographs)
            for network in NETWORKS:
                rows.append(measure(folder, form, network, options.device, options.workers))
                print(json.dumps(rows[-1]), flush=True)
    peer = against_peer(min(options.photographs, 128), options.device)
    print(json.dumps(peer))
    options.json.parent.mkdir(exist_ok=True)
    options.json.write_text(json.dumps({"embed": rows, "peer": peer}, indent=2) + "\n")


def draw(folder: Path, form: str, count: int) -> None:
    """Photograph-like files: smooth colour with grain, so that they compress as photographs do."""
    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (40, 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((1080, 1350), Image.Resampling.BICUBIC)).astype(np.int16)
        grain = rng.integers(-6, 7, (1350, 1080, 1), dtype=np.int16)
        picture = Image.fromarray(np.clip(smooth + grain, 0, 255).astype(np.uint8))
        picture.save(folder / f"{number:04}.{form.lower()}", form, quality=85)


def measure(
    folder: Path, form: str, network: str, device: str, workers: int | None
) -> dict[str, Any]:
    """Embed, decoding alone and forward passes alone, one view, over the same photographs."""
    library, model = NETWORKS[network]
    (folder / "task.toml").write_text(
        f'name = "speed"\n[images]\nroot = "images"\n'
        f'[embed]\nbackbones = ["{network}"]\nviews = "center"\n'
        f'[backbone.{network}]\nlibrary = "{library}"\nname = "{model}"\nweights = "random"\n'
        + (CONVNEXT if network == "convnext" else "")
    )
    task = load_task(folder)
    precision = "fp16" if device.startswith("cuda") else "bf16"
    with timed_loads() as loads:
        started = time.perf_counter()
        summary = embed(task, Options(device=device, precision=precision, workers=workers))
        wall = time.perf_counter() - started - sum(loads)
    encoder = make_encoder(loads.backbone, device).at(precision)
    files = sorted((folder / "images").iterdir())
    pairs = [(file.name, digest(file.read_bytes())) for file in files]
    order = Order(task.root, {encoder.preprocess.geometry: view_set("center")})
    cores = len(os.sched_getaffinity(0))
    items, decode = timed(lambda: list(prepared(pairs, order, workers=cores)))
    forward = forward_seconds(encoder, items, Settings(device=device).batch)
    limit = max(decode, forward) if device.startswith("cuda") else decode + forward
    for cache in (folder / "work").rglob("*"):
        if cache.is_file():
            cache.unlink()
    return {
        "network": network,
        "format": form,
        "photographs": summary.images,
        "precision": encoder.precision,
        "workers": default_workers() if workers is None else workers,
        "embed_s": round(wall, 2),
        "decode_all_cores_s": round(decode, 2),
        "forward_s": round(forward, 2),
        "ratio_to_limit": round(wall / limit, 2),
    }


class Loads(list[float]):
    """Seconds spent loading networks, and the backbone that was loaded."""

    backbone: Any = None


@contextmanager
def timed_loads() -> Iterator[Loads]:
    """Take the time of building networks, so that it can be left out."""
    loads, real = Loads(), Job.load

    def load(job: Job) -> None:
        started = time.perf_counter()
        real(job)
        loads.append(time.perf_counter() - started)
        loads.backbone = job.backbone

    Job.load = load  # type: ignore[method-assign]
    try:
        yield loads
    finally:
        Job.load = real  # type: ignore[method-assign]


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the seconds it took."""
    started = time.perf_counter()
    result = action()
    return result, time.perf_counter() - started


def forward_seconds(encoder: Encoder, items: list[Any], size: int) -> float:
    """The forward passes alone, on pixels that are in memory, in the pipeline's batches."""
    batches = Batches(size, lambda _: None)
    seconds = 0.0
    for number, item in enumerate(items, start=1):
        [rendered] = item.views.values()
        batches.push(bytes.fromhex(item.digest), rendered)
        if batches.full or number == len(items):
            _, took = timed(lambda: list(batches.drain(encoder.encode)))
            seconds += took
    return seconds


def against_peer(count: int, device: str) -> dict[str, Any]:
    """CLIP ViT-B/32 on decoded pictures: ours, and the loop that peers run in fp32."""
    torch = libraries.torch()
    backbone = replace(BACKBONES["clip-vit-b32"], weights="random")
    exact = make_encoder(backbone, device)
    fast = exact.at(exact.candidates()[0]) if exact.candidates() else exact
    crops = np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), dtype=np.uint8)
    size, none = Settings(device=device).batch, np.zeros(count, bool)

    def ours() -> None:
        for start in range(0, count, size):
            part = slice(start, start + size)
            fast.encode(crops[part], none[part])

    def theirs() -> None:
        from torchvision.transforms.functional import normalize, to_tensor

        mean, std = exact.preprocess.mean, exact.preprocess.std
        pictures = [Image.open(io.BytesIO(bmp(crop))) for crop in crops]
        data = [normalize(to_tensor(picture), mean, std) for picture in pictures]
        with torch.no_grad():
            for batch in torch.utils.data.DataLoader(data, batch_size=64):
                exact._module(batch.to(device)).cpu()  # type: ignore[attr-defined]

    ours()
    pairs = [(timed(ours)[1], timed(theirs)[1]) for _ in range(3)]
    mine, peer = (float(np.median(column)) for column in zip(*pairs, strict=True))
    return {
        "pictures": count,
        "ours_per_s": round(count / mine, 1),
        "peer_per_s": round(count / peer, 1),
        "ratio": round(float(np.median([theirs / ours for ours, theirs in pairs])), 2),
    }


def bmp(crop: np.ndarray) -> bytes:
    """A crop as an uncompressed file, which costs next to nothing to open."""
    out = io.BytesIO()
    Image.fromarray(crop).save(out, "BMP")
    return out.getvalue()


if __name__ == "__main__":
    main()
