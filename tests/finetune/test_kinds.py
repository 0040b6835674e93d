"""Recipes of all kinds: killed, gone on with, stored, and asked about new images."""

import csv
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import killed
import numpy as np
import pytest
from click.testing import Result
from noise import add_row_to_predict, draw_noise

import archiveprobe.finetune.checkpoint_writer as writer
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.finetune.recipe_text import toml_value
from archiveprobe.finetune.train import Trainer
from archiveprobe.predict.systems import load_system
from archiveprobe.task.config import load_task

Command = Callable[..., Result]
Killing = Callable[[int, list[str | Path]], int]
TO_PREDICT = (20, 21, 22)
FIXED = ("--device", "cpu", "--workers", "0")
BACKBONES = """
[backbone.clip]
library = "open_clip"
name = "{}"
weights = "random"
[backbone.vit]
library = "timm"
name = "test_vit"
weights = "random"
arguments = {{ img_size = 32 }}
[backbone.eva]
library = "timm"
name = "vit_small_patch16_dinov3"
weights = "random"
arguments = {{ img_size = 32, embed_dim = 32, depth = 2, num_heads = 2 }}
[backbone.convnext]
library = "timm"
name = "test_convnext2"
weights = "random"
"""
COMMON = {
    "optimizer.lr": 1e-3,
    "optimizer.batch_size": 4,
    "schedule.epochs": 2,
    "augment.crop_scale": [1.0, 1.0],
    "augment.flip": 0.0,
}
# As the cache draws.
DRAWN = {
    "augment.crop_scale": [0.8, 1.0],
    "augment.flip": 0.5,
    "augment.rotation": 10.0,
    "augment.jitter": [0.2, 0.2, 0.2, 0.1],
}
LAST = {"model.unfreeze": "last-block"}
LORA = {"model.backbone": "clip", "model.lora_rank": 4, "model.lora_alpha": 8.0}
LEARNED = {"rows.selection": "learned"}
TWO = {"seeds.count": 2}
SOUP = {**TWO, "seeds.combine": "soup"}


class Kind(NamedTuple):
    """What a recipe sets; the epoch of a run within which it is killed, and what goes on then."""

    settings: dict[str, Any]
    tokens: bool = False
    precision: str = "fp32"
    ends_in: int = 2
    goes_on: str = "fold-0: goes on after epoch 1"


SEED = {"ends_in": 4, "goes_on": "fold-0/seed-1: goes on after epoch 1"}
CHOICE = {"goes_on": "fold-0/selection: goes on after epoch 1"}
KINDS = {
    "tokens": Kind({"model.backbone": "clip", **LAST}, tokens=True),
    "tokens-eva": Kind({"model.backbone": "eva", **LAST, **DRAWN}, tokens=True),
    "tokens-seeds": Kind({"model.backbone": "vit", **LAST, **TWO}, tokens=True, **SEED),
    "tokens-selection": Kind({"model.backbone": "vit", **LAST, **LEARNED}, tokens=True, **CHOICE),
    "tokens-lora-soup": Kind({**LORA, **LAST, **SOUP}, tokens=True, **SEED),
    "last-blocks": Kind({"model.backbone": "clip", "model.unfreeze": "last-2", **DRAWN}),
    "convnext": Kind(
        {"model.backbone": "convnext", "optimizer.layer_decay": 0.8, "ema.decay": 0.5, **DRAWN}
    ),
    "mixup": Kind({"model.backbone": "vit", "augment.mixup": 0.4, "loss.label_smoothing": 0.1}),
    "drop-path": Kind(
        {
            "model.backbone": "vit",
            "model.unfreeze": "last-3",
            "model.drop_path": 0.5,
            "model.grad_checkpointing": True,
        }
    ),
    "lora": Kind({**LORA, **DRAWN}),
    "lora-bf16": Kind({**LORA, "model.unfreeze": "last-2"}, precision="bf16"),
    "lora-seeds": Kind({**LORA, **TWO}, **SEED),
    "soup": Kind({"model.backbone": "vit", **SOUP}, **SEED),
    "selection": Kind({"model.backbone": "vit", **LEARNED}, **CHOICE),
    "threshold": Kind(
        {"model.backbone": "vit", "predict.threshold": 0.51, "predict.calibrate": False}
    ),
}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory, run: Command, tiny_clip: Any) -> Path:
    """An archive of noise with toy backbones, which nobody may change."""
    folder = tmp_path_factory.mktemp("kinds") / "archive"
    draw_noise(folder, 20, len(TO_PREDICT))
    for row in TO_PREDICT:
        add_row_to_predict(folder, row)
    task = folder / "task.toml"
    task.write_text(
        task.read_text().replace("count = 3", "count = 2") + BACKBONES.format(tiny_clip.model)
    )
    assert run("embed", folder, "--workers", "0").exit_code == 0
    return folder


@pytest.fixture(scope="module")
def killing(tiny_clip_file: Path) -> Iterator[Killing]:
    """Run the command line until SIGKILL comes within an epoch; give the exit status."""
    with killed.start(tiny_clip_file) as started:
        yield lambda epoch, words: killed.killed_in_epoch(started, epoch, [str(w) for w in words])
        started.stdin.close()


