"""The table of backbones, walked against the libraries; and the other names a task may use."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import torch

from archiveprobe.embed.backbones import BACKBONES, RANDOM, Backbone, resolve
from archiveprobe.embed.models import _build, _preprocess, quiet
from archiveprobe.embed.weights import files_on_hub, registry_config

ROWS = list(BACKBONES.values())
NETWORKS = [row for row in ROWS if row.library != "descriptor"]
LICENCES = {
    *("Apache-2.0", "MIT", "Apple-AMLR", "CC-BY-NC-4.0"),
    *("DINOv3-License", "NVIDIA-Open-Model-License"),
}
DOCS = Path(__file__).resolve().parents[2] / "docs" / "backbones.md"
# The same weights in timm, of which the table has open_clip's.
IN_TIMM = {
    "clip-vit-b32": "vit_base_patch32_clip_quickgelu_224.openai",
    "clip-vit-l14-336": "vit_large_patch14_clip_quickgelu_336.openai",
    "dfn-vit-l14": "vit_large_patch14_clip_quickgelu_224.dfn2b",
    "dfn-vit-h14-378": "vit_huge_patch14_clip_quickgelu_378.dfn5b",
    "siglip2-so400m-384": "vit_so400m_patch16_siglip_384.v2_webli",
    "siglip2-so400m-512": "vit_so400m_patch16_siglip_512.v2_webli",
    "pe-core-l14-336": "vit_pe_core_large_patch14_336.fb",
    "metaclip2-h14": "vit_huge_patch14_clip_quickgelu_224.metaclip2_worldwide",
    "metaclip2-h14-378": "vit_huge_patch14_clip_378.metaclip2_worldwide",
    "mobileclip2-s4": "fastvit_mci4.apple_mclip2_dfndr2b",
    "eva02-l14-336": "eva02_large_patch14_clip_336.merged2b",
    "laion-convnext-l-320": "convnext_large_mlp.clip_laion2b_ft_soup_320",
}


@pytest.fixture
def task(archive):
    archive.add_drawn([0])
    return archive.task(
        settings="""
