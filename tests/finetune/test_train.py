"""The loop, on networks of toy size: what it learns, what it leaves alone, where it stops."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apple
import numpy as np
import pytest
import torch
from PIL import Image

import archiveprobe.finetune.train as loop
from archiveprobe.base.errors import InputError
from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.view_sets import view_set
from archiveprobe.finetune import checkpoint_writer
from archiveprobe.finetune.augment import Augmentation
from archiveprobe.finetune.checkpoint import Checkpoints
from archiveprobe.finetune.images import ImageRows, PixelSpec, load_pixels
from archiveprobe.finetune.inference import vote
from archiveprobe.finetune.mixing import choose_mixture, mixture_of
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.train import (
    Epoch,
    Stop,
    Trained,
    train,
)
from archiveprobe.task.decoding import digest

PLAIN = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": 0.0}
CONVNEXT = Backbone("own", "timm", "test_convnext2", weights="random")


def recipe_of(**sections: Any) -> Recipe:
    """A small recipe; sections over what follows."""
    given: dict[str, Any] = {
        "model": {"backbone": "own", "size": 32},
        "optimizer": {"batch_size": 8},
        "schedule": {"epochs": 3},
        "augment": PLAIN,
    }
    for name, values in sections.items():
        given[name] = {**given.get(name, {}), **values}
    return Recipe(name="small", **given)


def same(one: Trained, other: Trained) -> None:
    assert one.history == other.history
    assert (one.epoch, one.alpha) == (other.epoch, other.alpha)
    assert one.state.keys() == other.state.keys()
    for name in one.state:
        assert torch.equal(one.state[name], other.state[name]), name


def test_frozen_weights_are_bit_equal_after_training(
    tiny_clip: Backbone, noise, network_for
) -> None:
    recipe = recipe_of(
        model={"unfreeze": "last-block", "size": None},
        ema={"decay": 0.9},
        schedule={"monitor": "training-loss"},
    )
    network = network_for(recipe, tiny_clip)
    before = network.state()
    done = train(network, noise(), recipe)
    after = network.state()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and changed <= set(done.state)
    assert all(name.startswith(("head.", "body.transformer.resblocks.2.")) for name in changed)
    assert {name.split(".")[0] for name in changed} == {"head", "body"}


def everything() -> Recipe:
    """A recipe in which all that draws or averages is at work."""
    return recipe_of(
        model={"hidden": (8,), "dropouts": (0.5, 0.3), "drop_path": 0.5},
        loss={"kind": "focal", "alpha": 0.75, "label_smoothing": 0.1},
        optimizer={"layer_decay": 0.9, "clip_grad_norm": 1.0},
        schedule={"epochs": 4, "warmup": 1.0},
        augment={
            "crop_scale": (0.5, 1.0),
            "flip": 0.5,
            "rotation": 10.0,
            "jitter": (0.2, 0.2, 0.2, 0.1),
            "rand_augment": "rand-m9-n2-mstd0.5-inc1",
            "erasing": 0.5,
            "mixup": 0.2,
        },
        ema={"decay": 0.9},
        rows={"sampler": "balanced"},
        interpolate={"alphas": (0.0, 0.5, 1.0)},
    )


class Killed(Exception):  # noqa: N818
    """The process is gone."""


def killed_after(epochs: int) -> Callable[[Epoch], None]:
    left = iter(range(epochs - 1))

    def on_epoch(_: Epoch) -> None:
        if next(left, None) is None:
            raise Killed

    return on_epoch


@pytest.mark.proves("killed")
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, epochs: int, noise, network_for, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_writer, "SECONDS", 0.0)
    recipe = everything()
    rng = np.random.default_rng(0)
    files = []
    for number in range(20):
        file = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(file)
        files.append((file.name, digest(file.read_bytes())))

    def attempt(checkpoints: Checkpoints | None, on_epoch: Any = lambda _: None) -> Trained:
        network = network_for(recipe)
        spec = PixelSpec(46, network.preprocess.geometry, view_set("center"))
        with load_pixels(tmp_path, files, spec, tmp_path, workers=0) as pixels:
            draw = Augmentation(recipe.augment, network.preprocess, 0)
            source = ImageRows(pixels, network.preprocess, draw)
            data = replace(noise(20, validation=6), inputs=source)
            return train(network, data, recipe, checkpoints=checkpoints, on_epoch=on_epoch)

    whole = attempt(None)
    checkpoints = Checkpoints(tmp_path / "state", {"recipe": "everything"})
    with pytest.raises(Killed):
        attempt(checkpoints, killed_after(epochs))
    # Other draws in between: a new process starts elsewhere.
    torch.manual_seed(99)
    same(attempt(checkpoints), whole)


def test_stochastic_depth_skips_blocks_in_training_only(noise, network_for) -> None:
    found = {}
    for share in (0.0, 0.9):
        recipe = recipe_of(model={"drop_path": share}, schedule={"monitor": "training-loss"})
        network, data = network_for(recipe), noise()
        with torch.no_grad():
            before = network(data.inputs.pixels)
        found[share] = before, network.digest, train(network, data, recipe)
    (still, digest_still, plain), (skipping, digest_skipping, skipped) = found.values()
    assert digest_still == digest_skipping and torch.equal(still, skipping)
    assert plain.history != skipped.history


def test_nobody_elses_draws_move(noise, network_for) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    recipe = recipe_of(schedule={"epochs": 1})
    train(network_for(recipe), noise(validation=4), recipe)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.proves("training")
def test_a_loss_that_is_no_number_stops_with_step_and_images(
    tmp_path: Path, noise, network_for
) -> None:
    recipe = recipe_of(schedule={"monitor": "training-loss"})
    checkpoints = Checkpoints(tmp_path / "state", {})
    with pytest.raises(InputError) as error:
        train(network_for(recipe), noise(broken=(5, 1)), recipe, checkpoints=checkpoints)
    message = str(error.value)
    assert "image-5" in message and "(epoch 2) is nan" in message
    assert "step 3" in message or "step 4" in message
    kept = checkpoints.load()
    assert kept is not None and len(kept["history"]) == 1
    assert all(bool(each.isfinite().all()) for each in kept["weights"].values())


@pytest.mark.proves("training")
def test_weights_that_are_no_numbers_are_never_kept(tmp_path: Path, noise, network_for) -> None:
    recipe = recipe_of(
        optimizer={"head_lr": 1e37, "lr": 1e37, "batch_size": 16, "weight_decay": 1e3},
        schedule={"monitor": "training-loss", "kind": "constant"},
    )
    checkpoints = Checkpoints(tmp_path / "state", {})
    with pytest.raises(InputError, match="weights are no numbers after step 1"):
        train(network_for(recipe), noise(), recipe, checkpoints=checkpoints)
    assert checkpoints.load() is None


def test_losses_that_are_looked_at_together_name_the_step_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noise, network_for
) -> None:
    # As on a GPU: the whole epoch is learnt before anybody looks.
    recipe = recipe_of(schedule={"monitor": "training-loss"})
    alone = train(network_for(recipe), noise(32), recipe)
    monkeypatch.setattr(loop, "_LOSSES_AT_ONCE", {"cpu": 3})
    same(train(network_for(recipe), noise(32), recipe), alone)
    with pytest.raises(InputError, match=r"the loss of step [5-8] \(epoch 2\) is nan.*image-5\b"):
        train(network_for(recipe), noise(32, broken=(5, 1)), recipe)


def test_half_precision_learns_about_the_same_and_keeps_whole_weights(noise, network_for) -> None:
    recipe = recipe_of(schedule={"monitor": "training-loss"})
    whole = train(network_for(recipe), noise(), recipe)
    half = train(network_for(recipe), noise(), recipe, precision="bf16")
    assert half.history != whole.history
    for one, other in zip(half.history, whole.history, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=0.05)
    assert all(tensor.dtype != torch.bfloat16 for tensor in half.state.values())


def test_a_gpu_of_apple_learns_the_same(
    noise, network_for, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(schedule={"epochs": 2})
    on_cpu = train(network_for(recipe), noise(), recipe)
    moved = apple.pretend(monkeypatch)
    checkpoints = Checkpoints(tmp_path, {"recipe": "small"})
    there = train(network_for(recipe), noise(), recipe, device="mps", checkpoints=checkpoints)
    assert "Tensor" in moved and set(moved) - {"Tensor"}
    for one, other in zip(there.history, on_cpu.history, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-3)
        assert one.macro_f1 == other.macro_f1
    again = train(network_for(recipe), noise(), recipe, device="mps", checkpoints=checkpoints)
    same(again, there)


@pytest.mark.proves("memory")
def test_out_of_memory_names_the_setting_to_lower(noise, network_for) -> None:
    recipe = recipe_of()
    network = network_for(recipe)

    def forward(*_: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    network.module.forward = forward
    with pytest.raises(InputError, match=r"batches of 8 on cpu: .* lower optimizer\.batch"):
        train(network, noise(validation=4), recipe)


@pytest.mark.proves("memory")
@pytest.mark.parametrize("kind", ["focal", "cross-entropy"])
def test_gradients_of_small_passes_add_up_to_those_of_the_batch(noise, network_for, kind) -> None:
    loss = {"kind": kind, "alpha": 0.75, "label_smoothing": 0.1}
    done = []
    for size in (None, 3, 1):
        recipe = recipe_of(
            loss=loss,
            optimizer={"micro_batch": size, "clip_grad_norm": 1.0},
            augment={"mixup": 0.2},
        )
        largest: list[int] = []
        network = network_for(recipe)
        network.module.register_forward_pre_hook(
            lambda _, inputs, largest=largest: largest.append(len(inputs[0]))
        )
        done.append(train(network, noise(labels=[0, 1, 1, 1] * 4), recipe, stop=Stop(2)))
        assert max(largest) == (size or 8)
    for one in done[1:]:
        for name, tensor in done[0].state.items():
            torch.testing.assert_close(one.state[name], tensor, rtol=1e-3, atol=1e-4)
        for epoch, other in zip(one.history, done[0].history, strict=True):
            assert epoch.loss == pytest.approx(other.loss, rel=1e-4)


def test_a_second_gpu_is_current_and_multiplies_exactly_while_a_network_trains(
    noise, network_for, monkeypatch: pytest.MonkeyPatch
) -> None:
    current, during = [0], []

    @contextmanager
    def device(name: str) -> Iterator[None]:
        current.append(int(name.partition(":")[2]))
        yield
        current.pop()

    def batches(*_: Any, **__: Any) -> Any:
        during.append((current[-1], torch.backends.cudnn.conv.fp32_precision))
        raise Killed

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.random, "fork_rng", lambda **_: nullcontext())
    monkeypatch.setattr(loop, "training_batches", batches)
    monkeypatch.setattr(loop, "Trainer", lambda *_: SimpleNamespace(history=[], sampler=list))
    recipe = recipe_of()
    network = SimpleNamespace(to=lambda _: None, state=lambda **_: {})
    with pytest.raises(Killed):
        train(network, noise(), recipe, device="cuda:1")
    # Exact products of fp32, which torch does not compute by default.
    assert during == [(1, "ieee")]


def test_rating_is_at_the_precision_of_the_run(
    noise, network_for, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = loop.inference.logits_of

    def spy(*given: Any, **ways: Any) -> Any:
        asked.append(given[-1].precision)
        return real(*given, **ways)

    monkeypatch.setattr(loop.inference, "logits_of", spy)
    recipe = recipe_of(schedule={"epochs": 1})
    for precision in ("fp32", "bf16"):
        train(network_for(recipe), noise(validation=4), recipe, precision=precision)
    assert asked == ["fp32", "bf16"]


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Macro-F1 of every epoch, as if the rows that select had said so."""
    left = iter(scores)
    monkeypatch.setattr(loop, "macro_f1", lambda *_: next(left))


