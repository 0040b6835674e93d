"""The last N blocks of a backbone: which they are, what is trained, and at which rates."""

import pytest
import timm
import torch

from archiveprobe.base.errors import InputError
from archiveprobe.finetune.blocks import block_names, last_blocks
from archiveprobe.finetune.model import Network
from archiveprobe.finetune.optimizer import parameter_groups
from archiveprobe.finetune.recipe import Optimizer

# The last three, over all stages.
LAST = {
    "test_vit": ["blocks.3", "blocks.4", "blocks.5"],
    "vit_small_patch16_dinov3": ["blocks.9", "blocks.10", "blocks.11"],
    "eva02_tiny_patch14_224": ["blocks.9", "blocks.10", "blocks.11"],
    "test_convnext2": ["stages.1.blocks.0", "stages.2.blocks.0", "stages.3.blocks.0"],
    "convnextv2_nano": ["stages.2.blocks.7", "stages.3.blocks.0", "stages.3.blocks.1"],
    "resnet18": ["layer3.1", "layer4.0", "layer4.1"],
    "swin_tiny_patch4_window7_224": ["layers.2.blocks.5", "layers.3.blocks.0", "layers.3.blocks.1"],
    "maxvit_rmlp_pico_rw_256": ["stages.2.blocks.4", "stages.3.blocks.0", "stages.3.blocks.1"],
}


def free_blocks(network: Network) -> set[str]:
    """The blocks whose weights are trained."""
    names = block_names(network.body, "")
    free = [name for name, each in network.body.named_parameters() if each.requires_grad]
    return {block for block in names for name in free if name.startswith(f"{block}.")}


@pytest.mark.parametrize("name", LAST)
def test_blocks_are_counted_over_all_stages_from_the_end(name) -> None:
    with torch.device("meta"):
        module = timm.create_model(name, num_classes=0)
    assert last_blocks(module, 3, name) == LAST[name]
    assert last_blocks(module, 1, name) == LAST[name][-1:]


@pytest.mark.parametrize("name", ["mobilenetv2_100", "vgg11"])
def test_a_backbone_without_a_last_residual_block_is_refused(name) -> None:
    with torch.device("meta"):
        module = timm.create_model(name, num_classes=0)
    with pytest.raises(InputError) as caught:
        last_blocks(module, 1, f"timm:{name}")
    assert str(caught.value) == (
        f'timm:{name} has no last residual block: set unfreeze = "all", or use another backbone'
    )


def test_more_blocks_than_there_are_is_one_line_with_their_number(tiny_clip, network_of) -> None:
    with pytest.raises(InputError) as caught:
        network_of(tiny_clip, unfreeze="last-4")
    assert str(caught.value) == (
        "open_clip:tiny-clip-tuned has 3 residual blocks, and "
        'unfreeze = "last-4" asks for more: set unfreeze = "last-3" or less, or "all"'
    )


@pytest.mark.parametrize("name", ["clip", "test_vit", "test_convnext2", "test_resnet"])
def test_the_last_two_are_trained_and_stored_and_nothing_else_moves(
    name, tiny, tiny_clip, network_of
) -> None:
    backbone = tiny_clip if name == "clip" else tiny(name)
    network = network_of(backbone, unfreeze="last-2", size=32)
    wanted = tuple(f"body.{block}." for block in last_blocks(network.body, 2, name))
    before = network.state()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    network.train()
    for step in range(3):
        pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(pixels), torch.tensor([0, 1, 0, 1])).backward()
        optimizer.step()
    after = network.eval().state()
    moved = {each for each in before if not torch.equal(before[each], after[each])}
    assert {block for block in wanted if any(each.startswith(block) for each in moved)} == {*wanted}
    assert all(each.startswith((*wanted, "head.")) for each in moved)
    assert moved <= set(network.state(whole=False))
    other = network_of(backbone, unfreeze="last-2", size=32)
    other.load_state(network.state(whole=False))
    with torch.no_grad():
        assert torch.equal(other(pixels), network(pixels))


