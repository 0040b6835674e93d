"""A card gives the rows that the CPU gives, to the last promise, and takes over its caches."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from counted import Archive
from PIL import Image

from archiveprobe.cache.store import Reader
from archiveprobe.embed.backbones import BACKBONES, RANDOM, Backbone
from archiveprobe.embed.compiling import compile_network
from archiveprobe.embed.gpu_jpeg import jpeg_decoder
from archiveprobe.embed.gpu_views import GpuViews, by_pillow
from archiveprobe.embed.networks import geometry_of, load_backbone
from archiveprobe.embed.precision import AGREEMENT, PRECISIONS, choose_precision, computes, cosines
from archiveprobe.embed.prepare import PreparedImage
from archiveprobe.embed.preprocess import Geometry
from archiveprobe.embed.run import Options, embed
from archiveprobe.embed.text_tower import TextNetwork
from archiveprobe.embed.view_sets import view_set
from archiveprobe.task.decoding import DecodedPixels, decode_pixels, digest

pytestmark = pytest.mark.gpu
# One of each kind of network, the smallest that the libraries know.
FAMILIES = {
    "CLIP's ViT": "open_clip:ViT-B-32-quickgelu",
    "timm's tower in open_clip": "open_clip:ViT-B-16-SigLIP2",
    "ViT": "timm:test_vit4",
    "Eva": "timm:eva02_tiny_patch14_224",
    "DINOv3": "timm:vit_small_patch16_dinov3",
    "ConvNeXt": "timm:test_convnext2",
    "MaxViT": "timm:maxvit_pico_rw_256",
    "Swin": "timm:swin_tiny_patch4_window7_224",
    "ResNet": "timm:resnet18",
    "EfficientNet": "timm:test_efficientnet",
    "MobileNet": "timm:mobilenetv2_100",
    "FastViT": "timm:fastvit_t8",
}
CROPS = 6
BLOCKS = ("CLIP's ViT", "ViT", "Eva", "DINOv3")


def backbone_of(family: str, layers: str = "pooled") -> Backbone:
    library, _, model = FAMILIES[family].partition(":")
    return Backbone(family, library, model, weights=RANDOM, layers=layers)  # type: ignore[arg-type]


def crops_of(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth crops of other colours, every third one mirrored."""
    slope = np.linspace(0, 1, side)
    wave = np.sin(np.outer(slope, np.arange(1, CROPS + 1)) * 9)
    crops = (127 + 60 * wave.T[:, :, None, None] + 60 * slope[:, None]) % 255
    crops = np.broadcast_to(crops, (CROPS, side, side, 1)) + np.arange(3) * 20
    return crops.clip(0, 255).astype(np.uint8), np.arange(CROPS) % 3 == 0


def assert_agree(backbone: Backbone) -> None:
    """fp32 and what `auto` chooses agree with the CPU's fp32, row for row."""
    on_gpu, on_cpu = (load_backbone(backbone, device) for device in ("cuda", "cpu"))
    crops, mirror = crops_of(geometry_of(on_cpu).size)
    expected = on_cpu.embed(crops, mirror)
    chosen = choose_precision(on_gpu, crops, mirror)[0]
    for loaded in (on_gpu.at("fp32"), chosen):
        rows = loaded.embed(crops, mirror)
        assert np.isfinite(rows.astype(np.float16)).all()
        assert cosines(rows, expected).min() >= AGREEMENT, loaded.precision


@pytest.mark.parametrize("family", FAMILIES)
def test_images_agree_with_the_cpu(family) -> None:
    assert_agree(backbone_of(family))


@pytest.mark.parametrize("layers", ["last4", "tokens"])
@pytest.mark.parametrize("family", BLOCKS)
def test_tokens_agree_with_the_cpu(family, layers) -> None:
    assert_agree(backbone_of(family, layers))


def test_a_compiled_network_agrees_with_the_cpu() -> None:
    backbone = backbone_of("ConvNeXt")
    on_gpu, on_cpu = (load_backbone(backbone, device) for device in ("cuda", "cpu"))
    crops, mirror = crops_of(geometry_of(on_cpu).size)
    compiled, why = compile_network(
        on_gpu, crops, mirror, lambda loaded, *some: loaded.embed(*some)
    )
    assert compiled.is_compiled, why
    assert cosines(compiled.embed(crops, mirror), on_cpu.embed(crops, mirror)).min() >= AGREEMENT