def test_the_best_epoch_is_kept_and_patience_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, noise, network_for
) -> None:
    scripted(monkeypatch, [0.5, 0.7, 0.7, 0.6, 0.9])
    recipe = recipe_of(schedule={"epochs": 9, "patience": 2})
    done = train(network_for(recipe), noise(validation=4), recipe)
    assert [each.macro_f1 for each in done.history] == [0.5, 0.7, 0.7, 0.6]
    assert done.epoch == 2
    same_run = train(network_for(recipe), noise(), recipe, stop=Stop(2))
    assert len(same_run.history) == same_run.epoch == 2


def test_the_kept_weights_are_those_of_the_best_epoch(
    monkeypatch: pytest.MonkeyPatch, noise, network_for
) -> None:
    recipe = recipe_of(schedule={"epochs": 4, "kind": "constant"})
    short = train(network_for(recipe), noise(validation=4), recipe, stop=Stop(2))
    scripted(monkeypatch, [0.5, 0.7, 0.7, 0.6])
    network = network_for(recipe)
    done = train(network, noise(validation=4), recipe)
    for name, tensor in short.state.items():
        assert torch.equal(done.state[name], tensor)
        assert torch.equal(network.state()[name], tensor)


def test_a_final_fit_goes_along_the_schedule_of_the_folds(noise, network_for) -> None:
    recipe = recipe_of(schedule={"epochs": 6, "warmup": 1.0, "monitor": "none"})
    whole = train(network_for(recipe), noise(), recipe)
    final = train(network_for(recipe), noise(), recipe, stop=Stop(3))
    assert final.history == whole.history[:3]


