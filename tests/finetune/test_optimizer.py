"""Which parameters learn at which rate and which of them decay, on networks of toy size."""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import open_clip
import pytest
import timm
import torch

from archiveprobe.base.errors import InputError
from archiveprobe.finetune.optimizer import (
    decay_per_step,
    layer_of,
    make_average,
    make_learning_rates,
    make_optimizer,
    parameter_groups,
)
from archiveprobe.finetune.recipe import Ema, Optimizer, Schedule
from archiveprobe.finetune.recipe_file import load_recipe

SIZES = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16), "num_classes": 0}


@pytest.fixture(scope="module")
def convnext():
    """A ConvNeXt-V2, with GRN, of 8 to 16 channels."""
    return timm.create_model("convnextv2_atto", **SIZES)


@pytest.fixture
def clip():
    """The visual tower of a CLIP with three blocks."""
    tower = open_clip.transformer.VisionTransformer
    return tower(32, 16, width=16, layers=3, heads=2, mlp_ratio=2.0, output_dim=8)


def head():
    return torch.nn.Linear(16, 2)


def of(groups, key: str, body) -> dict[str, float]:
    """The value of every trainable parameter of the body, by its name."""
    value = {id(p): group[key] for group in groups for p in group["params"]}
    return {name: value[id(p)] for name, p in body.named_parameters() if id(p) in value}


def test_one_dimensional_parameters_do_not_decay(convnext) -> None:
    settings = load_recipe("kvochur-convnextv2-nano").optimizer
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
    settings = Optimizer(weight_decay=0.3, layer_decay=layer_decay)
    decay = of(parameter_groups(network, head(), settings), "weight_decay", network)
    assert [decay[name] for name in decay if name.endswith("grn.weight")] == [0.0] * 4


def test_the_clip_paper_lets_everything_decay(clip) -> None:
    settings = load_recipe("nu-clip-last-block").optimizer
    groups = parameter_groups(clip, head(), settings)
    assert {group["weight_decay"] for group in groups} == {1e-4}


def test_rates_of_head_and_body(clip) -> None:
    settings = load_recipe("nu-clip-last-block").optimizer
    top = head()
    groups = parameter_groups(clip, top, settings)
    assert set(of(groups, "lr", top).values()) == {1e-3}
    body = of(groups, "lr", clip)
    assert list(body.values()) == pytest.approx([1e-5] * len(list(clip.parameters())))


def test_only_what_is_trainable_is_in_the_groups(clip) -> None:
    clip.requires_grad_(False)
    clip.transformer.resblocks[-1].requires_grad_(True)
    for settings in (Optimizer(), Optimizer(layer_decay=0.5)):
        names = of(parameter_groups(clip, head(), settings), "lr", clip)
        assert len(names) == 12
        assert all(name.startswith("transformer.resblocks.2.") for name in names)


def test_every_parameter_is_in_one_group(convnext) -> None:
    for layer_decay in (1.0, 0.5):
        groups = parameter_groups(convnext, head(), Optimizer(layer_decay=layer_decay))
        ids = [id(parameter) for group in groups for parameter in group["params"]]
        assert len(ids) == len(set(ids)) == len(list(convnext.parameters())) + 2


def test_layers_of_a_timm_network_halve_from_the_last(convnext) -> None:
    settings = Optimizer(head_lr=1e-3, lr=1e-4, layer_decay=0.5)
    rate = of(parameter_groups(convnext, head(), settings), "lr", convnext)
    # Stem, four stages, norm: five halvings between the first and the last.
    assert rate["head.norm.weight"] == pytest.approx(1e-4)
    assert rate["stages.3.blocks.0.mlp.fc1.weight"] == pytest.approx(5e-5)
    assert rate["stages.0.blocks.0.mlp.grn.bias"] == pytest.approx(1e-4 / 16)
    assert rate["stem.0.weight"] == pytest.approx(1e-4 / 32)


