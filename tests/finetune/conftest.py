"""Networks of toy size, and an archive of striped images to train them on."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from counted import register_clip
from PIL import Image

from archiveprobe import cli
from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.libraries import make_torchvision_importable
from archiveprobe.embed.views import Rendered
from archiveprobe.finetune.loader import Draw
from archiveprobe.finetune.model import Network, build_network
from archiveprobe.finetune.recipe import Model, Recipe
from archiveprobe.finetune.recipe_file import changed, load_recipe
from archiveprobe.finetune.split import Part
from archiveprobe.finetune.train import TrainingData

# Before a test module imports timm or open_clip.
make_torchvision_importable()
torch.set_num_threads(1)
TASK = """
name = "stripes"
labels = ["across", "down"]
positive = "down"
[images]
root = "."
table = "rows.csv"
id = "id"
path = "image"
split = "split"
[folds]
count = 3
repeats = 2
group = "none"
[backbone.tiny]
library = "timm"
name = "test_vit"
weights = "random"
arguments = { img_size = 32 }
[backbone.tiny.preprocess]
size = 32
resize = 32
crop = "center"
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
[embed]
backbones = ["hog", "tiny"]
views = "center"
"""
QUICK = """
[model]
backbone = "timm:test_convnext2"
weights = "random"
size = 32
[schedule]
epochs = 2
[predict]
views = "flip"
"""


CLIP = """{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 3, "width": 32,
"head_width": 16, "patch_size": 8}, "text_cfg": {"context_length": 8, "vocab_size": 64,
"width": 32, "heads": 2, "layers": 1}}"""


@pytest.fixture(scope="session")
def tiny_clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of `tiny_clip`."""
    file = tmp_path_factory.mktemp("configs") / "tiny-clip-tuned.json"
    file.write_text(CLIP)
    return file


@pytest.fixture(scope="session")
def tiny_clip(tiny_clip_file: Path) -> Backbone:
    """A CLIP of 32 pixels: 17 tokens of width 32, three blocks, an embedding of 16."""
    register_clip(tiny_clip_file)
    return Backbone("own", "open_clip", tiny_clip_file.stem, weights="random")


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Backbone]:
    def tiny(model: str, **fields: Any) -> Backbone:
        """A timm network with random weights."""
        return replace(Backbone("own", "timm", model, weights="random"), **fields)

    return tiny


@pytest.fixture(scope="session")
def network_of() -> Callable[..., Network]:
    def network_of(backbone: Backbone, classes: int = 2, **settings: Any) -> Network:
        """A network on that backbone, with these settings under [model] of a recipe."""
        return build_network(Model(backbone="own", **settings), backbone, classes)

    return network_of


@dataclass
class Noise:
    """Rows of random images, which no augmentation touches; `drawn` are the inputs asked for.

    The row and epoch of `broken` are no numbers.
    """

    pixels: Any
    drawn: list[Draw] = field(default_factory=list)
    broken: tuple[int, int] | None = None

    @property
    def readable(self) -> np.ndarray:
        return np.ones(len(self.pixels), bool)

    def __getitem__(self, draw: Draw) -> Any:
        self.drawn.append(draw)
        broken = (draw.row, draw.epoch) == self.broken
        return self.pixels[draw.row] * (float("nan") if broken else 1.0)

    def rendered(self, row: int, views: Any) -> Rendered:
        image = self.pixels[row]
        crops = torch.stack([image.flip(-1) if view else image for view in views]).numpy()
        return Rendered(crops, tuple(range(len(crops))), (False,) * len(crops))


