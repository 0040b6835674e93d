"""Networks that fail, in every command that runs one: one line, and what is done is kept."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from counted import register_clip
from PIL import Image

import archiveprobe as ap
from archiveprobe import cli
from archiveprobe.base.errors import InputError
from archiveprobe.finetune import model, side_by_side
from archiveprobe.finetune.recipe_run import Options
from archiveprobe.finetune.train import Trained, train

CLIP = """{"embed_dim": 16, "vision_cfg": {"image_size": 32, "layers": 1, "width": 32,
"head_width": 16, "patch_size": 8}, "text_cfg": {"context_length": 8, "vocab_size": 49408,
"width": 32, "heads": 2, "layers": 1}}"""
WORDY = """[backbone.wordy]
library = "open_clip"
name = "walked-clip-test"
weights = "random"
"""
MEMORY = {
    "out of memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"),
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"),
}
OTHER = RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED\nwhen computing")

Words = tuple[str, ...]


@pytest.fixture(scope="session")
def walked(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned archive with a probe on a network, a CLIP, and new images in `new`; do not change.

    Of its fine-tuned systems "half" has no fold yet.
    """
    folder = tmp_path_factory.mktemp("walked") / "archive"
    shutil.copytree(tuned, folder)
    config = folder.parent / "walked-clip-test.json"
    config.write_text(CLIP)
    register_clip(config)
    settings = folder / "task.toml"
    text = settings.read_text().replace('["hog", "tiny"]', '["hog", "tiny", "wordy"]')
    settings.write_text(text + WORDY)
    done(folder, "embed", "--workers", "0")
    done(folder, "probe", "--probe", "ridge", "--features", "tiny")
    shutil.copy(folder / "quick.toml", folder / "half.toml")
    # The rows to predict are others than at the training, so that networks look at them again.
    rows = folder / "rows.csv"
    rows.write_text(rows.read_text() + "more,0.png,,test\n")
    done(folder, "embed", "--workers", "0")
    done(folder, "probe", "--probe", "ridge", "--features", "tiny")
    (folder / "new").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "new" / f"{number}.png")
    return folder


def invoke(folder: Path, command: str, *words: str) -> Result:
    given = [word.replace("{folder}", str(folder)) for word in words]
    return CliRunner().invoke(cli.main, [*command.split(), str(folder), *given])


def done(folder: Path, command: str, *words: str) -> Result:
    result = invoke(folder, command, *words)
    assert result.exit_code == 0, result.stderr
    return result


NEW = ("--images", "{folder}/new", "--workers", "0", "-o", "{folder}/out")
TUNE = ("--device", "cpu", "--workers", "0")
# Commands by what they do; where a batch of several rows may fail, a smaller one serves.
COMMANDS: dict[str, tuple[str, Words, bool]] = {
    "embed": ("embed", ("--backbone", "tiny", "--views", "flip", "--workers", "0"), True),
    "try embed": ("embed", ("--views", "flip", "--dry-run", "--workers", "0"), True),
    "recompute": ("cache verify", ("--recompute", "6"), True),
    "train": ("finetune", ("--recipe", "{folder}/half.toml", "--fold", "0", *TUNE), False),
    "answer new rows": (
        "finetune",
        ("--recipe", "{folder}/quick.toml", "--fold", "all", *TUNE),
        True,
    ),
    "predict by a probe": ("predict", ("--system", "ridge-tiny", *NEW), True),
    "predict by networks": ("predict", ("--system", "quick", *NEW), True),
    "predict rows": ("predict", ("--system", "quick", "-o", "{folder}/rows-out.csv"), True),
    "rank by words": ("rank", ("--text", "a tower"), False),
}


