"""The papers' settings where they do their work: in the loop, step by step, on toy networks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch

import archiveprobe.finetune.train as loop
from archiveprobe.embed.backbones import BACKBONES
from archiveprobe.embed.view_sets import view_set
from archiveprobe.evaluate.thresholding import THRESHOLD_RULES, decide
from archiveprobe.finetune.augment import mix, mixup_share
from archiveprobe.finetune.blocks import last_blocks
from archiveprobe.finetune.inference import decisions
from archiveprobe.finetune.model import Network, assemble, make_head
from archiveprobe.finetune.optimizer import parameter_groups
from archiveprobe.finetune.recipe_file import changed, load_recipe
from archiveprobe.finetune.train import train


@dataclass
class Steps:
    """What an optimizer saw: at every step its head's rate, gradients' norm, weights afterwards."""

    rates: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    weights: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Network], Steps]:
    def watched(network: Network) -> Steps:
        """Watch the optimizer that training makes for this network."""
        seen, make = Steps(), loop.make_optimizer
        learnt = network.parameters()

        def made(*given: Any) -> Any:
            optimizer = make(*given)
            take = optimizer.step

            def step() -> None:
                last = optimizer.param_groups[-1]
                seen.rates.append(last["lr"] / last["lr_scale"])
                seen.norms.append(float(sum((each.grad**2).sum() for each in learnt) ** 0.5))
                take()
                seen.weights.append(network.state())

            optimizer.step = step
            return optimizer

        monkeypatch.setattr(loop, "make_optimizer", made)
        return seen

    return watched


def test_the_clip_papers_trainable_parameters_on_the_real_tower() -> None:
    backbone, recipe = BACKBONES["clip-vit-b32"], load_recipe("nu-clip-last-block")
    config = open_clip.get_model_config(backbone.model)
    assert config["quick_gelu"]
    vision = config["vision_cfg"]
    with torch.device("meta"):
        tower = open_clip.transformer.VisionTransformer(
            vision["image_size"],
            vision["patch_size"],
            vision["width"],
            vision["layers"],
            vision["width"] // 64,
            4.0,
            output_dim=config["embed_dim"],
        )
    (block,) = last_blocks(tower, 1, backbone.name)
    assert block == "transformer.resblocks.11"
    head = make_head(config["embed_dim"], 2, recipe.model)
    module = assemble(tower, head, ("head", f"body.{block}"))
    free = {name: each.numel() for name, each in module.named_parameters() if each.requires_grad}
    # Width w = 768: 12 w^2 + 13 w. Head: 512 x 256 + 256 + 256 x 2 + 2.
    of_head = sum(count for name, count in free.items() if name.startswith("head."))
    assert (sum(free.values()) - of_head, of_head) == (7_087_872, 131_842)


def test_the_convnext_papers_network_is_640_wide_and_decays_matrices_only() -> None:
    backbone = BACKBONES["convnextv2-nano-384"]
    with torch.device("meta"):
        body = timm.create_model(f"{backbone.model}.{backbone.tag}", num_classes=0)
        head = make_head(640, 2, load_recipe("kvochur-convnextv2-nano").model)
    assert f"{backbone.model}.{backbone.tag}" == "convnextv2_nano.fcmae_ft_in22k_in1k_384"
    assert body.num_features == 640
    groups = parameter_groups(body, head, load_recipe("kvochur-convnextv2-nano").optimizer)
    decay = {id(each): group["weight_decay"] for group in groups for each in group["params"]}
    named = [*body.named_parameters(), *head.named_parameters()]
    assert len(decay) == len(named)
    for name, each in named:
        assert decay[id(each)] == (0.3 if each.ndim > 1 and "grn" not in name else 0.0), name
    assert sum("grn" in name for name, _ in named) == 2 * 14


@pytest.mark.parametrize("positive", [0, 1])
def test_the_first_loss_of_the_clip_recipe_by_hand(
    positive: int, small, network_for, noise
) -> None:
    recipe = small("nu-clip-last-block", model__dropouts=(0.0, 0.0), schedule__epochs=1)
    network, data = network_for(recipe), noise(positive=positive)
    with torch.no_grad():
        p = network(data.inputs.pixels).softmax(1).double().numpy()
    own = p[np.arange(16), data.labels]
    alpha = np.where(data.labels == positive, 0.75, 0.25)
    by_hand = -(alpha * (1 - own) ** 2 * np.log(own)).mean()
    done = train(network, data, changed(recipe, {"optimizer.batch_size": 16}))
    assert done.history[0].loss == pytest.approx(by_hand, rel=1e-5)


def test_the_first_loss_of_the_convnext_recipe_by_hand(small, network_for, noise) -> None:
    recipe = small("kvochur-convnextv2-nano", schedule__epochs=1, schedule__warmup=0.0)
    network, data = network_for(recipe), noise(20, validation=4)
    with torch.no_grad():
        logits = network(data.inputs.pixels[:16])
    wanted = torch.nn.functional.cross_entropy(
        logits, torch.from_numpy(data.labels[:16]), label_smoothing=0.2
    )
    assert train(network, data, recipe).history[0].loss == pytest.approx(float(wanted), rel=1e-5)


def test_mixup_mixes_pixels_and_targets_by_the_same_share(small, network_for, noise) -> None:
    recipe = small("thefangs-maxvit-base", schedule__epochs=1, schedule__warmup=0.0)
    data = noise(20, validation=4)
    network = network_for(changed(recipe, {"optimizer.layer_decay": 1.0}))
    source = data.inputs
    first = network.state()
    done = train(network, data, recipe)
    order = np.array([draw.row for draw in source.drawn[:16]])
    share = mixup_share(0.2, recipe.seed, 0, 0)
    assert 0 < share < 1
    network.load_state(first)
    with torch.no_grad():
        log_p = network(mix(source.pixels[order], share)).log_softmax(1).double()
    # Every row with its partner from the other end: label and share of both.
    y = torch.eye(2)[data.labels[order]]
    targets = share * y + (1 - share) * y.flip(0)
    alpha = torch.tensor([0.25, 0.75])
    by_hand = -(alpha * targets * (1 - log_p.exp()) ** 2 * log_p).sum(1).mean()
    assert done.history[0].loss == pytest.approx(float(by_hand), rel=1e-5)


def test_gradients_are_clipped_over_head_and_block_together(
    watched, tiny_clip, small, network_for, noise
) -> None:
    def norms(**changes: Any) -> list[float]:
        recipe = small("nu-clip-last-block", schedule__epochs=2, optimizer__batch_size=8, **changes)
        network = network_for(recipe, tiny_clip)
        seen = watched(network)
        train(network, noise(), recipe)
        return seen.norms

    limit = 1e-3
    free, cut = norms(optimizer__clip_grad_norm=None), norms(optimizer__clip_grad_norm=limit)
    assert min(free) > 2 * limit
    assert cut == pytest.approx([limit] * 4, rel=1e-2)
    # A norm below the paper's limit is left alone.
    assert norms(optimizer__clip_grad_norm=1.0)[0] == pytest.approx(min(free[0], 1.0), rel=1e-4)


def test_steps_are_taken_at_the_convnext_papers_rates(watched, small, network_for, noise) -> None:
    recipe = small("kvochur-convnextv2-nano", optimizer__batch_size=4)
    network = network_for(recipe)
    seen = watched(network)
    train(network, noise(9, validation=1), recipe)
    assert len(seen.rates) == 100
    # Two steps an epoch; 25: 1e-6 + 1.99e-4 (1 + cos 80 degrees) / 2. The last step is the 100th.
    last = 1e-6 + 1.99e-4 * (1 + np.cos(np.pi * 89 / 90)) / 2
    wanted = {0: 2e-7, 1: 2e-7 + 1.998e-4 / 10, 10: 2e-4, 50: 1.1777798e-4, 99: last}
    assert {step: seen.rates[step] for step in wanted} == pytest.approx(wanted, rel=1e-6)


def test_the_clip_papers_rates_stay(watched, tiny_clip, small, network_for, noise) -> None:
    recipe = small("nu-clip-last-block", schedule__epochs=3)
    network = network_for(recipe, tiny_clip)
    seen = watched(network)
    train(network, noise(), recipe)
    assert seen.rates == pytest.approx([1e-3] * 3)


def test_the_average_moves_in_every_step_and_is_validated_and_kept(
    watched, monkeypatch, small, network_for, noise
) -> None:
    recipe = small("kvochur-convnextv2-nano", schedule__epochs=6, optimizer__batch_size=4)
    network = network_for(recipe, "test_resnet")
    by_hand = [{name: each.double() for name, each in network.state().items()}]
    seen, validated = watched(network), []
    scores = iter([0.1, 0.2, 0.9, 0.3, 0.3, 0.3])

    def scored(_: Any, given: Network) -> float:
        validated.append(given.state())
        return next(scores)

    monkeypatch.setattr(loop.Trainer, "validate", scored)
    done = train(network, noise(10, validation=2), recipe)
    for weights in seen.weights:
        last = by_hand[-1]
        by_hand.append(
            {name: 0.9995 * last[name] + 0.0005 * weights[name].double() for name in last}
        )
    assert done.epoch == 3 and len(seen.weights) == 12
    averaged = [name for name in by_hand[0] if not name.endswith("num_batches_tracked")]
    assert any("running_var" in name for name in averaged)
    for epoch, state in enumerate(validated, start=1):
        for name in averaged:
            wanted = by_hand[2 * epoch][name].float()
            torch.testing.assert_close(state[name], wanted, rtol=1e-5, atol=1e-7)
    for state in (done.state, network.state()):
        assert all(torch.equal(state[name], validated[2][name]) for name in validated[2])


@pytest.mark.parametrize(
    ("losses", "epoch", "trained"),
    [
        ([5, 4, 3, 3, 3.5, 4, 5, 3, 1], 3, 8),
        ([5, 4, 3, 3, 3.5, 4, 5, 2, 2, 2, 2, 2, 2, 1], 8, 13),
        ([float(31 - each) for each in range(31)], 30, 30),
    ],
)
def test_five_epochs_without_a_lower_training_loss_end_the_clip_recipe(
    losses: list[float],
    epoch: int,
    trained: int,
    monkeypatch,
    tiny_clip,
    small,
    network_for,
    noise,
) -> None:
    recipe = small("nu-clip-last-block", optimizer__batch_size=16)
    network, states = network_for(recipe, tiny_clip), []
    monkeypatch.setattr(loop.Trainer, "_check_losses", lambda *given: [losses[given[-1]]])
    done = train(
        network, noise(), recipe, on_epoch=lambda _: states.append(network.state(whole=False))
    )
    assert (done.epoch, len(done.history)) == (epoch, trained)
    for name, tensor in states[epoch - 1].items():
        assert torch.equal(done.state[name], tensor)
        assert torch.equal(network.state()[name], tensor)


def test_the_clip_papers_cut_is_found_in_its_range_and_must_be_exceeded() -> None:
    find = THRESHOLD_RULES[load_recipe("nu-resnet50").predict.threshold_rule].find
    y = np.array([False, False, False, True, True])
    # Any threshold from .505 to below .515 is faultless, and .51 the only one of the grid.
    p = np.array([0.1, 0.4, 0.505, 0.515, 0.9])
    found = find(y, p, np.ones((0, 5)))
    assert found.value == pytest.approx(0.51, abs=1e-12) and found.score == 1.0
    assert decide(np.array([found.value, 0.5101]), found.value).tolist() == [0, 1]
    # The best thresholds lie outside: the range ends at .3 and at .7.
    low, high = (find(y, shifted, np.ones((0, 5))).value for shifted in (p / 4, 1 - (1 - p) / 4))
    assert 0.3 <= low <= 0.7 and 0.3 <= high <= 0.7


def test_the_clip_papers_own_threshold_is_applied_and_must_be_exceeded() -> None:
    recipe = load_recipe("nu-clip-last-block")
    # Softmax of (0, x) is 1 / (1 + e^-x), which is .51 at x = .0400053.
    logits = np.zeros((4, 1, 2))
    logits[:, 0, 1] = 0.001, 0.0400, 0.0401, 3.0
    assert decisions(recipe.predict, logits, 1).tolist() == [0, 0, 1, 1]
    assert decisions(recipe.predict, logits[..., ::-1], 0).tolist() == [1, 1, 0, 0]
    assert decisions(load_recipe("nu-resnet50").predict, logits, 1).tolist() == [1, 1, 1, 1]


def test_the_convnext_papers_vote_counts_views_and_not_their_mean() -> None:
    recipe = load_recipe("kvochur-convnextv2-nano")
    views = view_set(recipe.predict.views)
    assert [view.name for view in views if not view.mirror][1] == "crop-middle"
    logits = np.zeros((4, 6, 2))
    # Four lukewarm votes for against two certain ones: the mean would say no.
    logits[0, :4, 1], logits[0, 4:, 0] = 0.01, 9.0
    # Two for, four against.
    logits[1, :2, 1], logits[1, 2:, 0] = 9.0, 0.01
    # Three to three: the unmirrored centre (1) is for, its mirror (4) against, and the reverse.
    logits[2, [0, 1, 2], 1], logits[2, [3, 4, 5], 0] = 0.01, 9.0
    logits[3, [3, 4, 5], 1], logits[3, [0, 1, 2], 0] = 9.0, 0.01
    assert decisions(recipe.predict, logits, 1).tolist() == [1, 0, 1, 0]
    averaged = changed(recipe, {"predict.combine": "mean"})
    assert decisions(averaged.predict, logits, 1).tolist() == [0, 1, 0, 1]
