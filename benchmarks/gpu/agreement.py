"""Whether every precision on a device gives the numbers that the CPU gives in fp32.

    cd benchmarks; ../.venv/bin/python -m gpu.agreement [--device cuda|cpu] [--tiny]

Random weights, drawn crops, a third of them mirrored. Of every precision: the least cosine of a
row to the CPU's fp32. fp32 itself and whatever `auto` chooses must reach 0.9995, and their rows
must be finite when stored as float16; the other precisions are only reported.
"""

from collections.abc import Iterator

import numpy as np
from common import Figure, arguments, at_least, exactly, load, report
from gpu.work import draw_crops, random_backbones

from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.networks import geometry_of, load_backbone
from archiveprobe.embed.precision import (
    AGREEMENT,
    PRECISIONS,
    choose_precision,
    computes,
    cosines,
)

NAMES = ("clip-vit-b32", "dfn-vit-l14", "siglip2-so400m-384", "convnextv2-nano-384")
NAMES += ("dinov3-vit-l16", "maxvit-base-384", "resnet50", "efficientnet-b3")
_CROPS = 8


def main(words: list[str] | None = None) -> None:
    """Compare, and print the table."""
    parser = arguments(__doc__, "gpu_agreement")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(words)
    before = load()
    figures: list[Figure] = []
    for backbone in random_backbones(NAMES, tiny=options.tiny):
        figures += compared(backbone, options.device)
    report(options.json, figures, before)


def compared(backbone: Backbone, device: str) -> Iterator[Figure]:
    """Yield how far every precision of a backbone is from fp32 on the CPU."""
    loaded = load_backbone(backbone, device)
    crops = draw_crops(geometry_of(loaded).size, _CROPS)
    mirror = np.arange(_CROPS) % 3 == 0
    expected = load_backbone(backbone, "cpu").at("fp32").embed(crops, mirror)
    chosen = choose_precision(loaded, crops, mirror)[0].precision
    for precision in (each for each in PRECISIONS if computes(each, device)):
        rows = loaded.at(precision).embed(crops, mirror)
        worst = round(float(np.min(cosines(rows, expected))), 6)
        name = f"least cosine to the CPU, {backbone.name}, {precision}"
        if precision not in ("fp32", chosen):
            yield Figure(name, worst)
            continue
        yield at_least(name, worst, AGREEMENT)
        stored = np.isfinite(rows.astype(np.float16)).all()
        yield exactly(f"finite when stored, {backbone.name}, {precision}", bool(stored), True)
    yield Figure(f"chosen by auto, {backbone.name}", chosen)


if __name__ == "__main__":
    main()