[backbone.mine]
library = "timm"
name = "mobilenetv2_100"
weights = "../weights/w.safetensors"
arguments = { pad_type = "same" }
preprocess = { size = 224, resize = 256, mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }
[backbone.tagged]
library = "open_clip"
name = "ViT-B-32-quickgelu/openai"
[backbone.trial]
library = "timm"
name = "vit_small_patch16_224.augreg_in1k"
weights = "random"
[backbone.resnet50]
library = "timm"
name = "resnet50.b1k_in1k"
"""
    )


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_of_the_table_keeps_its_contract(row, task) -> None:
    assert row.name == row.name.lower()
    assert not set(row.name) & set(" /:.")
    assert row.library in ("timm", "open_clip", "descriptor")
    assert (row.tag is None) == (row.library == "descriptor")
    assert row.licence in LICENCES
    assert row.width > 0
    assert row.size % 2 == 0
    assert row.weights == "pretrained"
    assert row.model in row.described
    assert BACKBONES[row.name] is row
    if row.name not in task.backbone:
        assert resolve(row.name, task) == row
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.name = "other"


@pytest.mark.parametrize("row", NETWORKS, ids=lambda row: row.name)
def test_a_row_of_the_table_says_what_the_library_says(row: Backbone) -> None:
    config = registry_config(row)
    assert files_on_hub(row).repository
    if config.get("license"):
        assert row.licence.lower() == config["license"]
    if row.library == "open_clip":
        # Building the large ones takes up to 16 s each, even without memory.
        network = open_clip.get_model_config(row.model)
        size = network["vision_cfg"]["image_size"]
        assert (network["embed_dim"], size) == (row.width, row.size)
        # An activation that the weights lack; the reverse is put right by force.
        assert bool(network.get("quick_gelu")) == bool(config.get("quick_gelu"))
    else:
        with quiet(), torch.device("meta"):
            module = _build(row, config)
        assert module.num_features == row.width
        assert _preprocess(row, module, config).geometry.size == row.size


def test_a_network_of_the_table_gives_the_width_of_its_row() -> None:
    row = BACKBONES["clip-vit-b32"]
    # A meta context breaks open_clip's own construction; its device argument works.
    with quiet(), torch.inference_mode():
        clip = open_clip.create_model(row.model, load_weights=False, device="meta")
        pooled = clip.eval().visual(torch.zeros(1, 3, row.size, row.size, device="meta"))
    assert tuple(pooled.shape) == (1, row.width)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_messages_show_can_be_written_into_a_task(row, task) -> None:
    if row.library == "descriptor":
        assert row.described == "descriptor:hog"
        return
    found = resolve(row.described, task)
    assert (found.library, found.model, found.tag) == (row.library, row.model, row.tag)


def geometry_of(row: Backbone, **facts: object) -> str:
    """How a library resizes for weights: its own configuration, read without building them."""
    geometry = _preprocess(row, SimpleNamespace(**facts), registry_config(row)).geometry
    side = f"short side to {geometry.resize}, center {geometry.size}"
    way = f"squash to {geometry.size}" if geometry.crop == "squash" else side
    return f"{way}, {geometry.interpolation}"


def test_every_clip_is_compared_with_timm() -> None:
    assert set(IN_TIMM) == {row.name for row in NETWORKS if row.library == "open_clip"}


@pytest.mark.parametrize("name", IN_TIMM)
def test_where_the_libraries_resize_differently_is_documented(name) -> None:
    row = BACKBONES[name]
    model, _, tag = IN_TIMM[name].partition(".")
    other = Backbone("other", "timm", model, tag)
    config = registry_config(other)
    size = open_clip.get_model_config(row.model)["vision_cfg"]["image_size"]
    ours = geometry_of(row, image_size=size)
    theirs = geometry_of(other, pretrained_cfg=config, default_cfg=config)
    line = f"| `{name}` | {ours} | `timm:{IN_TIMM[name]}` | {theirs} |"
    assert (line in DOCS.read_text()) == (ours != theirs), line


def test_the_documented_table_is_the_table() -> None:
    lines = [
        f"| `{row.name}` | `{row.described}` | {row.width} | {row.size} | {row.licence} |"
        for row in ROWS
    ]
    assert "\n".join(lines) in DOCS.read_text()


def test_no_two_rows_are_the_same() -> None:
    assert len({(row.library, row.model, row.tag) for row in ROWS}) == len(ROWS)
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(
    ("name", "library", "model", "tag"),
    [
        ("timm:resnet18", "timm", "resnet18", None),
        ("timm:resnet18.a1_in1k", "timm", "resnet18", "a1_in1k"),
        ("timm:vit_base_patch14_dinov2.lvd142m", "timm", "vit_base_patch14_dinov2", "lvd142m"),
        ("open_clip:ViT-B-32/openai", "open_clip", "ViT-B-32", "openai"),
        ("open_clip:ViT-B-16-SigLIP2/webli", "open_clip", "ViT-B-16-SigLIP2", "webli"),
    ],
)
def test_a_librarys_own_name_works(task, name, library, model, tag) -> None:
    backbone = resolve(name, task)
    assert (backbone.name, backbone.library) == (name, library)
    assert (backbone.model, backbone.tag) == (model, tag)
    assert (backbone.width, backbone.size) == (None, None)
    assert backbone.weights == "pretrained"


def test_a_backbone_of_ones_own(task) -> None:
    mine = resolve("mine", task)
    assert (mine.library, mine.model, mine.tag) == ("timm", "mobilenetv2_100", None)
    assert mine.weights == str(task.folder / "../weights/w.safetensors")
    assert dict(mine.arguments) == {"pad_type": "same"}
    assert mine.preprocess.resize == 256


def test_ones_own_may_name_a_tag_or_ask_for_random_weights(task) -> None:
    tagged, trial = resolve("tagged", task), resolve("trial", task)
    assert (tagged.model, tagged.tag) == ("ViT-B-32-quickgelu", "openai")
    assert tagged.weights == "pretrained"
    assert (trial.model, trial.tag) == ("vit_small_patch16_224", "augreg_in1k")
    assert trial.weights == RANDOM


def test_ones_own_goes_before_the_table(task) -> None:
    assert resolve("resnet50", task).tag == "b1k_in1k"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("clip-vit-b23", ("'clip-vit-b23'", "'clip-vit-b32'", "task.toml", "list backbones")),
        ("mine2", ("'mine'",)),
        ("open_clip:ViT-B-32", ("open_clip:ARCH/TAG",)),
        ("timm:", ("timm:NAME",)),
        ("keras:resnet", ("'keras:resnet'",)),
        ("", ("''",)),
    ],
)
def test_an_unknown_name_is_one_line(task, fault_of, name, words) -> None:
    fault_of(lambda: resolve(name, task), *words)
