"""LoRA: what starts, learns, is stored, mixed and answered."""

import hashlib
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save

from archiveprobe.base.errors import InputError
from archiveprobe.embed.tuned import load_tuned
from archiveprobe.evaluate.tuned import TunedNetwork
from archiveprobe.finetune.blocks import last_blocks
from archiveprobe.finetune.lora import layers_to_change
from archiveprobe.finetune.mixing import mixture_of
from archiveprobe.finetune.model import Network, build_network
from archiveprobe.finetune.recipe import Model
from archiveprobe.finetune.recipe_file import changed, load_recipe
from archiveprobe.finetune.tokens import token_network, tokens_of
from archiveprobe.finetune.train import train
from archiveprobe.finetune.trained_parts import origin_of

EVA = {"img_size": 32, "embed_dim": 64, "depth": 3, "num_heads": 2}
NAMES = ["clip", "test_vit", "vit_small_patch16_dinov3", "test_convnext2"]


@pytest.fixture
def backbone(request, tiny, tiny_clip):
    if request.param == "clip":
        return tiny_clip
    eva = EVA if "dinov3" in request.param else {}
    return tiny(request.param, arguments=eva)


def every(names: list[str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("backbone", names, indirect=True)


def pixels(count: int = 4, seed: int = 0):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def learn(network: Network, steps: int = 4) -> None:
    optimizer = torch.optim.SGD(network.parameters(), 1.0)
    network.train()
    for step in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            network(pixels(seed=step)), torch.tensor([0, 1, 0, 1])
        )
        loss.backward()
        optimizer.step()
    network.eval()


@every(NAMES)
def test_the_first_answers_are_those_of_the_pretrained_network(backbone, network_of) -> None:
    plain = network_of(backbone, size=32)
    network = network_of(backbone, size=32, lora_rank=4)
    with torch.no_grad():
        assert torch.equal(network(pixels()), plain(pixels()))
    assert network.digest == plain.digest


@every(NAMES)
def test_a_and_b_and_the_head_alone_are_trained_and_stored(backbone, network_of) -> None:
    network = network_of(backbone, size=32, lora_rank=4)
    before = network.state()
    learn(network)
    after, stored = network.state(), network.state(whole=False)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.rpartition(".")[2] for name in stored if name.startswith("body.")} == {
        "up",
        "down",
    }
    # Under a small layer scale the gradient of A is lost among its bits.
    assert moved <= set(stored) <= moved | {name for name in stored if name.endswith(".down")}
    # Every A and B of the state counts: another network answers the same with them.
    other = network_of(backbone, size=32, lora_rank=4)
    other.load_state(stored)
    with torch.no_grad():
        assert torch.equal(other(pixels()), network(pixels()))
        assert not torch.equal(network_of(backbone, size=32)(pixels()), network(pixels()))


@every(NAMES)
def test_a_plain_network_answers_the_same_with_the_merged_weights(backbone, network_of) -> None:
    network = network_of(backbone, size=32, lora_rank=4, lora_alpha=8.0, unfreeze="last-2")
    learn(network)
    plain, state = network_of(backbone, size=32), network.merged_state()
    own = plain.state()
    assert own.keys() > state.keys()
    changed = {name for name, tensor in state.items() if not torch.equal(tensor, own[name])}
    # Biases and norms stay as they are.
    assert changed and all(name.endswith("weight") or "head" in name for name in changed)
    plain.load_state({**own, **state})
    merged = build_network(
        Model(backbone="own", size=32, lora_rank=4, unfreeze="last-2"), backbone, 2, merged=True
    )
    merged.load_state(state)
    with torch.no_grad():
        for each in (plain, merged):
            torch.testing.assert_close(each(pixels()), network(pixels()))
    assert merged.state(whole=False).keys() == merged.merged_state().keys() == state.keys()


