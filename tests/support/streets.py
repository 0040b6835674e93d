"""A task of drawn JPEGs, and stand-ins for a GPU's decoder of them that compute on the CPU.

They decode as NVIDIA's library does through torchvision, with simple upsampling of colours.
"""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import torch
from click.testing import CliRunner, Result
from PIL import Image

from archiveprobe import cli
from archiveprobe.cache.reader import Reader
from archiveprobe.cache.spec import CacheRecord, find_caches
from archiveprobe.embed import gpu_decoding
from archiveprobe.embed.gpu_jpeg import jpeg_decoder
from archiveprobe.embed.networks import Network
from archiveprobe.task.decoding import digest

TASK = """
name = "streets"
labels = ["one", "two"]
positive = "two"
[folds]
count = 2
repeats = 1
[embed]
backbones = ["tiny", "hog"]
views = "{views}"
decode = "{how}"
[backbone.tiny]
library = "timm"
name = "test_vit"
weights = "random"
arguments = {{ depth = 1, img_size = 32 }}
"""
Decode = Callable[[Sequence[bytes]], list[torch.Tensor]]


def as_a_gpu_does(files: Sequence[bytes], *, smooth: bool = False) -> list[torch.Tensor]:
    """Decode JPEGs to (3, height, width)."""
    decoded = [simplejpeg.decode_jpeg(file, "RGB", fastupsample=not smooth) for file in files]
    return [torch.from_numpy(pixels).permute(2, 0, 1) for pixels in decoded]


def inverted(files: Sequence[bytes]) -> list[torch.Tensor]:
    return [255 - pixels for pixels in as_a_gpu_does(files)]


def none_at_all(files: Sequence[bytes]) -> list[torch.Tensor]:
    raise RuntimeError("nvjpegDecodeBatched failed: 6")


def jpeg(seed: int, size: tuple[int, int] = (90, 70), **how: Any) -> bytes:
    """A smooth picture, as photographs are."""
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 5, 3), np.uint8)
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    image = image.convert(how.pop("mode", "RGB"))
    file = io.BytesIO()
    if how.get("save_all"):
        how["append_images"] = [image.rotate(90)]
    image.save(file, how.pop("format", "JPEG"), **how)
    return file.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(orientation, exif=exif)


def as_rgb(seed: int) -> bytes:
    """A JPEG that is stored as red, green and blue."""
    return jpeg(seed, keep_rgb=True, subsampling=0)


FOR_PILLOW = {
    "a.png": jpeg(1, format="PNG"),
    "progressive.jpg": jpeg(2, progressive=True),
    "cmyk.jpg": jpeg(3, mode="CMYK"),
    "rgb.jpg": as_rgb(4),
    "two.mpo.jpg": jpeg(5, format="MPO", save_all=True),
    "late.jpg": jpeg(6) + b"",
}
FOR_PILLOW["late.jpg"] = FOR_PILLOW["late.jpg"][:-2] + b"\x00" * 40 + b"\xff\xd9"


class Streets:
    """A task of drawn images, and a GPU that decodes by `by` (None: there is none)."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch
        self.settings()
        self.by(as_a_gpu_does)

    def settings(self, how: str = "gpu", views: str = "crops6") -> None:
        (self.folder / "task.toml").write_text(TASK.format(how=how, views=views), "utf-8")

    def add(self, name: str, content: bytes, label: str = "one") -> None:
        file = self.folder / "images" / label / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def by(self, decode: Decode | None) -> None:
        def decoder(device: str) -> Decode:
            if decode is None:
                return jpeg_decoder(device)
            return decode

        self._patch.setattr(gpu_decoding, "jpeg_decoder", decoder)

    def run(self, command: str, *words: str) -> Result:
        return CliRunner().invoke(cli.main, [command, str(self.folder), *words])

    def embed(self, workers: int = 0) -> tuple[dict[str, Any], str]:
        done = self.run("embed", "--workers", str(workers), "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout), done.stderr

    def caches(self, name: str = "tiny") -> list[CacheRecord]:
        return find_caches(self.folder / "work" / "cache", name)

    def rows(self, path: str) -> dict[str, np.ndarray]:
        """Return the rows of a cache by the name of the file."""
        reader = Reader(self.folder / path)
        files = list(self.folder.glob("images/*/*"))
        keys = {digest(file.read_bytes()): file.name for file in files}
        held = sorted(reader.keys)
        return {keys[key.hex()]: row for key, row in zip(held, reader.read(held)[1], strict=True)}


@pytest.fixture
def streets(tmp_path, monkeypatch) -> Streets:
    # In fp32 on every machine, so that caches have one name.
    monkeypatch.setattr(Network, "faster_precisions", lambda _: ())
    streets = Streets(tmp_path, monkeypatch)
    for seed in range(10, 22):
        streets.add(f"{seed}.jpg", jpeg(seed), ("one", "two")[seed % 2])
    return streets


def path_of(found: dict[str, Any], name: str = "tiny") -> str:
    [path] = [cache["path"] for cache in found["caches"] if cache["backbone"] == name]
    return str(path)
