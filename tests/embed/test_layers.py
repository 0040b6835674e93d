"""Layers other than the pooled one, on small networks built for real."""

import logging
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import Any

import open_clip
import pytest
import timm
import torch

from archiveprobe.base.errors import InputError
from archiveprobe.embed.layers import LAYERS, check_layers, reader


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def pixels(size: int) -> Any:
    return torch.linspace(-1, 1, 2 * 3 * size * size).view(2, 3, size, size)


def vit() -> Any:
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=0).eval()


def clip_tower() -> Any:
    torch.manual_seed(0)
    tower = open_clip.transformer.VisionTransformer(
        image_size=32, patch_size=16, width=48, layers=5, heads=4, mlp_ratio=2.0, output_dim=24
    )
    return tower.eval()


def read(module: Any, layers: str, size: int) -> Any:
    with torch.inference_mode():
        return reader(module, layers, "a network")(module, pixels(size))


def test_pooled_is_what_the_network_gives() -> None:
    module = clip_tower()
    with torch.inference_mode():
        expected = module(pixels(32))
    assert torch.equal(read(module, "pooled", 32), expected)


def test_unprojected_gives_the_pooled_one_when_projected() -> None:
    module = clip_tower()
    projection, expected = module.proj.detach().clone(), read(module, "pooled", 32)
    before = read(module, "unprojected", 32)
    assert before.shape == (2, 48)
    assert torch.allclose(before @ projection, expected, atol=1e-6)


@pytest.mark.parametrize(("make", "size"), [(vit, 160), (clip_tower, 32)])
def test_last4_are_class_token_and_mean_patch_of_the_last_blocks(make: Any, size: int) -> None:
    module = make()
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
    module = make()
    blocks = module.blocks if hasattr(module, "blocks") else module.transformer.resblocks
    seen: list[Any] = []
    blocks[-2].register_forward_hook(lambda _, __, output: seen.append(output))
    got = read(module, "tokens", size)
    assert torch.equal(got, seen[0])
    assert got.ndim == 3


def test_tokens_of_a_tower_that_puts_them_first_are_turned() -> None:
    module = clip_tower()
    module.transformer.batch_first = False
    for block in module.transformer.resblocks:
        block.attn.batch_first = False
    assert torch.allclose(read(module, "tokens", 32), read(clip_tower(), "tokens", 32), atol=1e-5)


def test_last4_without_a_class_token_has_mean_patches_only() -> None:
    module = timm.create_model("test_vit", num_classes=0, class_token=False, global_pool="avg")
    assert read(module.eval(), "last4", 160).shape == (2, 4, 1, 64)


@pytest.mark.parametrize("layers", ["last4", "tokens"])
def test_passes_in_several_threads_do_not_mix(layers: str) -> None:
    module = clip_tower()
    inputs = [torch.rand(1, 3, 32, 32) for _ in range(3)]
    together = Barrier(len(inputs))
    # Every pass waits in the last block for the others.
    module.transformer.resblocks[-1].register_forward_hook(lambda *_: wait(together))
    reading = reader(module, layers, "a network")

    def one(given: Any) -> Any:
        with torch.inference_mode():
            return reading(module, given)

    with ThreadPoolExecutor(len(inputs)) as pool:
        got = list(pool.map(one, inputs))
    together.abort()
    for given, beside in zip(inputs, got, strict=True):
        assert torch.equal(beside, one(given))


def wait(together: Barrier) -> None:
    with suppress(BrokenBarrierError):
        together.wait(60)


@pytest.mark.parametrize("layers", ["last4", "tokens"])
def test_hooks_keep_nothing_of_other_passes(layers: str) -> None:
    module = vit()
    read(module, layers, 160)
    kept: list[weakref.ref[Any]] = []
    module.blocks[-1].register_forward_pre_hook(lambda _, given: kept.append(weakref.ref(given[0])))
    module.blocks[-1].register_forward_hook(lambda _, __, out: kept.append(weakref.ref(out)))
    with torch.inference_mode():
        module(pixels(160))
    assert len(kept) == 2
    assert [tensor() for tensor in kept] == [None, None]


@pytest.mark.parametrize("layers", ["unprojected", "last4", "tokens"])
def test_a_network_without_such_layers_is_refused_by_name(layers: str) -> None:
    module = timm.create_model("test_resnet", num_classes=0).eval()
    with pytest.raises(InputError, match=r"a network .* use layers = \"pooled\""):
        reader(module, layers, "a network")


def test_names_are_checked() -> None:
    for name in LAYERS:
        check_layers(name)
    with pytest.raises(InputError, match="did you mean 'last4'"):
        check_layers("last5")


@pytest.mark.parametrize("name", LAYERS)
def test_every_entry_of_the_table_reads_a_transformer(name: str) -> None:
    embeddings = read(clip_tower(), name, 32)
    assert embeddings.shape[0] == 2
    assert torch.isfinite(embeddings).all()