def jpeg(seed: int, size: tuple[int, int], mode: str = "RGB", quality: int = 85) -> bytes:
    """A smooth picture, as photographs are."""
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 5, 3), np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.mark.parametrize("size", [(640, 480), (481, 641), (37, 90)])
@pytest.mark.parametrize("quality", [60, 95])
def test_jpegs_decoded_on_the_card_are_those_of_pillow(size, quality) -> None:
    geometry = Geometry(224, 224, decode="gpu")
    wanted = {geometry: view_set("crops6")}
    images = []
    for seed in range(6):
        content = jpeg(seed, size, "L" if seed == 5 else "RGB", quality)
        decoded = decode_pixels(content, "gpu")
        assert isinstance(decoded, DecodedPixels) and decoded.is_small
        images.append(PreparedImage(digest(content), decoded.observation, {}, content))
    gpu = GpuViews("cuda", jpeg_decoder("cuda"), wanted)
    for image, made in zip(images, gpu.on_gpu(images), strict=True):
        assert made is not None
        expected = by_pillow(image, wanted).views[geometry].crops.astype(int)
        assert np.abs(made.views[geometry].crops - expected).mean() < 5


def test_embed_decodes_on_the_card(archive: Archive) -> None:
    for seed in range(12):
        archive.add(f"{seed}.jpg", jpeg(seed, (300, 400)))
    net = '[backbone.net]\nlibrary = "timm"\nname = "test_vit4"\nweights = "random"\n'
    said: list[str] = []
    task = archive.task(["net"], "crops3", f'decode = "gpu"\n{net}')
    done = embed(task, Options(device="cuda", workers=0), notify=said.append)
    assert done.embedded == 12
    assert [line for line in said if "JPEGs decoded on the GPU agree" in line], said


def test_crops_reach_the_card_from_pinned_memory() -> None:
    import torch

    network = load_backbone(backbone_of("ViT"), "cuda")
    crops = network.allocate((2, 8, 8, 3), np.dtype(np.uint8))
    assert torch.from_numpy(crops).is_pinned()


def test_texts_agree_with_the_cpu() -> None:
    tower = replace(BACKBONES["clip-vit-b32"], weights=RANDOM, tower="text")
    on_gpu, on_cpu = (load_backbone(tower, device) for device in ("cuda", "cpu"))
    assert isinstance(on_cpu, TextNetwork)
    tokens = on_cpu.tokens(["a destroyed building", "a street", "rubble", "people"])
    none = np.zeros(len(tokens), bool)
    expected = on_cpu.embed(tokens, none)
    for precision in PRECISIONS:
        if computes(precision, "cuda"):
            rows = on_gpu.at(precision).embed(tokens, none)
            assert cosines(rows, expected).min() >= (0 if precision == "bf16" else AGREEMENT)


@pytest.mark.parametrize("precision", ["auto", "fp32", "tf32"])
@pytest.mark.parametrize("layers", ["pooled", "last4", "tokens"])
@pytest.mark.parametrize(("first", "then"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_cache_goes_over_to_the_other_device(
    archive: Archive, first, then, layers, precision
) -> None:
    if not computes("fp32" if precision == "auto" else precision, first):
        pytest.skip(f"no GPU: {first} has no {precision}")
    net = '[backbone.net]\nlibrary = "timm"\nname = "test_vit4"\nweights = "random"\n'
    settings = f'layers = "{layers}"\n{net}'
    archive.add_drawn(range(4))
    how = Options(device=first, workers=0, precision=precision)
    done = embed(archive.task(["net"], "crops3", settings), how)
    archive.add_drawn(range(4, 8))
    task = archive.task(["net"], "crops3", settings)
    more = embed(task, Options(device=then, workers=0))
    assert (more.reused, more.embedded) == (4, 4)
    assert [cache.path for cache in more.caches] == [cache.path for cache in done.caches]
    assert len(Reader(task.folder / more.caches[0].path).keys) == 8


# A context of CUDA takes memory that torch does not count as its own: the driver is asked.
COUNTS = """
import os, subprocess, sys
from archiveprobe.cli import main
main(sys.argv[1:], standalone_mode=False)
asked = ["nvidia-smi", "--query-compute-apps=pid,gpu_uuid", "--format=csv,noheader"]
lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
print("cards", len({line for line in lines if line.startswith(f"{os.getpid()},")}))
"""


def test_the_second_card_leaves_the_first_alone(archive: Archive) -> None:
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("no GPU: one card, and this needs two")
    archive.add_drawn(range(4))
    settings = '[backbone.net]\nlibrary = "timm"\nname = "test_vit4"\nweights = "random"\n'
    task = archive.task(["net"], "center", settings)
    words = ["embed", str(task.file), "--device", "cuda:1", "--workers", "0", "--json"]
    code = [sys.executable, "-c", COUNTS, *words]
    done = subprocess.run(code, capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.splitlines()[-1] == "cards 1"