def test_mixtures_are_chosen_on_the_rows_that_select(
    monkeypatch: pytest.MonkeyPatch, noise, network_for
) -> None:
    recipe = recipe_of(
        schedule={"epochs": 1, "monitor": "none"}, interpolate={"alphas": (0.0, 0.5, 1.0)}
    )
    scripted(monkeypatch, [0.1, 0.2, 0.9, 0.3])
    network = network_for(recipe)
    first = network.state(whole=False)
    done = train(network, noise(validation=4), recipe)
    assert done.alpha == 0.5
    final = train(network_for(recipe), noise(), recipe, stop=Stop(1, alpha=0.0))
    assert all(torch.equal(final.state[name], first[name]) for name in first)


def test_an_even_vote_is_settled_by_the_unmirrored_centre() -> None:
    views = view_set("crops6")
    logits = np.zeros((3, 6, 2))
    # crop-middle unmirrored is the second view.
    logits[0, [1, 3, 4], 1] = 5.0
    logits[0, [0, 2, 5], 0] = 1.0
    logits[1, [0, 3, 4], 1] = 5.0
    logits[1, [1, 2, 5], 0] = 1.0
    logits[2, [0, 2, 3, 5], 1] = 0.1
    logits[2, [1, 4], 0] = 9.0
    assert vote(logits, views, positive=1).tolist() == [1, 0, 1]
    assert vote(logits[..., ::-1], views, positive=0).tolist() == [0, 1, 0]
    # 0.5 exactly is no vote for the positive class.
    assert vote(np.zeros((1, 6, 2)), views, positive=0).tolist() == [1]


