"""Which parameters learn at which rate and which of them decay, on networks of toy size."""

from collections import Counter

import pytest

from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries
from archiveprobe.finetune.optimiser import layer_of, make_optimiser, parameter_groups
from archiveprobe.finetune.recipe import load_recipe
from archiveprobe.finetune.settings import Optimiser

torch, timm = libraries.torch(), libraries.timm()
SIZES = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16), "num_classes": 0}


@pytest.fixture(scope="module")
def convnext():
    """A ConvNeXt-V2, with GRN, of 8 to 16 channels."""
    return timm.create_model("convnextv2_atto", **SIZES)


@pytest.fixture
def clip():
    """The visual tower of a CLIP with three blocks."""
    tower = libraries.open_clip().transformer.VisionTransformer
    return tower(32, 16, width=16, layers=3, heads=2, mlp_ratio=2.0, output_dim=8)


def head():
    return torch.nn.Linear(16, 2)


def of(groups, key: str, body) -> dict[str, float]:
    """The value of every trainable parameter of the body, by its name."""
    value = {id(p): group[key] for group in groups for p in group["params"]}
    return {name: value[id(p)] for name, p in body.named_parameters() if id(p) in value}


def test_one_dimensional_parameters_do_not_decay(convnext) -> None:
    settings = load_recipe("kvochur-convnextv2-nano").optimiser
    decay = of(parameter_groups(convnext, head(), settings), "weight_decay", convnext)
    shapes = {name: parameter.ndim for name, parameter in convnext.named_parameters()}
    assert decay == {name: 0.3 if ndim > 1 else 0.0 for name, ndim in shapes.items()}
    grn = [value for name, value in decay.items() if ".grn." in name]
    assert grn == [0.0] * 8
    assert Counter(decay.values())[0.3] == sum(ndim > 1 for ndim in shapes.values()) > 10


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_grn_does_not_decay_when_it_is_stored_with_four_dimensions(layer_decay) -> None:
    network = timm.create_model("convnextv2_atto", **SIZES)
    for block in network.modules():
        if hasattr(block, "grn"):
            block.grn.weight = torch.nn.Parameter(block.grn.weight.detach().view(1, 1, 1, -1))
    settings = Optimiser(weight_decay=0.3, layer_decay=layer_decay)
    decay = of(parameter_groups(network, head(), settings), "weight_decay", network)
    assert [decay[name] for name in decay if name.endswith("grn.weight")] == [0.0] * 4


def test_the_clip_paper_lets_everything_decay(clip) -> None:
    settings = load_recipe("nu-clip-last-block").optimiser
    groups = parameter_groups(clip, head(), settings)
    assert {group["weight_decay"] for group in groups} == {1e-4}


def test_rates_of_head_and_body(clip) -> None:
    settings = load_recipe("nu-clip-last-block").optimiser
    top = head()
    groups = parameter_groups(clip, top, settings)
    assert set(of(groups, "lr", top).values()) == {1e-3}
    body = of(groups, "lr", clip)
    assert list(body.values()) == pytest.approx([1e-5] * len(list(clip.parameters())))


def test_only_what_is_trainable_is_in_the_groups(clip) -> None:
    clip.requires_grad_(False)
    clip.transformer.resblocks[-1].requires_grad_(True)
    for settings in (Optimiser(), Optimiser(layer_decay=0.5)):
        names = of(parameter_groups(clip, head(), settings), "lr", clip)
        assert len(names) == 12
        assert all(name.startswith("transformer.resblocks.2.") for name in names)


def test_every_parameter_is_in_one_group(convnext) -> None:
    for layer_decay in (1.0, 0.5):
        groups = parameter_groups(convnext, head(), Optimiser(layer_decay=layer_decay))
        ids = [id(parameter) for group in groups for parameter in group["params"]]
        assert len(ids) == len(set(ids)) == len(list(convnext.parameters())) + 2


