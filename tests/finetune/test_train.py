"""The loop, on networks of toy size: what it learns, what it leaves alone, where it stops."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import archiveprobe.finetune.training as loop
from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries
from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.views import view_set
from archiveprobe.finetune.augment import Augmentation
from archiveprobe.finetune.checkpoint import Checkpoints
from archiveprobe.finetune.loader import PictureRows
from archiveprobe.finetune.model import Network, build_network
from archiveprobe.finetune.pixels import Wanted, load_pixels
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.split import Part
from archiveprobe.finetune.train import Ends, Epoch, Lesson, Trained, train
from archiveprobe.finetune.verdict import logits_of, voted
from archiveprobe.task.decoding import digest

torch = libraries.torch()
PLAIN = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": 0.0}
CONVNEXT = Backbone("own", "timm", "test_convnext2", weights="random")


def recipe_of(**sections: Any) -> Recipe:
    """A small recipe; sections over what follows."""
    given: dict[str, Any] = {
        "model": {"backbone": "own", "size": 32},
        "optimiser": {"batch": 8},
        "schedule": {"epochs": 3},
        "augment": PLAIN,
    }
    for name, values in sections.items():
        given[name] = {**given.get(name, {}), **values}
    return Recipe(name="small", **given)


def network_for(recipe: Recipe, backbone: Backbone = CONVNEXT) -> Network:
    return build_network(recipe.model, backbone, 2, seed=recipe.seed)


@dataclass
class Noise:
    """Rows of random pictures (n, 3, side, side), which no augmentation touches."""

    pixels: Any
    asked: list[int] = field(default_factory=list)

    @property
    def readable(self) -> np.ndarray:
        return np.ones(len(self.pixels), bool)

    def learn(self, rows: Any, epoch: int, occurrence: Any = None) -> Any:  # noqa: ARG002
        self.asked.append(epoch)
        return self.pixels[np.asarray(rows)]

    def look(self, rows: Any, view: int) -> Any:
        return self.pixels[np.asarray(rows)].flip(-1) if view else self.pixels[np.asarray(rows)]


def noise(n: int = 16, side: int = 32) -> Noise:
    return Noise(torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(1)))


def lesson_of(source: Any, select: int = 0) -> Lesson:
    """A lesson on all rows, of which the last `select` choose the epoch; classes by turns."""
    n = len(source.readable)
    rows, none = np.arange(n), np.arange(0)
    held = rows[n - select :] if select else none
    part = Part("split", rows[: n - select], held, none)
    ids = np.array([f"picture-{row}" for row in rows])
    return Lesson(source, rows // 2 % 2, ids, 2, 1, part)


def same(one: Trained, other: Trained) -> None:
    assert one.history == other.history
    assert (one.epoch, one.tuned) == (other.epoch, other.tuned)
    assert one.state.keys() == other.state.keys()
    for name in one.state:
        assert torch.equal(one.state[name], other.state[name]), name


def test_a_recipe_overfits_16_pictures() -> None:
    recipe = recipe_of(
        optimiser={"body_rate": 3e-3, "head_rate": 3e-3, "batch": 16},
        schedule={"epochs": 60, "watch": "none", "kind": "constant"},
    )
    network, lesson = network_for(recipe), lesson_of(noise())
    done = train(network, lesson, recipe)
    assert done.history[-1].loss < 0.05 < done.history[0].loss
    logits = logits_of(network, lesson.source, np.arange(16), [0])[:, 0]
    assert (logits.argmax(1) == lesson.labels).all()


def test_frozen_weights_are_bit_equal_after_training(tiny_clip: Backbone) -> None:
    recipe = recipe_of(
        model={"unfreeze": "last-block", "size": None},
        ema={"decay": 0.9},
        schedule={"watch": "training-loss"},
    )
    network = network_for(recipe, tiny_clip)
    before = network.state()
    done = train(network, lesson_of(noise()), recipe)
    after = network.state()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and changed <= set(done.state)
    assert all(name.startswith(("head.", "body.transformer.resblocks.2.")) for name in changed)
    assert {name.split(".")[0] for name in changed} == {"head", "body"}


def everything() -> Recipe:
    """A recipe in which all that draws or averages is at work."""
    return recipe_of(
        model={"hidden": (8,), "dropouts": (0.5, 0.3), "drop_path": 0.5},
        loss={"kind": "focal", "alpha": 0.75, "smoothing": 0.1},
        optimiser={"layer_decay": 0.9, "gradient_norm": 1.0},
        schedule={"epochs": 4, "warm_up": 1.0},
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
        interpolate={"tuned": (0.0, 0.5, 1.0)},
    )


class Killed(Exception):  # noqa: N818
    """The process is gone."""


def killed_after(epochs: int) -> Callable[[Epoch], None]:
    left = iter(range(epochs - 1))

    def told(_: Epoch) -> None:
        if next(left, None) is None:
            raise Killed

    return told


@pytest.mark.parametrize("epochs", [1, 3])
def test_killed_and_resumed_equals_uninterrupted(tmp_path: Path, epochs: int) -> None:
    recipe = everything()
    rng = np.random.default_rng(0)
    files = []
    for number in range(20):
        file = tmp_path / f"{number}.png"
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), np.uint8)).save(file)
        files.append((file.name, digest(file.read_bytes())))

    def attempt(checkpoints: Checkpoints | None, told: Any = lambda _: None) -> Trained:
        network = network_for(recipe)
        wanted = Wanted(46, network.preprocess.geometry, view_set("center"))
        with load_pixels(tmp_path, files, wanted, tmp_path, workers=0) as pixels:
            draw = Augmentation(recipe.augment, network.preprocess, 0)
            source = PictureRows(pixels, draw, network.preprocess)
            lesson = lesson_of(source, select=6)
            return train(network, lesson, recipe, checkpoints=checkpoints, told=told)

    whole = attempt(None)
    checkpoints = Checkpoints(tmp_path / "state", {"recipe": "everything"})
    with pytest.raises(Killed):
        attempt(checkpoints, killed_after(epochs))
    # Other draws in between: a new process starts elsewhere.
    torch.manual_seed(99)
    same(attempt(checkpoints), whole)


def test_stochastic_depth_skips_blocks_in_training_only() -> None:
    found = {}
    for share in (0.0, 0.9):
        recipe = recipe_of(model={"drop_path": share}, schedule={"watch": "training-loss"})
        network, source = network_for(recipe), noise()
        with torch.no_grad():
            before = network(source.pixels)
        found[share] = before, network.digest, train(network, lesson_of(source), recipe)
    (still, digest_still, plain), (skipping, digest_skipping, skipped) = found.values()
    assert digest_still == digest_skipping and torch.equal(still, skipping)
    assert plain.history != skipped.history


def test_nobody_elses_draws_move() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    recipe = recipe_of(schedule={"epochs": 1})
    train(network_for(recipe), lesson_of(noise(), 4), recipe)
    assert torch.equal(torch.rand(3), expected)


def test_a_loss_that_is_no_number_stops_with_step_and_pictures(tmp_path: Path) -> None:
    source = noise()

    def learn(rows: Any, epoch: int, occurrence: Any = None) -> Any:
        pixels = source.pixels[np.asarray(rows)]
        return pixels * float("nan") if epoch == 1 and 5 in rows else pixels

    source.learn = learn  # type: ignore[method-assign]
    recipe = recipe_of(schedule={"watch": "training-loss"})
    checkpoints = Checkpoints(tmp_path / "state", {})
    with pytest.raises(InputError) as error:
        train(network_for(recipe), lesson_of(source), recipe, checkpoints=checkpoints)
    message = str(error.value)
    assert "picture-5" in message and "(epoch 2) is nan" in message
    assert "step 3" in message or "step 4" in message
    kept = checkpoints.load()
    assert kept is not None and kept.epoch == 1
    assert all(bool(each.isfinite().all()) for each in kept.tree["weights"].values())


def test_weights_that_are_no_numbers_are_never_kept(tmp_path: Path) -> None:
    recipe = recipe_of(
        optimiser={"head_rate": 1e37, "body_rate": 1e37, "batch": 16, "weight_decay": 1e3},
        schedule={"watch": "training-loss", "kind": "constant"},
    )
    checkpoints = Checkpoints(tmp_path / "state", {})
    with pytest.raises(InputError, match="weights are no numbers after step 1"):
        train(network_for(recipe), lesson_of(noise()), recipe, checkpoints=checkpoints)
    assert checkpoints.load() is None


def test_losses_that_are_looked_at_together_name_the_step_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a GPU: the whole epoch is learnt before anybody looks.
    monkeypatch.setattr(loop, "_LOSSES_AT_ONCE", 3)
    real = loop.Training.__init__

    def init(self: Any, *given: Any) -> None:
        real(self, *given)
        self._at_once = loop._LOSSES_AT_ONCE

    monkeypatch.setattr(loop.Training, "__init__", init)
    source = noise(32)
    recipe = recipe_of(schedule={"watch": "training-loss"})
    together = train(network_for(recipe), lesson_of(source), recipe)
    monkeypatch.setattr(loop.Training, "__init__", real)
    same(train(network_for(recipe), lesson_of(source), recipe), together)
    monkeypatch.setattr(loop.Training, "__init__", init)

    def learn(rows: Any, epoch: int, occurrence: Any = None) -> Any:
        return source.pixels[np.asarray(rows)] * (float("nan") if 5 in rows and epoch else 1.0)

    source.learn = learn  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"the loss of step [5-8] \(epoch 2\) is nan.*picture-5\b"):
        train(network_for(recipe), lesson_of(source), recipe)


def test_half_precision_learns_about_the_same_and_keeps_whole_weights() -> None:
    recipe = recipe_of(schedule={"watch": "training-loss"})
    source = noise()
    whole = train(network_for(recipe), lesson_of(source), recipe)
    half = train(network_for(recipe), lesson_of(source), recipe, precision="bf16")
    assert half.history != whole.history
    for one, other in zip(half.history, whole.history, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=0.05)
    assert all(tensor.dtype != torch.bfloat16 for tensor in half.state.values())


def test_out_of_memory_names_the_setting_to_lower() -> None:
    recipe = recipe_of()
    network = network_for(recipe)

    def forward(*_: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    network.module.forward = forward
    with pytest.raises(InputError, match=r"batches of 8 on cpu: .* lower optimiser\.batch"):
        train(network, lesson_of(noise(), 4), recipe)


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Macro-F1 of every epoch, as if the rows that select had said so."""
    left = iter(scores)
    monkeypatch.setattr(loop, "macro_f1", lambda *_: next(left))