@pytest.fixture
def folder(walked: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "archive"
    shutil.copytree(walked, copy)
    return copy


def fail(
    patch: pytest.MonkeyPatch, error: Exception, *, most: int = 0, training: bool = True
) -> list[int]:
    """Let the first layer of every network raise with more than `most` rows, also in training."""
    refused = []
    for layer, name in ((torch.nn.Conv2d, "_conv_forward"), (torch.nn.Embedding, "forward")):
        real: Callable[..., Any] = getattr(layer, name)

        def forward(self: Any, rows: Any, *more: Any, real: Any = real) -> Any:
            if len(rows) > most and (training or torch.is_inference_mode_enabled()):
                refused.append(len(rows))
                raise error
            return real(self, rows, *more)

        patch.setattr(layer, name, forward)
    return refused


def line_of(result: Result) -> str:
    assert result.exit_code == 1, result.output
    assert result.stdout == "" and "Traceback" not in result.stderr
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.proves("memory")
@pytest.mark.parametrize("fault", [*MEMORY, "another"])
@pytest.mark.parametrize("what", COMMANDS)
def test_a_network_that_fails_is_one_line(folder, monkeypatch, what: str, fault: str) -> None:
    command, words, _ = COMMANDS[what]
    with monkeypatch.context() as patch:
        refused = fail(patch, MEMORY.get(fault, OTHER))
        line = line_of(invoke(folder, command, *words))
    assert refused
    if fault == "another":
        # Building a network for fine-tuning tries its size, on the CPU.
        assert " cannot " in line or "takes no images of" in line
        assert "CUDNN_STATUS_EXECUTION_FAILED when computing" in line
    else:
        assert line.startswith("error: out of memory")
        assert "free" in line
    if fault == "cuBLAS":
        done(folder, command, *words)


@pytest.mark.proves("memory")
@pytest.mark.parametrize("what", [what for what, (_, _, halves) in COMMANDS.items() if halves])
def test_smaller_batches_serve(folder, monkeypatch, what: str) -> None:
    command, words, _ = COMMANDS[what]
    with monkeypatch.context() as patch:
        refused = fail(patch, MEMORY["cuBLAS"], most=1)
        result = done(folder, command, *words)
    assert refused
    if what != "try embed":
        assert "out of memory: batch halved to 1" in result.stderr
    assert "error" not in result.stderr


@pytest.mark.proves("memory")
def test_rating_says_once_what_memory_holds_and_keeps_to_it(noise, small, network_for) -> None:
    recipe = small("nu-clip-last-block", schedule__epochs=3, schedule__patience=None)

    def trained(said: list[str]) -> Trained:
        data = noise(16, validation=8)
        return train(network_for(recipe, "test_convnext2"), data, recipe, notify=said.append)

    whole = trained([])
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        refused = fail(patch, MEMORY["out of memory"], most=2, training=False)
        same = trained(said)
    assert said == ["fold-0: out of memory while rating: 2 rows at a time from now on"]
    # Of 32, 16, 8 and 4 rows at a time, in the first of three epochs.
    assert refused == [8, 8, 8, 4]
    assert same.history == whole.history and len(whole.history) == 3


@pytest.mark.proves("memory")
@pytest.mark.parametrize("what", COMMANDS)
def test_weights_that_do_not_fit_are_one_line(folder, monkeypatch, what: str) -> None:
    command, words, _ = COMMANDS[what]

    def refuse(*_: Any, **__: Any) -> Any:
        raise MEMORY["out of memory"]

    monkeypatch.setattr(torch.nn.Module, "to", refuse)
    assert line_of(invoke(folder, command, *words)).startswith("error: out of memory")


@pytest.mark.proves("memory")
def test_copies_that_do_not_fit_are_one_line(folder, monkeypatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2 GB")

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "__deepcopy__", refuse, raising=False)
        words = ("--backbone", "tiny", "--precision", "bf16", "--workers", "0")
        line = line_of(invoke(folder, "embed", *words))
    assert line.startswith("error: out of memory copying tiny in bf16: free memory, or use")
    command, words, _ = COMMANDS["train"]
    monkeypatch.setattr(model, "_copy", refuse)
    line = line_of(invoke(folder, command, *words))
    assert line.startswith("error: out of memory keeping the start of timm:test_convnext2: free")


@pytest.mark.proves("memory")
@pytest.mark.parametrize("error", [MEMORY["cuDNN"], OTHER, ZeroDivisionError("division by zero")])
def test_a_process_that_trains_a_fold_tells_its_fault(folder, monkeypatch, error) -> None:
    sent: list[tuple[str, str]] = []

    class Sender:
        def send(self, message: tuple[str, str]) -> None:
            sent.append(message)

    monkeypatch.setattr(side_by_side, "end_with_parent", lambda: None)
    options = Options(str(folder / "half.toml"), fold="all", device="cpu", workers=0)
    fail(monkeypatch, error)
    from archiveprobe.finetune.recipe_file import load_recipe

    recipe = load_recipe(options.recipe)
    share = side_by_side.Share(folder / "task.toml", recipe, options, ["fold-1"], 1)
    side_by_side._train(share, Sender())  # type: ignore[arg-type]
    [text] = [text for what, text in sent if what == "fault"]
    assert text.startswith("on cpu: ") and len(text.splitlines()) == 1
    assert ("out of memory" in text) == (error is MEMORY["cuDNN"])


@pytest.mark.proves("memory")
@pytest.mark.parametrize("error", MEMORY.values(), ids=MEMORY)
def test_the_transformer_tells_it_too(folder, monkeypatch, error) -> None:
    images = sorted((folder / "new").glob("*.png"))
    embedder = ap.Embedder("tiny", task=folder, device="cpu", workers=0)
    with monkeypatch.context() as patch:
        fail(patch, error)
        with pytest.raises(InputError, match="out of memory embedding one crop"):
            embedder.transform(images)
    whole = embedder.transform(images)
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="batch halved to 1"):
        fail(patch, error, most=1)
        np.testing.assert_allclose(embedder.transform(images), whole, atol=1e-3)


def test_every_command_with_a_device_is_walked() -> None:
    """A command that gets a network later must be added above."""
    walked = {command.split()[0] for command, _, _ in COMMANDS.values()}
    with_device = {
        name
        for name, command in cli.main.commands.items()
        if any("--device" in option.opts for option in command.params)
    }
    assert with_device <= walked | {"submit"}, json.dumps(sorted(with_device))