def test_layers_of_a_clip_tower_halve_from_the_last(clip) -> None:
    settings = Optimizer(head_lr=1e-3, lr=1e-4, layer_decay=0.5)
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
    settings = Optimizer(lr=1e-4, layer_decay=0.5)
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
    settings = Optimizer(weight_decay=0.1)
    decay = of(parameter_groups(clip, head(), settings), "weight_decay", clip)
    assert decay["positional_embedding"] == decay["class_embedding"] == 0.0
    assert decay["proj"] == 0.1


def test_a_network_without_layers_refuses_a_layer_decay() -> None:
    body = torch.nn.Linear(4, 16)
    with pytest.raises(InputError, match=r"a Linear does not say .*: set layer_decay = 1.0"):
        parameter_groups(body, head(), Optimizer(layer_decay=0.9))


def test_a_frozen_body_needs_no_layers() -> None:
    body = torch.nn.Linear(4, 16).requires_grad_(False)
    top = head()
    assert len(of(parameter_groups(body, top, Optimizer(layer_decay=0.9)), "lr", top)) == 2


def test_nothing_to_train_is_refused() -> None:
    body, top = torch.nn.Linear(4, 16), head()
    with pytest.raises(InputError, match="nothing is left to train"):
        make_optimizer(body.requires_grad_(False), top.requires_grad_(False), Optimizer())


def test_one_step_of_adamw_by_hand() -> None:
    body, top = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    for module in (body, top):
        torch.nn.init.ones_(module.weight)
    settings = Optimizer(head_lr=0.1, lr=0.01, weight_decay=0.5)
    optimizer = make_optimizer(body, top, settings)
    assert isinstance(optimizer, torch.optim.AdamW)
    top(body(torch.ones(1, 1))).sum().backward()
    optimizer.step()
    # Decay first, weight x (1 - rate x 0.5); then the first step is the rate itself.
    assert float(top.weight.detach()) == pytest.approx(1 - 0.05 - 0.1, rel=1e-5)
    assert float(body.weight.detach()) == pytest.approx(1 - 0.005 - 0.01, rel=1e-5)


STEPS = 88  # 1,400 rows in batches of 16


def rates_of(
    optimizer: Optimizer, schedule: Schedule, steps: int = STEPS
) -> tuple[Callable[[int], float], list]:
    made = make_optimizer(torch.nn.Linear(3, 3), torch.nn.Linear(3, 2), optimizer)
    return make_learning_rates(made, schedule, steps), made.param_groups


@pytest.fixture
def kvochur() -> tuple[Callable[[int], float], list]:
    recipe = load_recipe("kvochur-convnextv2-nano")
    return rates_of(recipe.optimizer, recipe.schedule)


def test_the_rate_of_the_convnext_paper_at_its_epochs(kvochur) -> None:
    rates, groups = kvochur
    # 25: 20 of the 45 epochs after warm-up, 1e-6 + 1.99e-4 (1 + cos 80 degrees) / 2.
    by_hand = {0: 2e-7, 5: 2e-4, 25: 1.1777798e-4, 50: 1e-6}
    for epoch, rate in by_hand.items():
        assert rates(epoch * STEPS) == pytest.approx(rate, rel=1e-6)
        assert {group["lr"] for group in groups} == {groups[0]["lr"]}


def test_warmup_rises_in_every_step_by_the_same(kvochur) -> None:
    rates, _ = kvochur
    path = np.array([rates(step) for step in range(5 * STEPS + 1)])
    np.testing.assert_allclose(np.diff(path), (2e-4 - 2e-7) / (5 * STEPS), rtol=1e-6)


def test_the_cosine_falls_in_every_step(kvochur) -> None:
    rates, _ = kvochur
    path = np.array([rates(step) for step in range(5 * STEPS, 50 * STEPS)])
    assert (np.diff(path) < 0).all()
    turned = np.pi * np.arange(45 * STEPS) / (45 * STEPS)
    np.testing.assert_allclose(path, 1e-6 + 1.99e-4 * (1 + np.cos(turned)) / 2, rtol=1e-9)