def test_interpolation_by_hand() -> None:
    first = {"a": torch.tensor([0.0, 4.0]), "n": torch.tensor(1)}
    tuned = {"a": torch.tensor([1.0, 2.0]), "n": torch.tensor(7)}
    mixed = mixture_of(first, tuned, 0.25)
    assert mixed["a"].tolist() == [0.25, 3.5]
    assert mixed["n"].item() == 7


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_come_back_bit_by_bit_and_as_copies(share) -> None:
    states = [torch.nn.Linear(30, 30).state_dict() for _ in range(2)]
    mixed = mixture_of(*states, share)
    for name, tensor in mixed.items():
        assert torch.equal(tensor, states[int(share)][name])
        assert tensor.data_ptr() != states[int(share)][name].data_ptr()


FIRST = {"w": torch.tensor([0.0, 2.0]), "count": torch.tensor(3)}
TUNED = {"w": torch.tensor([4.0, -2.0]), "count": torch.tensor(9)}
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def near(target: float):
    return lambda state: -abs(float(state["w"][0]) - target)


def test_the_mixture_with_the_highest_score_is_chosen() -> None:
    chosen = choose_mixture(FIRST, TUNED, SHARES, near(3.1))
    assert chosen[0] == 0.75
    assert chosen[1]["w"].tolist() == [3.0, -1.0]
    assert chosen[1]["count"] == 9