@pytest.fixture(scope="session")
def noise() -> Callable[..., TrainingData]:
    def noise(
        n: int = 16,
        *,
        validation: int = 0,
        held_out: int = 0,
        positive: int = 1,
        labels: Any = None,
        broken: tuple[int, int] | None = None,
    ) -> TrainingData:
        """n rows of noise; the last ones are held out, those before validate, the others train."""
        rows = np.arange(n)
        parts = np.split(rows, [n - validation - held_out, n - held_out])
        drawn = torch.randn(n, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        ids = np.array([f"image-{row}" for row in rows])
        y = rows // 2 % 2 if labels is None else np.asarray(labels)
        return TrainingData(
            Noise(drawn, broken=broken), y, ids, 2, positive, Part("fold-0", *parts)
        )

    return noise


@pytest.fixture(scope="session")
def small() -> Callable[..., Recipe]:
    def small(name: str, **changes: Any) -> Recipe:
        """A recipe for toy networks; in the changes `__` stands for the dot of a key."""
        given = {key.replace("__", "."): value for key, value in changes.items()}
        return changed(load_recipe(name), {"model.backbone": "own", "model.size": None} | given)

    return small


@pytest.fixture(scope="session")
def network_for() -> Callable[..., Network]:
    def network_for(recipe: Recipe, backbone: Backbone | str = "test_convnext2") -> Network:
        """The recipe's network on a backbone for 32 pixels, or on a timm network of that name."""
        if isinstance(backbone, str):
            recipe = changed(recipe, {"model.size": 32})
            backbone = Backbone("own", "timm", backbone, weights="random")
        return build_network(recipe.model, backbone, 2, seed=recipe.seed)

    return network_for


@pytest.fixture(scope="session")
def run() -> Callable[..., Result]:
    def run(*words: str | Path) -> Result:
        """The command line."""
        return CliRunner().invoke(cli.main, [str(word) for word in words])

    return run


def draw(folder: Path) -> None:
    """Pictures of noisy stripes, eight of them for validation, six to predict, one of them torn."""
    rng = np.random.default_rng(0)
    lines = ["id,image,label,split"]
    for number in range(42):
        down = number % 2
        stripes = np.tile(np.arange(48) // 6 % 2 * 60 + 60, (48, 1))
        pixels = (stripes if down else stripes.T)[..., None] + rng.integers(0, 90, (48, 48, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
        split = "train" if number < 28 else "validation" if number < 36 else "test"
        label = ("across", "down")[down] if number < 36 else ""
        lines.append(f"{number},{number}.png,{label},{split}")
    (folder / "41.png").write_bytes((folder / "41.png").read_bytes()[:99])
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    (folder / "task.toml").write_text(TASK)
    (folder / "quick.toml").write_text(QUICK)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory, run: Callable[..., Result]) -> Path:
    """An embedded archive, which nobody may change."""
    folder = tmp_path_factory.mktemp("stripes")
    draw(folder)
    done = run("embed", folder, "--workers", "0")
    assert done.exit_code == 0, done.stderr
    return folder


@pytest.fixture
def archive(embedded: Path, tmp_path: Path) -> Path:
    """A copy of its own."""
    folder = tmp_path / "archive"
    shutil.copytree(embedded, folder)
    return folder


@pytest.fixture(scope="session")
def finetune(run: Callable[..., Result]) -> Callable[..., Result]:
    def finetune(folder: Path, *words: str, recipe: str | None = None) -> Result:
        """Fine-tune an archive, by its quick recipe if none is named."""
        name = recipe or str(folder / "quick.toml")
        fixed = ("--device", "cpu", "--workers", "0")
        return run("finetune", folder, "--recipe", name, *fixed, *words)

    return finetune


@pytest.fixture(scope="session")
def tuned(
    embedded: Path,
    run: Callable[..., Result],
    finetune: Callable[..., Result],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """An archive with a probe, and all folds of a recipe, which nobody may change."""
    folder = tmp_path_factory.mktemp("tuned") / "archive"
    shutil.copytree(embedded, folder)
    assert run("probe", folder, "--probe", "ridge", "--features", "hog").exit_code == 0
    done = finetune(folder, "--fold", "all")
    assert done.exit_code == 0, done.stderr
    return folder