def test_the_change_of_a_weight_by_hand(tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, lora_rank=4, lora_alpha=8.0)
    learn(network)
    state = network.state()
    place = "body.transformer.resblocks.1.attn.parametrizations.in_proj_weight"
    down, up = state[f"{place}.0.down"], state[f"{place}.0.up"]
    assert (down.shape, up.shape) == ((4, 32), (96, 4))
    # alpha / r is 2.
    wanted = state[f"{place}.original"] + 2 * up @ down
    weight = network.body.transformer.resblocks[1].attn.in_proj_weight
    torch.testing.assert_close(weight, wanted)
    assert up.abs().max() > 0


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({}, {"attn", "attn.out_proj", "mlp.c_fc", "mlp.c_proj"}),
        ({"lora_layers": "attention"}, {"attn", "attn.out_proj"}),
        ({"lora_layers": "mlp", "unfreeze": "last-2"}, {"mlp.c_fc", "mlp.c_proj"}),
    ],
)
def test_layers_and_blocks_are_chosen(settings, layers, tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, lora_rank=4, **settings)
    places = {name.partition("resblocks.")[2].partition(".parametr")[0] for name in network.trained}
    first = 1 if "unfreeze" in settings else 0
    wanted = {f"{block}.{layer}" for block in range(first, 3) for layer in layers}
    assert places - {""} == wanted


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "vit_pe_core_tiny_patch16_384",
     "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "maxvit_rmlp_pico_rw_256"],
)  # fmt: skip
def test_every_linear_layer_is_one_of_attention_or_of_an_mlp(name) -> None:
    with torch.device("meta"):
        module = timm.create_model(name, num_classes=0)
    (block,) = last_blocks(module, 1, name)
    found = {
        layers: layers_to_change(
            module, [block], Model(backbone=name, lora_rank=2, lora_layers=layers)
        )
        for layers in ("attention", "mlp", "both")
    }
    assert found["attention"] and all(".mlp." not in each for each in found["attention"])
    assert found["mlp"] and all(".mlp." in each for each in found["mlp"])
    assert sorted(found["both"]) == sorted(found["attention"] + found["mlp"])
    # Those from two coordinates are no weights of low rank.
    assert all(min(module.get_submodule(each).weight.shape) > 2 for each in found["both"])


def test_what_has_no_layers_or_too_low_a_width_is_refused(tiny, tiny_clip, network_of) -> None:
    with pytest.raises(InputError, match="have no linear layers for LoRA: leave out"):
        network_of(tiny("test_resnet"), lora_rank=4)
    with pytest.raises(InputError, match=r"lora_rank = 32 is no low rank for .*less than 32"):
        network_of(tiny_clip, lora_rank=32)


def test_half_precision_leaves_the_learned_weight_as_it_is_stored(tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, lora_rank=4)
    learn(network)
    layer = network.body.transformer.resblocks[0].mlp.c_fc
    with torch.autocast("cpu", torch.bfloat16):
        weight = layer.weight
    stored = network.merged_state()["body.transformer.resblocks.0.mlp.c_fc.weight"]
    assert torch.equal(weight, stored)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_a_mixture_is_that_of_the_weights(alpha, tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, lora_rank=4)
    first, start = network.state(whole=False), network.body.transformer.resblocks[0].mlp.c_fc
    before = start.weight.detach().clone()
    learn(network)
    tuned, after = network.state(whole=False), start.weight.detach().clone()
    network.load_state(mixture_of(first, tuned, alpha))
    torch.testing.assert_close(start.weight, before.lerp(after, alpha))
    assert not torch.equal(before, after)


def test_an_average_of_the_weights_learns_and_answers(tiny_clip, noise, network_for) -> None:
    recipe = changed(
        load_recipe("clip-lora"),
        {
            "model.backbone": "own", "model.head_init": "random", "ema.decay": 0.5,
            "interpolate.alphas": [0.0, 0.5, 1.0], "schedule.epochs": 3,
            "optimizer.batch_size": 8, "optimizer.lr": 1e-2,
        },
    )  # fmt: skip
    network = network_for(recipe, tiny_clip)
    before = network.state(whole=False)
    done = train(network, noise(24, validation=8), recipe)
    assert len(done.history) == 3 and done.alpha is not None
    assert done.history[-1].loss < done.history[0].loss
    assert network.state(whole=False).keys() == before.keys()
    other = build_network(recipe.model, tiny_clip, 2, seed=recipe.seed, merged=True)
    other.load_state(done.state)
    with torch.no_grad():
        assert torch.equal(other(pixels()), network(pixels()))


def test_the_last_block_learns_by_lora_from_tokens(tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, lora_rank=4, unfreeze="last-block")
    learn(network)
    with torch.no_grad():
        torch.testing.assert_close(
            token_network(network)(tokens_of(network, pixels())), network(pixels())
        )
    with pytest.raises(InputError, match="no other block can be trained"):
        token_network(network_of(tiny_clip, lora_rank=4))


def test_embed_reads_the_changed_weights(tiny_clip, network_of, tmp_path: Path) -> None:
    network = network_of(tiny_clip, lora_rank=4, lora_alpha=8.0)
    learn(network)
    content = save(network.merged_state())
    (tmp_path / "weights.safetensors").write_bytes(content)
    settings = {"unfreeze": "all", "lora_rank": 4, "lora_alpha": 8.0}
    tuned = TunedNetwork(
        "lora", "full", tmp_path / "weights.safetensors", hashlib.sha256(content).hexdigest(),
        settings, origin_of(network),
    )  # fmt: skip
    assert not tuned.is_whole
    with torch.no_grad():
        torch.testing.assert_close(
            load_tuned(tiny_clip, tuned).module(pixels()), network.body(pixels())
        )
