"""Crops a second through a network: as embed calls it, alone on resident tensors, and compiled.

    cd benchmarks; ../.venv/bin/python -m gpu.forward_rates [--device cuda|cpu] [--tiny]

`as embed calls it` takes uint8 crops in memory and gives rows in memory; `resident` is the network
alone, its input on the device already, so the ratio is what copying and normalising cost. Random
weights. torch.compile's time to build is a figure of its own.
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
from common import Figure, arguments, load, report, timed
from gpu.work import draw_crops, random_backbones

from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.models import load_model
from archiveprobe.embed.networks import LoadedBackbone, geometry_of, load_backbone

NAMES = ("clip-vit-b32", "dfn-vit-l14", "convnextv2-nano-384")
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def main(words: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = arguments(__doc__, "gpu_forward_rates")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=2.0, help="for every figure")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(words)
    before = load()
    figures: list[Figure] = []
    for backbone in random_backbones(NAMES, tiny=options.tiny):
        loaded = load_backbone(backbone, options.device)
        for precision in ("fp32", *loaded.faster_precisions()):
            faster = loaded.at(precision)
            figures += [
                as_embed_calls_it(faster, batch, options.seconds) for batch in options.batches
            ]
        figures += resident(backbone, options, options.batches[-1])
    report(options.json, figures, before)


def as_embed_calls_it(loaded: LoadedBackbone, batch: int, seconds: float) -> Figure:
    """Return crops a second from numpy to numpy."""
    crops = draw_crops(geometry_of(loaded).size, min(batch, 16))
    crops = crops[np.arange(batch) % len(crops)]
    mirror = np.zeros(batch, bool)
    rate = rate_of(lambda: loaded.embed(crops, mirror), batch, seconds)
    name = f"as embed calls it, {loaded.name}, {loaded.precision}, batches of {batch}"
    return Figure(name, rate, "crops/s")


def resident(backbone: Backbone, options: argparse.Namespace, batch: int) -> Iterator[Figure]:
    """Yield crops a second of the network alone, at the last batch size."""
    import torch

    device, seconds = options.device, options.seconds
    model = load_model(backbone)
    side = model.preprocess.geometry.size
    names = ("fp32", "bf16") if device == "cpu" else tuple(_DTYPES)
    for precision in names:
        dtype = getattr(torch, _DTYPES[precision])
        module = model.module.to(device, dtype)
        pixels = torch.rand(batch, 3, side, side, device=device, dtype=dtype)
        call = calling(module, pixels, device)
        what = f"resident, {backbone.name}, weights in {precision}, batches of {batch}"
        yield Figure(what, rate_of(call, batch, seconds), "crops/s")
    if options.compile:
        compiled = calling(torch.compile(module), pixels, device)
        yield Figure(f"torch.compile, {backbone.name}", round(timed(compiled)[1], 1), "s")
        what = f"resident and compiled, {backbone.name}, weights in {precision}"
        yield Figure(what, rate_of(compiled, batch, seconds), "crops/s")


def calling(module: Callable[[object], object], pixels: object, device: str) -> Callable[[], None]:
    """Return a function that runs the network once and waits for the device."""
    import torch

    def call() -> None:
        with torch.inference_mode():
            module(pixels)
        if device != "cpu":
            torch.cuda.synchronize(device)

    return call


def rate_of(call: Callable[[], object], batch: int, seconds: float) -> float:
    """Return crops a second over at least `seconds`, after two passes that warm up."""
    call(), call()
    passes, started = 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds or not passes:
        call()
        passes += 1
    return round(passes * batch / spent, 1)


if __name__ == "__main__":
    main()
