"""Recipes train on a card in fp32 and in bf16, and go on after a kill."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from counted import Archive

from archiveprobe.base.errors import InputError
from archiveprobe.embed.run import Options as EmbedOptions
from archiveprobe.embed.run import embed
from archiveprobe.finetune.run import Options, run_finetune
from archiveprobe.finetune.train import Trainer
from archiveprobe.task.config import Task

pytestmark = pytest.mark.gpu
STEPS = 200
ROWS, BATCH = 24, 4
# Two folds: half of the rows are trained on.
EPOCHS = math.ceil(STEPS / (ROWS / 2 / BATCH))
KINDS = {
    "the last block of a ViT": ("test_vit4", 'unfreeze = "last-block"', ""),
    "all of a ConvNeXt": ("test_convnext2", 'unfreeze = "all"\ndrop_path = 0.1', ""),
    "all of a ResNet, averaged": ("test_resnet", 'unfreeze = "all"', "[ema]\ndecay = 0.99\n"),
    "two blocks of a ViT": (
        "test_vit4",
        'unfreeze = "last-2"\ngrad_checkpointing = true',
        "[augment]\nmixup = 0.2\n",
    ),
    "a ViT by LoRA": ("test_vit4", "lora_rank = 4\nlora_alpha = 8.0", ""),
    "a frozen EfficientNet": ("test_efficientnet", 'unfreeze = "none"', ""),
}


@pytest.fixture
def drawn(archive: Archive) -> Task:
    archive.add_drawn(range(ROWS))
    task = archive.task(["hog"])
    embed(task, EmbedOptions(device="cpu", workers=0))
    return task


def recipe_of(task: Task, kind: str, epochs: int) -> Path:
    model, settings, more = KINDS[kind]
    file = task.folder / f"{re.sub('[^a-z]+', '-', kind.lower())}.toml"
    file.write_text(
        f'[model]\nbackbone = "timm:{model}"\nweights = "random"\nsize = 64\n{settings}\n'
        f"[optimizer]\nbatch_size = {BATCH}\nlr = 1e-4\n"
        f'[schedule]\nepochs = {epochs}\nmonitor = "none"\n[rows]\nmerged = true\n{more}'
    )
    return file


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_trains_200_steps(drawn, kind, precision) -> None:
    recipe = str(recipe_of(drawn, kind, EPOCHS))
    done = run_finetune(drawn, Options(recipe, fold="0", device="cuda", precision=precision))
    [part] = done.parts
    assert part.epochs == EPOCHS and math.isfinite(part.loss)


def logits_of(task: Task, recipe: Path) -> np.ndarray:
    [file] = (task.work / "finetune" / recipe.stem / "fold-0").glob("logits*.npy")
    return np.load(file)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_goes_on_where_it_was_stopped(drawn, precision, monkeypatch) -> None:
    recipe = recipe_of(drawn, "all of a ConvNeXt", 6)
    how = Options(str(recipe), fold="0", device="cuda", precision=precision)
    run_finetune(drawn, how)
    whole = logits_of(drawn, recipe)
    other = recipe.with_name("other.toml")
    other.write_text(recipe.read_text())
    again = Options(str(other), fold="0", device="cuda", precision=precision)
    real = Trainer.train_epoch

    def stop_after_three(trainer: Trainer, batches: object) -> object:
        if len(trainer.history) == 3:
            raise InputError("stopped")
        return real(trainer, batches)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", stop_after_three)
        with pytest.raises(InputError, match="stopped"):
            run_finetune(drawn, again)
    said: list[str] = []
    run_finetune(drawn, again, notify=said.append)
    assert any("goes on after epoch" in line for line in said)
    np.testing.assert_allclose(logits_of(drawn, other), whole, atol=0.02, equal_nan=True)