def test_layers_of_a_timm_network_halve_from_the_last(convnext) -> None:
    settings = Optimiser(head_rate=1e-3, body_rate=1e-4, layer_decay=0.5)
    rate = of(parameter_groups(convnext, head(), settings), "lr", convnext)
    # Stem, four stages, norm: five halvings between the first and the last.
    assert rate["head.norm.weight"] == pytest.approx(1e-4)
    assert rate["stages.3.blocks.0.mlp.fc1.weight"] == pytest.approx(5e-5)
    assert rate["stages.0.blocks.0.mlp.grn.bias"] == pytest.approx(1e-4 / 16)
    assert rate["stem.0.weight"] == pytest.approx(1e-4 / 32)


def test_layers_of_a_clip_tower_halve_from_the_last(clip) -> None:
    settings = Optimiser(head_rate=1e-3, body_rate=1e-4, layer_decay=0.5)
    rate = of(parameter_groups(clip, head(), settings), "lr", clip)
    by_hand = {
        "proj": 1e-4,
        "ln_post.weight": 1e-4,
        "transformer.resblocks.2.mlp.c_fc.weight": 5e-5,
        "transformer.resblocks.1.attn.in_proj_weight": 2.5e-5,
        "transformer.resblocks.0.ln_1.bias": 1.25e-5,
        "conv1.weight": 6.25e-6,
        "positional_embedding": 6.25e-6,
        "ln_pre.bias": 6.25e-6,
    }
    assert {name: rate[name] for name in by_hand} == pytest.approx(by_hand)


def test_the_last_block_keeps_its_depth_when_all_else_is_frozen(clip) -> None:
    clip.requires_grad_(False)
    clip.transformer.resblocks[-1].requires_grad_(True)
    settings = Optimiser(body_rate=1e-4, layer_decay=0.5)
    rate = of(parameter_groups(clip, head(), settings), "lr", clip)
    assert list(rate.values()) == pytest.approx([5e-5] * 12)


def test_layers_of_a_timm_tower_inside_open_clip(convnext) -> None:
    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.head = convnext, torch.nn.Linear(16, 4)

    layer = layer_of(Tower())
    assert layer("trunk.stem.0.weight") == 0
    assert layer("trunk.head.norm.weight") == 5
    assert layer("head.weight") == 6


def test_position_embeddings_do_not_decay(clip) -> None:
    settings = Optimiser(weight_decay=0.1)
    decay = of(parameter_groups(clip, head(), settings), "weight_decay", clip)
    assert decay["positional_embedding"] == decay["class_embedding"] == 0.0
    assert decay["proj"] == 0.1


def test_a_network_without_layers_refuses_a_layer_decay() -> None:
    body = torch.nn.Linear(4, 16)
    with pytest.raises(InputError, match=r"a Linear does not say .*: set layer_decay = 1.0"):
        parameter_groups(body, head(), Optimiser(layer_decay=0.9))


def test_a_frozen_body_needs_no_layers() -> None:
    body = torch.nn.Linear(4, 16).requires_grad_(False)
    top = head()
    assert len(of(parameter_groups(body, top, Optimiser(layer_decay=0.9)), "lr", top)) == 2


def test_nothing_to_train_is_refused() -> None:
    body, top = torch.nn.Linear(4, 16), head()
    with pytest.raises(InputError, match="nothing is left to train"):
        make_optimiser(body.requires_grad_(False), top.requires_grad_(False), Optimiser())


def test_one_step_of_adamw_by_hand() -> None:
    body, top = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    for module in (body, top):
        torch.nn.init.ones_(module.weight)
    settings = Optimiser(head_rate=0.1, body_rate=0.01, weight_decay=0.5)
    optimiser = make_optimiser(body, top, settings)
    assert isinstance(optimiser, torch.optim.AdamW)
    top(body(torch.ones(1, 1))).sum().backward()
    optimiser.step()
    # Decay first, weight x (1 - rate x 0.5); then the first step is the rate itself.
    assert float(top.weight.detach()) == pytest.approx(1 - 0.05 - 0.1, rel=1e-5)
    assert float(body.weight.detach()) == pytest.approx(1 - 0.005 - 0.01, rel=1e-5)
