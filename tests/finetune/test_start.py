"""Every part of a system starts from the same weights, whatever was looked at before."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from noise import add_row_to_predict, draw_noise

from archiveprobe.base.sealed import unseal, write_sealed

Command = Callable[..., Result]
ROWS = 24


@pytest.fixture
def noise(tmp_path: Path, run: Command) -> Path:
    """Images of noise with random labels, embedded: nothing can be learnt but rows themselves."""
    folder = tmp_path / "noise"
    draw_noise(folder, ROWS, 1)
    (folder / "quick.toml").write_text(
        '[model]\nbackbone = "timm:test_convnext2"\nweights = "random"\nsize = 32\n'
        '[optimizer]\nlr = 1e-2\n[schedule]\nepochs = 2\nmonitor = "none"\n'
        "[rows]\nmerged = true\n"
    )
    assert run("embed", folder, "--workers", "0").exit_code == 0
    return folder


def add_a_row_to_predict(folder: Path, run: Command) -> None:
    """One more row of the table, without a label, embedded."""
    add_row_to_predict(folder, ROWS)
    assert run("embed", folder, "--workers", "0").exit_code == 0


def parts(folder: Path) -> list[dict]:
    files = sorted((folder / "work/finetune/quick").glob("fold-*/part.json"))
    return [json.loads(file.read_text()) for file in files]


@pytest.mark.proves("state")
@pytest.mark.parametrize("more", ["", "lora_rank = 2\n"], ids=["whole", "lora"])
def test_a_fold_answered_anew_teaches_the_next_fold_nothing(
    more: str, noise: Path, tmp_path: Path, run: Command, finetune: Command
) -> None:
    recipe, other = noise / "quick.toml", tmp_path / "in-one-go"
    recipe.write_text(recipe.read_text().replace("size = 32\n", f"size = 32\n{more}"))
    shutil.copytree(noise, other)
    # Fold 0, then a row to predict, which fold 0 answers before the other folds are trained.
    assert finetune(noise, "--fold", "0").exit_code == 0
    add_a_row_to_predict(noise, run)
    done = finetune(noise, "--fold", "all")
    assert "fold-0: other rows to predict than before" in done.stderr
    add_a_row_to_predict(other, run)
    assert finetune(other, "--fold", "all").exit_code == 0
    ways = parts(noise), parts(other)
    assert [len(way) for way in ways] == [3, 3]
    for one, direct in zip(*ways, strict=True):
        # Logits are answered in batches of other sizes, which no library promises to be bit-equal.
        weights = [each["digests"]["weights.safetensors"] for each in (one, direct)]
        assert weights[0] == weights[1]
        assert (one["history"], one["made_of"]) == (direct["history"], direct["made_of"])
    assert len({one["made_of"]["start"] for one in ways[0]}) == 1
    # The answers of fold 0 that came later are those of its network.
    logits = [
        np.load(next((folder / "work/finetune/quick/fold-0").glob("logits-*.npy")))
        for folder in (noise, other)
    ]
    np.testing.assert_allclose(*logits, atol=1e-4)


@pytest.mark.proves("training")
@pytest.mark.parametrize("field", ["start", "weights"])
def test_parts_of_other_starting_weights_are_refused_before_any_training(
    field: str, noise: Path, finetune: Command
) -> None:
    assert finetune(noise, "--fold", "0").exit_code == 0
    file = noise / "work/finetune/quick/fold-0/part.json"
    record = unseal(file.read_bytes())
    record["made_of"][field] = "0" * 64
    write_sealed(file, record)
    done = finetune(noise, "--fold", "1")
    assert done.exit_code == 1 and not done.stdout
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"fold-0 started from another network than fold-1 would ({field}" in told
    assert f"delete {file.parent}" in told
    assert not (noise / "work/finetune/quick/fold-1").exists()


@pytest.mark.proves("training")
def test_parts_that_do_not_agree_make_no_system(
    noise: Path, run: Command, finetune: Command
) -> None:
    assert finetune(noise, "--fold", "all").exit_code == 0
    file = noise / "work/finetune/quick/fold-2/part.json"
    record = unseal(file.read_bytes())
    record["made_of"]["start"] = "0" * 64
    write_sealed(file, record)
    shutil.rmtree(noise / "work/runs")
    done = finetune(noise, "--fold", "all")
    assert done.exit_code == 1
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "fold-2 started from another network than fold-0 (start)" in told
    assert f"delete {file.parent}" in told
    assert not (noise / "work/runs").exists()
