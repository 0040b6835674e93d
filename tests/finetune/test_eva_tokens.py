"""Blocks with rotary positions (EVA02, DINOv3, PE and their kind) from cached tokens."""

import pytest
import timm
import torch

from archiveprobe.embed.layers import reader
from archiveprobe.finetune.tokens import token_network, tokens_of

EVA = [name for name in timm.list_models(module="eva") if "dinov3_qkvb" not in name]


def pixels(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def small(name: str, depth: int = 3) -> tuple[dict, int]:
    """Arguments for a toy network of that name, and the side of its input."""
    side = 42 if "patch14" in name else 48
    sizes = {"img_size": side, "embed_dim": 64, "depth": depth, "num_heads": 2}
    # Sapiens2 has a number for each of its blocks.
    return sizes | ({"num_kv_heads": 2} if "sapiens" in name else {}), side


@pytest.mark.parametrize("model", EVA)
def test_pixels_and_tokens_give_the_same_logits(model, tiny, network_of) -> None:
    arguments, side = small(model)
    network = network_of(tiny(model, arguments=arguments), unfreeze="last-block", size=side)
    for name, each in network.body.blocks.named_parameters():
        # Random attention is nearly even, and scaled down: made sharp, so that positions matter.
        each.data = torch.ones_like(each) if "gamma" in name else each.data * 8
    tokens, short = tokens_of(network, pixels(side)), token_network(network)
    with torch.no_grad():
        torch.testing.assert_close(short(tokens), network(pixels(side)), atol=1e-5, rtol=1e-5)
        if network.body.rope is not None:
            with_positions, network.body.rope = short(tokens), None
            assert (short(tokens) - with_positions).abs().max() > 1e-4


def test_a_tower_of_open_clip_with_rotary_positions(tmp_path, network_of) -> None:
    import open_clip

    from archiveprobe.embed.backbones import Backbone

    file = tmp_path / "tiny-eva02-clip.json"
    file.write_text(
        '{"embed_dim": 192, "vision_cfg": {"timm_model_name": "eva02_tiny_patch14_224", '
        '"timm_pool": "token", "timm_proj": null, "image_size": 224}, '
        '"text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}}'
    )
    open_clip.add_model_config(file)
    network = network_of(
        Backbone("own", "open_clip", file.stem, weights="random"), unfreeze="last-block"
    )
    assert network.trained == ("head", "body.trunk.blocks.11")
    with torch.no_grad():
        torch.testing.assert_close(
            token_network(network)(tokens_of(network, pixels(224))), network(pixels(224))
        )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("vit_small_patch16_dinov3", 2),
        ("vit_pe_core_tiny_patch16_384", 2),
        ("vit_medium_patch16_rope_reg1_gap_256", 1),
    ],
)
def test_the_last_four_layers(name, parts, tiny, network_of) -> None:
    arguments, side = small(name, depth=5)
    module = network_of(tiny(name, arguments=arguments), size=side).body
    seen: list[torch.Tensor] = []
    module.blocks[-1].register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        got = reader(module, "last4", name)(module, pixels(side))
    assert got.shape == (2, 4, parts, 64)
    # Registers are neither class token nor patch.
    patches = seen[0][:, module.num_prefix_tokens :]
    torch.testing.assert_close(got[:, -1, -1], patches.mean(1))
    assert patches.shape[1] == 9