@pytest.mark.parametrize("lora", [{}, {"lora_rank": 2}], ids=["blocks", "lora"])
@pytest.mark.parametrize("name", ["clip", "test_vit"])
def test_layer_decay_goes_on_through_the_last_blocks(
    name, lora, tiny, tiny_clip, network_of
) -> None:
    backbone = tiny_clip if name == "clip" else tiny(name)
    network = network_of(backbone, unfreeze="last-3", **lora)
    settings = Optimizer(lr=1e-4, layer_decay=0.5)
    groups = parameter_groups(network.body, network.head, settings)
    rate = {id(each): group["lr"] for group in groups for each in group["params"]}
    # Behind the blocks of a CLIP come a norm and the projection.
    for depth, block in enumerate(reversed(last_blocks(network.body, 3, name)), name == "clip"):
        rates = [
            rate[id(each)]
            for each in network.body.get_submodule(block).parameters()
            if each.requires_grad
        ]
        assert rates and rates == pytest.approx([1e-4 / 2**depth] * len(rates))


def test_stochastic_depth_skips_the_blocks_that_are_trained_alone(tiny, network_of) -> None:
    backbone = tiny("test_vit", arguments={"img_size": 32})
    network = network_of(backbone, unfreeze="last-2", drop_path=0.9)
    pixels = torch.ones(1, 3, 32, 32)
    seen = {block: [] for block in block_names(network.body, "")}
    for block, outputs in seen.items():
        module = network.body.get_submodule(block)
        module.register_forward_hook(lambda _, __, out, to=outputs: to.append(out.detach()))
    network.train()
    torch.manual_seed(0)
    for _ in range(12):
        network(pixels)
    varied = {name for name, out in seen.items() if any(not torch.equal(out[0], o) for o in out)}
    assert varied == free_blocks(network) == {"blocks.4", "blocks.5"}


AGAIN = [
    *((name, {}) for name in ("clip", "test_vit", "test_convnext2", "dinov3")),
    *((name, {"unfreeze": "last-2"}) for name in ("clip", "test_vit", "test_convnext2")),
    *((name, {"lora_rank": 2}) for name in ("clip", "dinov3")),
    *((name, {"drop_path": 0.5}) for name in ("test_vit", "test_convnext2")),
]


@pytest.mark.parametrize(("name", "settings"), AGAIN)
def test_gradients_are_the_same_when_activations_are_computed_again(
    name, settings, tiny, tiny_clip, network_of
) -> None:
    eva = {"img_size": 32, "embed_dim": 64, "depth": 3, "num_heads": 2}
    backbone = {
        "clip": tiny_clip,
        "dinov3": tiny("vit_small_patch16_dinov3", arguments=eva),
    }.get(name) or tiny(name)
    pixels = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gradients, kept = [], []
    for again in (False, True):
        network = network_of(backbone, grad_checkpointing=again, size=32, **settings).train()
        for parameter_name, parameter in network.module.named_parameters():
            if parameter_name.endswith(".up"):
                # At zero A would have no gradient.
                torch.nn.init.constant_(parameter, 0.1)
        torch.manual_seed(0)
        numbers: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, to=numbers: (to.append(tensor.numel()), tensor)[1], lambda tensor: tensor
        ):
            loss = torch.nn.functional.cross_entropy(network(pixels), torch.tensor([0, 1, 0, 1]))
        loss.backward()
        kept.append(sum(numbers))
        gradients.append([each.grad for each in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert any(gradient.any() for gradient in gradients[0])
    # What frozen blocks give is kept only where something behind them learns.
    assert kept[1] < kept[0] * (1 if settings else 0.5)


@pytest.mark.parametrize(
    ("name", "reason"), [("test_resnet", "BatchNorms"), ("vgg11", "does not know how")]
)
def test_a_backbone_that_cannot_checkpoint_is_refused(name, reason, tiny, network_of) -> None:
    with pytest.raises(InputError, match=rf"cannot checkpoint gradients \(.*{reason}") as caught:
        network_of(tiny(name), grad_checkpointing=True)
    assert str(caught.value).endswith(": leave out model.grad_checkpointing")