@pytest.mark.parametrize("order", [SHARES, SHARES[::-1], (0.5, 0.25, 1.0, 0.5)])
def test_equal_scores_go_to_the_smallest_share_of_tuning(order) -> None:
    chosen = choose_mixture(FIRST, TUNED, order, lambda _: 0.8)
    assert chosen[0] == min(order)


def test_every_share_is_scored_once() -> None:
    seen = []

    def score(state) -> float:
        seen.append(float(state["w"][0]))
        return 0.0

    choose_mixture(FIRST, TUNED, (1.0, 0.0, 1.0), score)
    assert seen == [0.0, 4.0]


def test_the_ends_are_the_states_themselves() -> None:
    assert torch.equal(choose_mixture(FIRST, TUNED, SHARES, near(0))[1]["w"], FIRST["w"])
    assert torch.equal(choose_mixture(FIRST, TUNED, SHARES, near(9))[1]["w"], TUNED["w"])


def test_a_state_that_cannot_be_rated_never_wins() -> None:
    def score(state) -> float:
        return float("nan") if state["w"][0] < 2 else -float(state["w"][0])

    assert choose_mixture(FIRST, TUNED, SHARES, score)[0] == 0.5


@pytest.mark.parametrize("shares", [(), SHARES])
def test_nothing_to_choose_from_is_one_line(shares) -> None:
    with pytest.raises(InputError, match=r"leave out interpolate\.alphas"):
        choose_mixture(FIRST, TUNED, shares, lambda _: float("nan"))


@pytest.mark.proves("memory")
def test_small_passes_are_even_so_that_batch_norms_have_two_rows(noise, network_for) -> None:
    recipe = recipe_of(optimizer={"batch_size": 16, "micro_batch": 3}, schedule={"epochs": 1})
    network = network_for(recipe, "test_resnet")
    passes: list[int] = []
    network.module.register_forward_pre_hook(lambda _, inputs: passes.append(len(inputs[0])))
    train(network, noise(), recipe, stop=Stop(1))
    assert passes == [3, 3, 3, 3, 2, 2]


@pytest.mark.parametrize("sizes", [{"batch_size": 1}, {"micro_batch": 1}])
def test_batch_norms_of_single_images_are_one_line(noise, network_for, fault_of, sizes) -> None:
    recipe = recipe_of(optimizer=sizes)
    network = network_for(recipe, "test_resnet")
    fault_of(lambda: train(network, noise(), recipe), "BatchNorm learns", "optimizer.batch_size")
    # Those that are frozen take any number.
    frozen = recipe_of(model={"unfreeze": "none"}, optimizer=sizes, schedule={"epochs": 1})
    train(network_for(frozen, "test_resnet"), noise(), frozen)


def test_a_run_of_a_single_step_is_not_warned_of(noise, network_for, caplog) -> None:
    recipe = recipe_of(optimizer={"batch_size": 16}, schedule={"epochs": 1})
    train(network_for(recipe), noise(), recipe)
    assert not caplog.records
