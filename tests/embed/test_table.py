"""The contract of the table of backbones: every line is walked, built without memory."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from archiveprobe.embed import libraries
from archiveprobe.embed.backbones import BACKBONES, Backbone
from archiveprobe.embed.models import _build, _preprocess
from archiveprobe.embed.weights import declared, source

NETWORKS = [row for row in BACKBONES.values() if row.library != "descriptor"]
CHECKED_LICENCES = {"MIT", "Apache-2.0", "CC-BY-NC-4.0", "Apple-AMLR"}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def on_meta(backbone: Backbone) -> Any:
    """The network without memory: shapes are true, numbers are not there."""
    torch = libraries.torch()
    if backbone.library == "timm":
        with torch.device("meta"):
            return _build(backbone, declared(backbone))
    # A meta context breaks open_clip's own construction; its device argument works.
    config = declared(backbone)
    return (
        libraries.open_clip()
        .create_model(
            backbone.model,
            load_weights=False,
            pretrained_text=False,
            force_quick_gelu=bool(config.get("quick_gelu")),
            device="meta",
        )
        .visual
    )


@pytest.mark.parametrize("backbone", NETWORKS, ids=lambda row: row.name)
def test_a_line_of_the_table_is_true(backbone: Backbone) -> None:
    torch = libraries.torch()
    config = declared(backbone)
    module = on_meta(backbone).eval()
    geometry = _preprocess(backbone, module, config).geometry
    assert geometry.size == backbone.size
    with torch.inference_mode():
        pooled = module(torch.zeros(1, 3, geometry.size, geometry.size, device="meta"))
    assert tuple(pooled.shape) == (1, backbone.width)
    assert source(backbone).repository
    assert backbone.licence in CHECKED_LICENCES
    if config.get("license"):
        assert backbone.licence.lower() == config["license"]


def test_the_activation_belongs_to_the_weights() -> None:
    for backbone in NETWORKS:
        if backbone.library == "open_clip":
            built = libraries.open_clip().get_model_config(backbone.model)
            wanted = bool(declared(backbone).get("quick_gelu"))
            assert bool(built.get("quick_gelu")) == wanted, backbone.name