def test_a_step_sets_its_rate_whatever_came_before(kvochur) -> None:
    rates, _ = kvochur
    first = rates(1000)
    rates(3000)
    assert rates(1000) == first


def test_head_and_body_keep_their_proportion() -> None:
    settings = Optimizer(head_lr=1e-3, lr=1e-5, weight_decay_exclude_1d=False)
    rates, groups = rates_of(settings, Schedule(epochs=10, warmup=2.0, min_lr=1e-6))
    for epoch, head in ((0, 1e-6), (1, 1e-3 * 0.5005), (2, 1e-3), (10, 1e-6)):
        assert rates(epoch * STEPS) == pytest.approx(head, rel=1e-9)
        assert sorted(group["lr"] for group in groups) == pytest.approx([head / 100, head])


def test_a_constant_rate_after_its_warmup() -> None:
    rates, _ = rates_of(Optimizer(head_lr=1e-3), Schedule(epochs=4, kind="constant"))
    assert {rates(step) for step in range(4 * STEPS + 1)} == {1e-3}
    warm = Schedule(epochs=4, kind="constant", warmup=1.0, warmup_start=0.0)
    rates, _ = rates_of(Optimizer(head_lr=1e-3), warm, 10)
    path = [rates(step) for step in (0, 5, 10, 40)]
    assert path == pytest.approx([0, 5e-4, 1e-3, 1e-3])


def test_a_warmup_that_rounds_to_the_whole_run_leaves_a_step() -> None:
    rates, _ = rates_of(Optimizer(), Schedule(epochs=1, warmup=0.9), 1)
    assert math.isclose(rates(0), 1e-3)


def linear(value: float):
    module = torch.nn.Linear(2, 1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)
    return module


def set_to(module, value: float) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)


def test_three_steps_by_hand() -> None:
    network = linear(0.0)
    average = make_average(network, Ema(decay=0.9995), steps=100)
    # 0.0005 x 1, then 0.9995 x that + 0.0005 x 2, then 0.9995 x that + 0.0005 x 4.
    for value, by_hand in ((1.0, 0.0005), (2.0, 0.00149975), (4.0, 0.003499000125)):
        set_to(network, value)
        average.update(network)
        for parameter in average.module.parameters():
            np.testing.assert_allclose(parameter.detach(), by_hand, rtol=1e-5)
    assert float(network.bias.detach()) == 4.0


def test_what_a_fixed_decay_leaves_of_the_first_weights() -> None:
    network = linear(1.0)
    average = make_average(network, Ema(decay=0.9995), steps=4400)
    set_to(network, 0.0)
    for _ in range(4400):
        average.update(network)
    # 0.9995^4400: 11 %.
    assert float(average.module.bias.detach()) == pytest.approx(0.110771, rel=1e-3)
    assert decay_per_step(Ema(decay=0.9998), 2187) == 0.9998
    assert pytest.approx(0.65, abs=0.005) == 0.9998**2187


@pytest.mark.parametrize("steps", [1, 100, 5000])
def test_a_remainder_leaves_the_same_in_every_run(steps) -> None:
    decay = decay_per_step(Ema(remainder=0.01), steps)
    assert decay**steps == pytest.approx(0.01, rel=1e-9)


def test_a_remainder_by_hand() -> None:
    # 0.1^(1/100) = 10^-0.01.
    assert decay_per_step(Ema(remainder=0.1), 100) == pytest.approx(0.977237, rel=1e-6)


def test_without_a_decay_there_is_no_average() -> None:
    assert make_average(linear(0.0), Ema(), steps=10) is None


def test_what_never_moves_is_bit_equal_in_the_average() -> None:
    network = torch.nn.Linear(50, 50)
    average = make_average(network, Ema(decay=0.9995), steps=100)
    for _ in range(100):
        average.update(network)
    assert torch.equal(average.module.weight, network.weight)