class Ended(BaseException):
    """The end of the process: nothing that is there for faults may catch it."""


def end_before(patch: pytest.MonkeyPatch, number: int) -> None:
    """Let a run end before its nth epoch, over all of its trainings."""
    real, epochs = Trainer.train_epoch, []

    def train_epoch(self: Trainer, batches: Any) -> Any:
        epochs.append(1)
        if len(epochs) == number:
            raise Ended
        return real(self, batches)

    patch.setattr(Trainer, "train_epoch", train_epoch)


def recipe_text(settings: dict[str, Any]) -> str:
    """A recipe file of a few steps."""
    return "\n".join(f"{key} = {toml_value(value)}" for key, value in (COMMON | settings).items())


def stored(folder: Path, system: str) -> dict[str, bytes]:
    """All weights and logits of a system."""
    place = folder / "work/finetune" / system
    names = ("weights.safetensors", "logits-*.npy")
    files = [file for name in names for file in place.rglob(name)]
    return {file.relative_to(place).as_posix(): file.read_bytes() for file in sorted(files)}


@pytest.mark.proves("killed")
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_goes_on_to_the_same_answers(
    name: str, embedded: Path, tmp_path: Path, run: Command, finetune: Command, killing: Killing
) -> None:  # fmt: skip
    kind, folder = KINDS[name], tmp_path / "archive"
    shutil.copytree(embedded, folder)
    recipes = {each: folder / f"{each}.toml" for each in ("whole", "ended")}
    for file in recipes.values():
        file.write_text(recipe_text(kind.settings))
    words = ("--fold", "all", "--precision", kind.precision, *["--from-cache"] * kind.tokens)

    def train(system: str) -> Result:
        return finetune(folder, *words, recipe=str(recipes[system]))

    given = ["finetune", folder, "--recipe", recipes["ended"], *FIXED, *words]
    assert killing(kind.ends_in, given) == -signal.SIGKILL
    done = train("ended")
    assert done.exit_code == 0, done.stderr
    assert kind.goes_on in done.stderr
    assert train("whole").exit_code == 0
    ending = "@cache" * kind.tokens
    whole, ended = (stored(folder, f"{each}{ending}") for each in ("whole", "ended"))
    assert whole == ended and len(whole) >= 4
    # Folds and seeds draw otherwise.
    assert len(set(whole.values())) == len(whole)
    for file in (folder / "work/finetune" / f"ended{ending}").glob("fold-?/part.json"):
        record = json.loads(file.read_text())
        assert bool(record["selection"]) is ("rows.selection" in kind.settings)
        assert len(record["seeds"]) == (2 if "seeds.combine" in kind.settings else 0)

    # The stored networks look at the rows to predict as new images, end to end.
    system, images, out = f"ended{ending}", tmp_path / "new", tmp_path / "answers.csv"
    images.mkdir()
    for row in TO_PREDICT:
        shutil.copy(folder / f"{row}.png", images)
    asked = ("--images", images, "-o", out, "--device", "cpu", "--workers", "0")
    done = run("predict", folder, "--system", system, *asked)
    assert done.exit_code == 0, done.stderr
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    answers = {row["id"]: float(row["p_yes"]) for row in rows}
    threshold = kind.settings.get("predict.threshold")
    if threshold is not None:
        assert all((row["label"] == "yes") is (answers[row["id"]] > threshold) for row in rows)
    task = load_task(folder)
    known = load_run(task, system).predictions()
    assert known.test_ids.tolist() == [str(row) for row in TO_PREDICT]
    promised = load_system(load_dataset(task), system).source.agreement
    np.testing.assert_allclose(
        [answers[f"{row}.png"] for row in TO_PREDICT], known.test[:, 1], atol=promised, rtol=0
    )


OTHER = {
    "model.unfreeze": "last-2",
    "model.lora_rank": 2,
    "model.lora_alpha": 4.0,
    "model.lora_layers": "mlp",
    "model.grad_checkpointing": True,
    "optimizer.micro_batch": 2,
    "predict.threshold": 0.4,
    "augment.mixup": 0.1,
    "rows.selection": "learned",
    "seeds.count": 2,
}


@pytest.mark.proves("training")
def test_a_state_of_another_setting_is_refused_by_its_name(
    embedded: Path, tmp_path: Path, finetune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(embedded, folder)
    monkeypatch.setattr(writer, "SECONDS", 0.0)
    recipe, first = folder / "lora.toml", {**LORA, "predict.calibrate": False}
    recipe.write_text(recipe_text(first))
    with monkeypatch.context() as patch:
        end_before(patch, 2)
        with pytest.raises(Ended):
            finetune(folder, "--fold", "0", recipe=str(recipe))
    kept = {file: file.read_bytes() for file in folder.glob("work/finetune/lora/fold-0/state/*")}
    assert kept
    trained = []
    monkeypatch.setattr(Trainer, "train_epoch", lambda *_: trained.append(1))
    for key, value in OTHER.items():
        recipe.write_text(recipe_text({**first, key: value}))
        done = finetune(folder, "--fold", "0", recipe=str(recipe))
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.exit_code == 1 and key.rpartition(".")[2] in line, (key, done.stderr)
        assert "set it back, or delete" in line
    assert not trained and all(file.read_bytes() == content for file, content in kept.items())
