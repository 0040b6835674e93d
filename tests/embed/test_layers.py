"""Layers other than the pooled one, on small networks built for real."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from embed import libraries
from embed.layers import LAYERS, check_layers, reader
from task.errors import InputError


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def pixels(size: int) -> Any:
    return libraries.torch().linspace(-1, 1, 2 * 3 * size * size).view(2, 3, size, size)


def vit() -> Any:
    libraries.torch().manual_seed(0)
    return libraries.timm().create_model("test_vit", num_classes=0).eval()


def clip_tower() -> Any:
    libraries.torch().manual_seed(0)
    return (
        libraries.open_clip()
        .transformer.VisionTransformer(
            image_size=32, patch_size=16, width=48, layers=5, heads=4, mlp_ratio=2.0, output_dim=24
        )
        .eval()
    )


def read(module: Any, layers: str, size: int) -> Any:
    with libraries.torch().inference_mode():
        return reader(module, layers, "a network")(module, pixels(size))


def test_pooled_is_what_the_network_gives() -> None:
    module = clip_tower()
    with libraries.torch().inference_mode():
        expected = module(pixels(32))
    assert libraries.torch().equal(read(module, "pooled", 32), expected)


def test_unprojected_gives_the_pooled_one_when_projected() -> None:
    module = clip_tower()
    projection, expected = module.proj.detach().clone(), read(module, "pooled", 32)
    before = read(module, "unprojected", 32)
    assert before.shape == (2, 48)
    assert libraries.torch().allclose(before @ projection, expected, atol=1e-6)


@pytest.mark.parametrize(("make", "size"), [(vit, 160), (clip_tower, 32)])
def test_last4_are_class_token_and_mean_patch_of_the_last_blocks(make: Any, size: int) -> None:
    torch, module = libraries.torch(), make()
    blocks = list(module.blocks if hasattr(module, "blocks") else module.transformer.resblocks)
    seen: dict[int, Any] = {}
    for number, block in enumerate(blocks):
        block.register_forward_hook(lambda _, __, out, at=number: seen.update({at: out}))
    got = read(module, "last4", size)
    width = next(iter(seen.values())).shape[-1]
    assert got.shape == (2, 4, 2, width)
    for place, number in enumerate(sorted(seen)[-4:]):
        assert torch.allclose(got[:, place, 0], seen[number][:, 0])
        assert torch.allclose(got[:, place, 1], seen[number][:, 1:].mean(1), atol=1e-6)


@pytest.mark.parametrize(("make", "size"), [(vit, 160), (clip_tower, 32)])
def test_tokens_are_what_the_last_block_is_given(make: Any, size: int) -> None:
    torch, module = libraries.torch(), make()
    blocks = module.blocks if hasattr(module, "blocks") else module.transformer.resblocks
    seen: list[Any] = []
    blocks[-2].register_forward_hook(lambda _, __, output: seen.append(output))
    got = read(module, "tokens", size)
    assert torch.equal(got, seen[0])
    assert got.ndim == 3
    assert not blocks[-1]._forward_pre_hooks


def test_tokens_of_a_tower_that_puts_them_first_are_turned() -> None:
    module = clip_tower()
    module.transformer.batch_first = False
    for block in module.transformer.resblocks:
        block.attn.batch_first = False
    assert libraries.torch().allclose(
        read(module, "tokens", 32), read(clip_tower(), "tokens", 32), atol=1e-5
    )


def test_last4_without_a_class_token_has_mean_patches_only() -> None:
    timm = libraries.timm()
    module = timm.create_model("test_vit", num_classes=0, class_token=False, global_pool="avg")
    assert read(module.eval(), "last4", 160).shape == (2, 4, 1, 64)


def test_no_hook_stays_behind() -> None:
    module = vit()
    read(module, "last4", 160)
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize("layers", ["unprojected", "last4", "tokens"])
def test_a_network_without_such_layers_is_refused_by_name(layers: str) -> None:
    module = libraries.timm().create_model("test_resnet", num_classes=0).eval()
    with pytest.raises(InputError, match=r"a network .* use layers = \"pooled\""):
        reader(module, layers, "a network")


def test_names_are_checked() -> None:
    for name in LAYERS:
        check_layers(name)
    with pytest.raises(InputError, match="did you mean 'last4'"):
        check_layers("last5")
