"""Networks of toy size: what is trained, what must not move, and what is saved."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from archiveprobe.base.errors import InputError
from archiveprobe.embed.models import load_model
from archiveprobe.finetune.model import (
    Network,
    assemble,
    backbone_of,
    build_network,
    make_head,
    start_head,
)
from archiveprobe.finetune.recipe import Model
from archiveprobe.probe.knn import KNN
from archiveprobe.probe.linear import Logistic, Ridge
from archiveprobe.task.config import Task

LAST = {
    "test_vit": "blocks.5",
    "test_convnext2": "stages.3.blocks.0",
    "test_resnet": "layer4.0",
}


def pixels(count: int, side: int, seed: int = 0):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def trained_names(network: Network) -> set[str]:
    return {name for name, each in network.module.named_parameters() if each.requires_grad}


def train(network: Network, steps: int = 3, side: int = 32) -> None:
    """A few rough steps over everything that is trained."""
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    network.train()
    for step in range(steps):
        optimizer.zero_grad()
        logits = network(pixels(4, side, step))
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 0, 1])).backward()
        optimizer.step()
    network.eval()


def test_the_clip_papers_network_trains_one_residual_block_and_the_head(
    tiny_clip, network_of
) -> None:
    network = network_of(tiny_clip, unfreeze="last-block", hidden=(256,), dropouts=(0.5, 0.3))
    width, out = 32, 16
    norms, attention, mlp = 4 * width, 4 * width * (width + 1), (8 * width + 5) * width
    head = out * 256 + 256 + 256 * 2 + 2
    parts = {"body": network.body, "head": network.head}
    counts = {
        name: sum(each.numel() for each in part.parameters() if each.requires_grad)
        for name, part in parts.items()
    }
    assert counts == {"body": norms + attention + mlp, "head": head}
    inside = "body.transformer.resblocks.2."
    assert all(name.startswith((inside, "head.")) for name in trained_names(network))
    # What open_clip's own lock frees for one group is the projection, which stays frozen here.
    assert not {"body.proj", "body.ln_post.weight"} & trained_names(network)


def test_open_clips_own_lock_frees_something_else(tiny_clip) -> None:
    tower = load_model(tiny_clip).module
    tower.lock(unlocked_groups=1)
    assert [name for name, each in tower.named_parameters() if each.requires_grad] == ["proj"]


@pytest.mark.parametrize("name", ["test_vit", "test_convnext2", "test_resnet"])
def test_the_last_block_of_timm_networks(tiny, network_of, name) -> None:
    network = network_of(tiny(name), unfreeze="last-block")
    block = network.body.get_submodule(LAST[name])
    wanted = {f"body.{LAST[name]}.{each}" for each, _ in block.named_parameters()}
    assert trained_names(network) - {"head.0.weight", "head.0.bias"} == wanted
    before = network.state()
    train(network, side=64 if name != "test_vit" else 160)
    changed = {each for each, old in before.items() if not torch.equal(old, network.state()[each])}
    assert changed & wanted
    assert all(each.startswith((f"body.{LAST[name]}.", "head.")) for each in changed)


@pytest.mark.parametrize("unfreeze", ["none", "last-block"])
def test_frozen_tensors_are_bit_equal_after_training(tiny, network_of, unfreeze) -> None:
    network = network_of(tiny("test_resnet"), unfreeze=unfreeze)
    before = network.state()
    train(network, side=64)
    after, free = network.state(), network.state(whole=False)
    assert any("running_mean" in name for name in before.keys() - free.keys())
    for name in before.keys() - free.keys():
        assert torch.equal(before[name], after[name]), name
    assert not torch.equal(before["head.0.weight"], after["head.0.weight"])


def test_everything_is_trained_batchnorm_statistics_too(tiny, network_of) -> None:
    network = network_of(tiny("test_resnet"), unfreeze="all")
    before = network.state()
    train(network, side=64)
    after = network.state()
    assert {name for name in before if not torch.equal(before[name], after[name])} == set(before)


def test_copies_keep_the_modes_of_their_parts(tiny, network_of) -> None:
    network = network_of(tiny("test_resnet"), unfreeze="last-block", dropouts=(0.3,))
    network.train()
    modes = {name: part.training for name, part in network.module.named_modules()}
    assert modes["head.1"]
    assert modes["body.layer4.0.bn1"]
    assert not modes["body.bn1"]
    twin = copy.deepcopy(network.module).eval().train()
    assert {name: part.training for name, part in twin.named_modules()} == modes
    assert not any(part.training for part in network.eval().module.modules())


def test_logits_are_the_head_on_the_unnormalised_embedding(tiny_clip, network_of) -> None:
    network = network_of(tiny_clip, classes=3)
    given = pixels(2, 32)
    with torch.no_grad():
        embedding = load_model(tiny_clip).module(given)
        wanted = embedding @ network.head[0].weight.T + network.head[0].bias
        assert torch.allclose(network(given), wanted, atol=1e-6)
    assert network.digest == load_model(tiny_clip).digest


def test_equal_seeds_give_equal_networks(tiny) -> None:
    settings = Model(backbone="own")
    one, two, other = (
        build_network(settings, tiny("test_vit"), 2, seed=seed).state() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.0.weight"], other["head.0.weight"])


def test_a_whole_state_that_lacks_a_frozen_tensor_is_refused(tiny, network_of) -> None:
    network = network_of(tiny("test_vit"), unfreeze="last-block")
    lacking = network.state()
    del lacking["body.cls_token"]
    with pytest.raises(InputError, match=r"body\.cls_token is missing"):
        network.load_state(lacking)


def test_what_is_not_named_is_frozen_whatever_it_was_before() -> None:
    module = assemble(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2), ("head",))
    free = [name for name, each in module.named_parameters() if each.requires_grad]
    assert free == ["head.weight", "head.bias"]


def test_another_size_moves_the_whole_geometry(tiny, network_of) -> None:
    own = network_of(tiny("test_convnext2")).preprocess.geometry
    small = network_of(tiny("test_convnext2"), size=64).preprocess.geometry
    assert small.size == 64
    assert small.resize == round(own.resize * 64 / own.size)
    vit = network_of(tiny("test_vit"), size=64)
    assert vit(pixels(1, 64)).shape == (1, 2)


def test_a_size_that_a_backbone_cannot_take_is_refused(tiny_clip, network_of) -> None:
    with pytest.raises(InputError, match=r"takes no images of 40 pixels .* correct model\.size"):
        network_of(tiny_clip, size=40)


def test_the_backbone_is_the_tasks_own_or_random(tmp_path: Path) -> None:
    task = Task(
        file=tmp_path / "task.toml",
        name="t",
        backbone={"mine": {"library": "timm", "name": "test_vit", "weights": "w.safetensors"}},
        embed={"layers": "tokens"},
    )
    mine = backbone_of(Model(backbone="mine"), task)
    assert (mine.weights, mine.layers) == (str(tmp_path / "w.safetensors"), "pooled")
    table = backbone_of(Model(backbone="clip-vit-b32", weights="random"), task)
    assert (table.weights, table.tag) == ("random", "openai")
    with pytest.raises(InputError, match="hog has nothing to train"):
        backbone_of(Model(backbone="hog"), task)


def test_weights_from_a_file_are_those_that_are_tuned(tiny, network_of, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(7)
    source = timm.create_model("test_vit")
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    network = network_of(tiny("test_vit", weights=str(tmp_path / "w.safetensors")))
    assert torch.equal(network.state()["body.cls_token"], source.cls_token)
    blank = build_network(
        Model(backbone="own"),
        replace(tiny("test_vit"), weights=str(tmp_path / "gone.safetensors")),
        2,
        untrained=True,
    )
    blank.load_state(network.state())
    given = np.asarray(network(pixels(1, 160)).detach())
    np.testing.assert_array_equal(given, np.asarray(blank(pixels(1, 160)).detach()))


@pytest.mark.parametrize("name", ["vgg11", "clip"])
def test_a_backbone_without_stochastic_depth_is_refused(name, tiny, tiny_clip, network_of) -> None:
    backbone = tiny_clip if name == "clip" else tiny(name)
    with pytest.raises(InputError, match=r"knows no stochastic depth: leave out model\.drop_path"):
        network_of(backbone, drop_path=0.1)


@pytest.mark.parametrize("whole", [True, False])
def test_a_state_gives_the_same_logits_in_another_network(tiny, network_of, whole) -> None:
    network = network_of(tiny("test_convnext2"), unfreeze="last-block")
    train(network, side=64)
    other = network_of(tiny("test_convnext2"), unfreeze="last-block")
    other.load_state(network.state(whole=whole))
    given = pixels(2, 64)
    with torch.no_grad():
        assert torch.equal(network(given), other(given))
    assert all(tensor.is_contiguous() for tensor in network.state().values())


def test_weights_that_do_not_fit_are_refused_by_name(tiny, network_of) -> None:
    three, two = (network_of(tiny("test_vit"), classes=classes) for classes in (3, 2))
    before = two.state()
    with pytest.raises(InputError, match=r"head\.0\.weight is \(3, 64\), not \(2, 64\)") as error:
        two.load_state(three.state(), "w.safetensors")
    assert "w.safetensors do not fit timm:test_vit" in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    lacking = three.state()
    del lacking["body.cls_token"], lacking["head.0.bias"]
    with pytest.raises(InputError, match=r"body\.cls_token is missing, head\.0\.bias is missing"):
        three.load_state(lacking)
    assert all(torch.equal(before[name], after) for name, after in two.state().items())


PAPER = Model(backbone="own", hidden=(256,), dropouts=(0.5, 0.3))
LINEAR = Model(backbone="own")


def embeddings(count: int = 60, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Rows of very different scales, not normalised, and labels of two classes."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, width)) * np.logspace(-2, 2, width) + np.arange(width)
    return x, (x[:, 0] * 100 + rng.normal(size=count) > 0).astype(int)


def test_the_paper_head_has_its_dropouts_after_relu_and_on_the_logits() -> None:
    nn = torch.nn
    head = make_head(512, 2, PAPER)
    assert [type(part) for part in head] == [
        nn.Linear,
        nn.ReLU,
        nn.Dropout,
        nn.Linear,
        nn.Dropout,
    ]
    assert [(part.in_features, part.out_features) for part in (head[0], head[3])] == [
        (512, 256),
        (256, 2),
    ]
    assert (head[2].p, head[4].p) == (0.5, 0.3)
    assert sum(each.numel() for each in head.parameters()) == 512 * 256 + 256 + 256 * 2 + 2


def test_the_paper_head_by_hand() -> None:
    head = make_head(4, 2, PAPER.model_copy(update={"hidden": (3,)}))
    given = torch.randn(5, 4)
    inner = (given @ head[0].weight.T + head[0].bias).clamp(min=0)
    wanted = inner @ head[3].weight.T + head[3].bias
    assert torch.allclose(head.eval()(given), wanted, atol=1e-6)
    torch.manual_seed(0)
    logits = head.train()(torch.ones(4000, 4))
    # A logit is dropped with probability 0.3, whatever was dropped before it.
    assert float((logits == 0).float().mean()) == pytest.approx(0.3, abs=0.02)


def test_without_settings_a_head_is_linear() -> None:
    head = make_head(640, 3, LINEAR)
    assert [type(part) for part in head] == [torch.nn.Linear]
    assert head[0].weight.shape == (3, 640)


def test_equal_seeds_give_equal_heads_and_leave_other_draws_alone() -> None:
    torch.manual_seed(1)
    before = torch.rand(1)
    torch.manual_seed(1)
    one, two, other = (make_head(8, 2, PAPER, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.rand(1), before)
    assert torch.equal(one[0].weight, two[0].weight)
    assert not torch.equal(one[0].weight, other[0].weight)


@pytest.mark.parametrize("probe", [Logistic(), Ridge(), Logistic(Cs=(0.1,))])
def test_a_head_that_starts_from_a_probe_answers_as_the_probe(probe) -> None:
    x, y = embeddings()
    probe.fit(x, y)
    head = make_head(x.shape[1], 2, LINEAR)
    start_head(head, probe.arrays())
    given = torch.from_numpy(x.astype(np.float32))
    ours = head(given).softmax(1).detach().numpy()
    np.testing.assert_allclose(ours, probe.predict_proba(x), atol=1e-4)
    assert len(set(ours.argmax(1))) == 2


def test_coefficients_in_fortran_order_arrive_unscrambled() -> None:
    x, _ = embeddings()
    coef = np.asfortranarray(np.random.default_rng(1).normal(size=(3, x.shape[1])))
    arrays = {"weights": np.ones(1), "coef": coef.T[None], "intercept": np.arange(3.0)[None]}
    head = make_head(x.shape[1], 3, LINEAR)
    start_head(head, arrays)
    ours = head(torch.from_numpy(x.astype(np.float32))).detach().numpy()
    np.testing.assert_allclose(ours, x @ coef.T + np.arange(3), rtol=1e-4, atol=1e-3)


def test_probes_that_a_head_cannot_start_from_are_refused() -> None:
    x, y = embeddings()
    with pytest.raises(InputError, match="a linear probe only"):
        start_head(make_head(8, 2, LINEAR), KNN().fit(x, y).arrays())
    arrays = {"weights": np.ones(1), "coef": np.zeros((1, 8, 2)), "intercept": np.zeros((1, 2))}
    with pytest.raises(InputError, match="leave out hidden"):
        start_head(make_head(8, 2, PAPER), arrays)
    with pytest.raises(InputError, match=r"weights are \(2, 8\), the head's \(2, 9\)"):
        start_head(make_head(9, 2, LINEAR), arrays)