def test_the_best_epoch_is_kept_and_patience_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [0.5, 0.7, 0.7, 0.6, 0.9])
    recipe = recipe_of(schedule={"epochs": 9, "patience": 2})
    done = train(network_for(recipe), lesson_of(noise(), 4), recipe)
    assert [each.macro_f1 for each in done.history] == [0.5, 0.7, 0.7, 0.6]
    assert done.epoch == 2
    same_run = train(network_for(recipe), lesson_of(noise()), recipe, ends=Ends(2))
    assert len(same_run.history) == same_run.epoch == 2


def test_the_kept_weights_are_those_of_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(schedule={"epochs": 4, "kind": "constant"})
    short = train(network_for(recipe), replace(lesson_of(noise(), 4)), recipe, ends=Ends(2))
    scripted(monkeypatch, [0.5, 0.7, 0.7, 0.6])
    network = network_for(recipe)
    done = train(network, lesson_of(noise(), 4), recipe)
    for name, tensor in short.state.items():
        assert torch.equal(done.state[name], tensor)
        assert torch.equal(network.state()[name], tensor)


def test_a_final_fit_goes_along_the_schedule_of_the_folds() -> None:
    recipe = recipe_of(schedule={"epochs": 6, "warm_up": 1.0, "watch": "none"})
    whole = train(network_for(recipe), lesson_of(noise()), recipe)
    final = train(network_for(recipe), lesson_of(noise()), recipe, ends=Ends(3))
    assert final.history == whole.history[:3]


def test_mixtures_are_chosen_on_the_rows_that_select(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(
        schedule={"epochs": 1, "watch": "none"}, interpolate={"tuned": (0.0, 0.5, 1.0)}
    )
    scripted(monkeypatch, [0.1, 0.2, 0.9, 0.3])
    network = network_for(recipe)
    first = network.state(whole=False)
    done = train(network, lesson_of(noise(), 4), recipe)
    assert done.tuned == 0.5
    final = train(network_for(recipe), lesson_of(noise()), recipe, ends=Ends(1, tuned=0.0))
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
    assert voted(logits, views, positive=1).tolist() == [1, 0, 1]
    assert voted(logits[..., ::-1], views, positive=0).tolist() == [0, 1, 0]
    # 0.5 exactly is no vote for the positive class.
    assert voted(np.zeros((1, 6, 2)), views, positive=0).tolist() == [1]
