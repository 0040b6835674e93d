"""The last block from cached tokens, against the whole network."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from snapshots import current_cache

from archiveprobe.base.errors import InputError
from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.models import load_model
from archiveprobe.embed.run import Options, embed
from archiveprobe.embed.view_sets import view_set
from archiveprobe.embed.views import render
from archiveprobe.finetune.loader import Draw
from archiveprobe.finetune.model import Network
from archiveprobe.finetune.optimizer import make_optimizer
from archiveprobe.finetune.recipe import Optimizer
from archiveprobe.finetune.recipe_file import changed, load_recipe
from archiveprobe.finetune.tokens import (
    TokenRows,
    check_cache,
    check_recipe,
    load_tokens,
    token_network,
    token_task,
    tokens_of,
)
from archiveprobe.task.config import Task, load_task
from archiveprobe.task.decoding import digest

LAST = {"unfreeze": "last-block", "hidden": (8,), "dropouts": (0.5, 0.3)}
OPTIONS = Options(precision="fp32", device="cpu", workers=0)
ROWS = 12


def pixels(count: int, side: int = 32):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(5))


def losses(network: Network, inputs, labels, steps: int = 20) -> list[float]:
    """Of every step, trained as the CLIP paper does but faster: all of it moves visibly."""
    settings = Optimizer(head_lr=1e-2, lr=1e-3, weight_decay=1e-4)
    optimizer = make_optimizer(network.body, network.head, settings)
    seen = []
    network.train()
    for step in range(steps):
        torch.manual_seed(step)  # The head's dropout.
        rows = torch.randperm(len(inputs))[:8]
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(inputs[rows]), labels[rows])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        seen.append(float(loss.detach()))
    network.eval()
    return seen


@pytest.mark.parametrize("stored", ["float32", "float16"])
@pytest.mark.parametrize("name", ["clip", "test_vit"])
def test_losses_are_those_of_training_end_to_end(tiny_clip, tiny, network_of, name, stored) -> None:
    backbone = tiny_clip if name == "clip" else tiny(name, arguments={"img_size": 32})
    whole, other = (network_of(backbone, **LAST) for _ in range(2))
    given, labels = pixels(16), torch.arange(16) % 2
    tokens = tokens_of(other, given).to(getattr(torch, stored)).float()
    expected = losses(whole, given, labels)
    found = losses(token_network(other), tokens, labels)
    assert max(abs(a - b) for a, b in zip(expected, found, strict=True)) < 1e-4
    assert abs(expected[-1] - expected[0]) > 1e-2  # Something was learnt.
    # What was learnt from tokens is used on pixels.
    torch.testing.assert_close(other(given), whole(given), atol=1e-3, rtol=1e-3)


def test_the_logits_agree_without_any_training(tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, classes=3, unfreeze="last-block")
    short = token_network(network)
    given = pixels(5)
    assert tokens_of(network, given).shape == (5, 17, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            short(tokens_of(network, given)), network(given), atol=1e-6, rtol=1e-5
        )


@pytest.mark.parametrize(("pool", "projection"), [("map", "none"), ("token", "linear")])
def test_a_tower_of_timms_inside_open_clip(tmp_path, network_of, pool, projection) -> None:
    file = tmp_path / f"trunk-{pool}.json"
    file.write_text(
        '{"embed_dim": 64, "vision_cfg": {"timm_model_name": "test_vit", '
        f'"timm_pool": "{pool}", "timm_proj": "{projection}", "image_size": 32}}, '
        '"text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}}'
    )
    open_clip.add_model_config(file)
    backbone = Backbone("own", "open_clip", file.stem, weights="random")
    network = network_of(backbone, unfreeze="last-block")
    assert network.trained == ("head", "body.trunk.blocks.5")
    given = pixels(3)
    with torch.no_grad():
        torch.testing.assert_close(
            token_network(network)(tokens_of(network, given)), network(given), atol=1e-6, rtol=1e-5
        )


def test_only_the_class_token_goes_through_the_mlp(tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, unfreeze="last-block")
    shapes = []
    network.body.transformer.resblocks[-1].mlp.register_forward_pre_hook(
        lambda _, given: shapes.append(tuple(given[0].shape))
    )
    tokens = tokens_of(network, pixels(4))
    shapes.clear()
    token_network(network)(tokens)
    assert shapes == [(4, 1, 32)]


def test_both_train_the_same_parameters_and_keep_the_rest(tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, **LAST)
    before = network.state()
    short = token_network(network)
    assert list(short.state()) == list(before)
    losses(short, tokens_of(network, pixels(8)), torch.arange(8) % 2, steps=2)
    after = network.state()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(network.state(whole=False))


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        ("test_vit", {"unfreeze": "all"}, 'set unfreeze = "last-block"'),
        ("test_vit", {"unfreeze": "last-2"}, "no other block can be trained from it"),
        ("test_convnext2", {"unfreeze": "last-block"}, "timm:test_convnext2 cannot be tuned"),
    ],
)
def test_what_the_cache_cannot_serve_is_refused(tiny, network_of, model, settings, words) -> None:
    network = network_of(tiny(model, arguments={}), **settings)
    with pytest.raises(InputError, match=words) as caught:
        token_network(network)
    assert "--from-cache" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, tiny_clip) -> Task:
    """Twelve drawn photographs, the last of them broken, and a CLIP of toy size."""
    folder = tmp_path_factory.mktemp("archive")
    (folder / "images").mkdir()
    for seed in range(ROWS):
        coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
        image = Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC)
        image.save(folder / "images" / f"{seed:02}.png")
    (folder / "images" / f"{ROWS - 1:02}.png").write_bytes(b"broken")
    lines = [f"{seed:02}.png,{'ab'[seed % 2]}" for seed in range(ROWS)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *lines, ""]))
    (folder / "task.toml").write_text(
        'name = "t"\nlabels = ["a", "b"]\n[images]\ntable = "labels.csv"\n[folds]\ncount = 2\n'
        f'[backbone.own]\nlibrary = "open_clip"\nname = "{tiny_clip.model}"\nweights = "random"\n'
    )
    task = load_task(folder)
    for views in ("flip", "augment3"):
        embed(token_task(task, "own", views), OPTIONS)
    return task


def keys_of(task: Task) -> list[bytes | None]:
    files = sorted(task.root.iterdir())
    keys: list[bytes | None] = [bytes.fromhex(digest(file.read_bytes())) for file in files]
    return [*keys[:-1], None]


def rendered(task: Task, network: Network, row: int, views: str):
    """Normalised pixels (V, 3, size, size) of a row."""
    file = sorted(task.root.iterdir())[row]
    preprocess = network.preprocess
    found = render(
        Image.open(file), preprocess.geometry, view_set(views), seed=digest(file.read_bytes())
    )
    crops = [found.crops[at] for at in found.crop]
    crops = [c[:, ::-1] if m else c for c, m in zip(crops, found.mirror, strict=True)]
    scaled = torch.from_numpy(np.stack(crops).copy()).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (preprocess.mean, preprocess.std))
    return (scaled - mean) / std


def test_cached_tokens_are_those_of_the_network(task, tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, **LAST)
    rows = load_tokens(task, tiny_clip, network, keys_of(task), views="flip", draws="augment3")
    assert rows.views.shape == (ROWS, 2, 17, 32)
    assert rows.draws is not None
    assert rows.draws.shape == (ROWS, 3, 17, 32)
    assert rows.readable.tolist() == [True] * (ROWS - 1) + [False]
    for stored, views in ((rows.views, "flip"), (rows.draws, "augment3")):
        wanted = tokens_of(network, rendered(task, network, 3, views)).numpy()
        np.testing.assert_allclose(stored[3], wanted, atol=2e-3, rtol=2e-3)
    record = current_cache(token_task(task, "own", "flip"), replace(tiny_clip, layers="tokens"))
    assert record is not None
    assert record.fingerprint["layers"] == "tokens"


def test_the_cache_serves_the_same_losses(task, tiny_clip, network_of) -> None:
    whole, other = (network_of(tiny_clip, **LAST) for _ in range(2))
    rows = load_tokens(task, tiny_clip, other, keys_of(task)[:-1], views="flip")
    given = torch.cat([rendered(task, whole, row, "center") for row in range(ROWS - 1)])
    labels = torch.arange(ROWS - 1) % 2
    expected = losses(whole, given, labels)
    cached = torch.from_numpy(rows.views[: ROWS - 1, 0]).float()
    found = losses(token_network(other), cached, labels)
    assert max(abs(a - b) for a, b in zip(expected, found, strict=True)) < 1e-4


def numbered(draws: int = 4) -> TokenRows:
    """Rows of one token of one number: row + draw / 10."""
    numbers = np.arange(6)[:, None] + np.arange(draws) / 10
    stored = numbers[:, :, None, None].astype(np.float16)
    return TokenRows(stored[:, :1], stored, seed=0)


def drawn(rows: TokenRows, numbers: list[int], epoch: int, occurrence: int = 0) -> list[float]:
    tokens = torch.stack([rows[Draw(row, epoch, occurrence)] for row in numbers])
    assert tokens.shape == (len(numbers), 1, 1) and tokens.dtype == torch.float32
    return tokens.flatten().tolist()


def test_draws_depend_on_seed_epoch_and_row_only() -> None:
    rows = numbered()
    once = drawn(rows, [4, 1, 2], 3)
    assert drawn(rows, [1], 3) == once[1:2]
    assert [int(value) for value in once] == [4, 1, 2]
    assert len({drawn(rows, [4], epoch)[0] for epoch in range(60)}) == 4
    others = [drawn(replace(rows, seed=seed), [4, 1, 2, 3], 0) for seed in range(5)]
    assert any(other != others[0] for other in others[1:])


@pytest.mark.proves("training")
def test_a_row_that_comes_again_in_an_epoch_goes_through_all_draws_first() -> None:
    rows = numbered()
    seen = [drawn(rows, [4], 3, occurrence)[0] for occurrence in range(5)]
    assert len(set(seen[:4])) == 4
    assert seen[0] == seen[4]


def test_without_draws_every_epoch_sees_the_first_view() -> None:
    rows = replace(numbered(), draws=None)
    assert drawn(rows, [5, 0], 1) == [5, 0]
    assert rows.rendered(5, [0]).crops.flatten().tolist() == [5]


def test_a_blank_image_stands_in_for_unreadable_rows() -> None:
    rows = numbered()
    rows.views[2], rows.draws[2] = np.nan, np.nan
    filled = rows.fill_unreadable(np.full((1, 1), 7.0))
    assert filled.readable.all()
    assert [int(value) for value in drawn(filled, [1, 2, 3], 0)] == [1, 7, 3]
    assert not rows.readable[2]


def test_tokens_that_are_not_there_are_one_line(task, tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, **LAST)
    with pytest.raises(InputError, match="no cache for backbone 'own' with views 'augment7'"):
        load_tokens(task, tiny_clip, network, keys_of(task), draws="augment7", views="flip")
    with pytest.raises(InputError, match=r"the cache own-\w+ lacks 1 row: embed"):
        load_tokens(task, tiny_clip, network, [*keys_of(task), b"\0" * 32], views="flip")


@pytest.mark.proves("numbers")
def test_tokens_of_another_network_are_refused(task, tiny_clip, network_of, tmp_path: Path) -> None:
    network = network_of(tiny_clip, **LAST)
    other = replace(network, digest=load_model(replace(tiny_clip)).digest[::-1])
    with pytest.raises(InputError, match=r"other embeddings .*\(weights .* there"):
        load_tokens(task, tiny_clip, other, keys_of(task), views="flip")
    brighter = replace(network.preprocess, mean=(0.1, 0.1, 0.1))
    with pytest.raises(InputError, match=r"other embeddings .*\(preprocess\."):
        load_tokens(
            task, tiny_clip, replace(network, preprocess=brighter), keys_of(task), views="flip"
        )


def test_the_recipe_draws_what_the_cache_holds() -> None:
    recipe = load_recipe("nu-clip-last-block")
    assert check_recipe(recipe)
    plain = {"crop_scale": (1.0, 1.0), "flip": 0.0, "rotation": 0.0, "jitter": (0.0,) * 4}
    changes = {f"augment.{key}": value for key, value in plain.items()}
    assert not check_recipe(changed(recipe, changes))
    for key, value in {"rotation": 20.0, "mixup": 0.2, "interpolation": "bilinear"}.items():
        with pytest.raises(InputError, match="augments in another way than the cache"):
            check_recipe(changed(recipe, {f"augment.{key}": value}))


@pytest.mark.parametrize(("there", "fits"), [("gpu", True), ("fast", False)])
def test_a_cache_that_a_gpu_has_decoded_serves_training(network_of, tiny_clip, there, fits) -> None:
    network = network_of(tiny_clip)
    preprocess = network.preprocess.decoded(there).record()
    fingerprint = {"weights": network.digest, "preprocess": preprocess, "layers": "pooled"}
    cache: Any = SimpleNamespace(fingerprint=fingerprint, folder=Path("own-1"))
    with nullcontext() if fits else pytest.raises(InputError, match="decode"):
        check_cache(cache, network, "pooled", "embed again")
