"""Drawn archives, and an encoder that counts what it is asked to embed."""

import copy
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import archiveprobe.embed.forward
import archiveprobe.embed.job
import archiveprobe.embed.prepare
import archiveprobe.embed.unit_encoder
from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.libraries import make_torchvision_importable
from archiveprobe.embed.preprocess import Geometry, Preprocess, from_task
from archiveprobe.embed.run import Options, Summary
from archiveprobe.embed.run import embed as run_embed
from archiveprobe.task.config import Task, load_task

torch.set_num_threads(1)


def draw_picture(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def draw() -> Callable[..., Image.Image]:
    """A smooth image, another one for every seed, by default 64 pixels wide and 48 high."""
    return draw_picture


class Archive:
    """A folder with a table and images; rows alternate between two labels."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ids: list[str] = []
        (folder / "images").mkdir(parents=True)

    def add(self, name: str, content: Image.Image | bytes | None) -> None:
        """A row with its file: an image (as PNG), bytes as they are, or None for no file."""
        self.ids.append(name)
        if isinstance(content, Image.Image):
            out = io.BytesIO()
            content.save(out, "PNG")
            content = out.getvalue()
        if content is not None:
            (self.folder / "images" / name).write_bytes(content)

    def add_drawn(self, seeds: Sequence[int], **size: int) -> None:
        for seed in seeds:
            self.add(f"{seed:03}.png", draw_picture(seed, **size))

    def file(self, name: str) -> Path:
        return self.folder / "images" / name

    def rename_all(self) -> None:
        for name in self.ids:
            if self.file(name).exists():
                self.file(name).rename(self.file(f"new-{name}"))
        self.ids = [f"new-{name}" for name in self.ids]

    def task(
        self,
        backbones: Sequence[str] = ("resnet18",),
        views: str = "center",
        settings: str = "",
        labels: Sequence[str] = ("intact", "destroyed"),
    ) -> Task:
        """Write the table and task.toml as they stand now, and load them."""
        lines = [f"{name},{labels[at % len(labels)]}" for at, name in enumerate(self.ids)]
        (self.folder / "labels.csv").write_text("\n".join(["image,label", *lines, ""]))
        names = ", ".join(f'"{name}"' for name in backbones)
        (self.folder / "task.toml").write_text(
            'name = "drawn"\nlabels = ["intact", "destroyed"]\n[images]\ntable = "labels.csv"\n'
            f'[folds]\ncount = 2\nrepeats = 2\n[embed]\nbackbones = [{names}]\nviews = "{views}"\n'
            + settings
        )
        return load_task(self.folder)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path / "archive")


@pytest.fixture
def mixed(archive: Archive) -> Archive:
    """Sixteen rows: ten images, two copies, and four without an image."""
    archive.add_drawn(range(7))
    archive.add("portrait.png", draw_picture(7, width=40, height=60))
    archive.add("square.png", draw_picture(8, width=50, height=50))
    archive.add("small.png", draw_picture(9, width=33, height=32))
    archive.add("copy-of-0.png", archive.file("000.png").read_bytes())
    archive.add("copy-of-3.jpg", archive.file("003.png").read_bytes())
    archive.add("cut.png", archive.file("001.png").read_bytes()[:-200])
    archive.add("page.jpg", b"<!doctype html><html>not found</html>")
    archive.add("copy-of-page.jpg", b"<!doctype html><html>not found</html>")
    archive.add("missing.png", None)
    return archive


class CountingEncoder:
    """Embeds a crop as the mean colours of a 4 x 4 grid: 48 numbers, and counts the crops.

    `answers` maps the colour of a crop's middle to numbers that stand in for its embedding.
    `log` is shared by all copies of the encoder: the number of crops in every call. More than
    `most` crops at a time raise `fault`.
    """

    random_weights = False

    def __init__(self, name: str, preprocess: Preprocess, weights: str) -> None:
        self.name = name
        self.preprocess = preprocess
        self.weights_digest = hashlib.sha256(weights.encode()).hexdigest()
        self.precision = "fp32"
        self.faster: tuple[str, ...] = ()
        self.answers: dict[tuple[int, ...], float] = {}
        self.log: list[int] = []
        self.before: Callable[[], None] = lambda: None
        self.most: float = np.inf
        self.fault: Exception = MemoryError()

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.empty(shape, dtype)

    def embed(
        self, crops: np.ndarray, mirror: np.ndarray, crop: np.ndarray | None = None
    ) -> np.ndarray:
        self.before()
        crops = crops if crop is None else crops[crop]
        if len(crops) > self.most:
            raise self.fault
        self.log.append(len(crops))
        looks = np.where(mirror[:, None, None, None], crops[:, :, ::-1], crops)
        side = looks.shape[1] // 4
        grid = looks.astype(np.float32).reshape(-1, 4, side, 4, side, 3).mean((2, 4))
        result = 1 + grid.reshape(len(crops), -1)
        for row, crop in zip(result, crops, strict=True):
            middle = tuple(crop[crop.shape[0] // 2, crop.shape[1] // 2])
            if middle in self.answers:
                row[:] = self.answers[middle]
        return result

    is_compiled = False

    def compiled(self) -> "CountingEncoder":
        other = copy.copy(self)
        other.is_compiled = True
        return other

    def at(self, precision: str) -> "CountingEncoder":
        other = copy.copy(self)
        other.precision = precision
        return other

    def faster_precisions(self) -> tuple[str, ...]:
        return self.faster


GEOMETRIES = {"resnet50": Geometry(48, 48)}


class Bench:
    """Runs the pipeline in this process, with counting encoders, and remembers what was said."""

    kind: type[CountingEncoder] = CountingEncoder

    def __init__(self) -> None:
        self.encoders: dict[str, CountingEncoder] = {}
        self.settings: dict[str, Any] = {}
        self.decoded = 0
        self.said: list[str] = []

    def encoder(self, backbone: Backbone, *_: str, **__: bool) -> CountingEncoder:
        zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        preprocess = Preprocess(GEOMETRIES.get(backbone.name, Geometry(32, 32)), zero, one)
        if backbone.preprocess is not None:
            preprocess = from_task(backbone.preprocess)
        file = Path(backbone.weights)
        weights = file.read_text() if file.is_file() else backbone.described
        encoder = self.kind(backbone.name, preprocess, weights)
        encoder.random_weights = backbone.weights == "random"
        for name, value in self.settings.items():
            setattr(encoder, name, value)
        self.encoders[backbone.name] = encoder
        return encoder

    @property
    def crops(self) -> int:
        """Crops embedded in the last run, over all backbones."""
        return sum(sum(encoder.log) for encoder in self.encoders.values())

    def run(self, task: Task, **options: Any) -> Summary:
        self.encoders, self.decoded, self.said = {}, 0, []
        chosen = Options(**{"workers": 0, "device": "cpu", "batch_size": 4} | options)
        return run_embed(task, chosen, notify=self.said.append)

    def text(self) -> str:
        return "\n".join(self.said)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench()
    real = archiveprobe.embed.prepare.decode_pixels

    def counted(*arguments: Any) -> Any:
        bench.decoded += 1
        return real(*arguments)

    monkeypatch.setattr(archiveprobe.embed.prepare, "decode_pixels", counted)
    monkeypatch.setattr(archiveprobe.embed.job, "load_backbone", bench.encoder)
    monkeypatch.setattr(archiveprobe.embed.unit_encoder, "load_backbone", bench.encoder)
    # One batch after the other, so that the order of calls is known; a test may ask for more cores.
    monkeypatch.setattr(archiveprobe.embed.forward, "usable_cores", lambda: 1)
    return bench


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], Mapping[str, Any]]:
    def tree(folder: Path) -> Mapping[str, Any]:
        """Every path below a folder, with the content and the mtime of files."""
        return {
            path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
            if path.is_file()
            else None
            for path in sorted(folder.rglob("*"))
        }

    return tree


def register_clip(file: Path) -> None:
    """Make open_clip know the model whose configuration lies in `file`, by the file's name."""
    make_torchvision_importable()
    import open_clip

    open_clip.add_model_config(file)


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of an open_clip model of 32 pixels and 16 numbers, registered for this session."""
    file = tmp_path_factory.mktemp("configs") / "tiny-clip-test.json"
    file.write_text(
        '{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, '
        '"head_width": 16, "patch_size": 8}, "text_cfg": {"context_length": 8, "vocab_size": 64, '
        '"width": 32, "heads": 2, "layers": 1}}'
    )
    register_clip(file)
    return file.stem


@pytest.fixture(scope="session")
def wordy_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """As tiny_clip, with the whole vocabulary of the bundled tokenizer."""
    file = tmp_path_factory.mktemp("configs") / "wordy-clip-test.json"
    file.write_text(
        '{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, '
        '"head_width": 16, "patch_size": 8}, "text_cfg": {"context_length": 8, '
        '"vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}}'
    )
    register_clip(file)
    return file.stem


@pytest.fixture(scope="session")
def make_backbone() -> Callable[..., Backbone]:
    def make_backbone(model: str, weights: str | Path = "random", **fields: Any) -> Backbone:
        """A backbone of one's own: timm's, or with library="open_clip" open_clip's."""
        base = Backbone("own", fields.pop("library", "timm"), model, weights=str(weights))
        return replace(base, **fields)

    return make_backbone


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and weights beside the repository."""
    folder = Path(__file__).parents[2].parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"no real material at {folder}")
    return folder
