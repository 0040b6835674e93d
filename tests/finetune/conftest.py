"""Networks of toy size: timm's own test models, and an open_clip configuration of one's own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from embed import libraries
from embed.backbones import Backbone
from finetune.model import Network, build_network
from finetune.settings import Model

libraries.torch().set_num_threads(1)
CLIP = """{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 3, "width": 32,
"head_width": 16, "patch_size": 8}, "text_cfg": {"context_length": 8, "vocab_size": 64,
"width": 32, "heads": 2, "layers": 1}}"""


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """A CLIP of 32 pixels: 17 tokens of width 32, three blocks, an embedding of 16."""
    file = tmp_path_factory.mktemp("configs") / "tiny-clip-tuned.json"
    file.write_text(CLIP)
    libraries.open_clip().add_model_config(file)
    return Backbone("own", "open_clip", file.stem, weights="random")


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
