"""Faults in the middle of a run, and what it ends with: killed, shared, interrupted, misnamed."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from archiveprobe.base import files
from archiveprobe.base.lock import Lock
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.finetune import fits, images, trained_parts
from archiveprobe.finetune.images import DecodedImage
from archiveprobe.task.config import load_task

Command = Callable[..., Result]
# Ends by SIGKILL in the midst of training, when the first state has been kept.
KILLED = """
import os, signal, sys
from archiveprobe import cli
from archiveprobe.finetune.checkpoint import Checkpoints

save = Checkpoints.save

def save_and_die(*given):
    save(*given)
    os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.save = save_and_die
cli.main(sys.argv[1:])
"""


def error_of(done: Result) -> str:
    """The one line that a fault is told in."""
    told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.exit_code == 1 and not done.stdout, (done.stdout, done.exception)
    assert len(told) == 1
    return told[0]


def results(folder: Path) -> dict[str, Any]:
    """What a finished system is made of: digests of weights and logits, epochs, predictions."""
    found: dict[str, Any] = {}
    for file in sorted((folder / "work/finetune/quick").glob("*/part.json")):
        record = json.loads(file.read_text())
        found[file.parent.name] = record["digests"], record["epoch"], record["history"]
    record = load_run(load_task(folder), "quick").record
    found["networks"], found["threshold"] = record["networks"], record["threshold"]
    return found


def left_over(folder: Path) -> list[str]:
    """Files that nobody but a running process has a use for."""
    names = (".tmp-", ".old-", "pixels-", "epoch-", "state")
    return [str(file) for file in (folder / "work").rglob("*") if file.name.startswith(names)]


class Killed(BaseException):
    """The end of the process: nothing that is there for faults may catch it."""


def dying(monkeypatch: pytest.MonkeyPatch, place: Any, name: str, call: int, after: bool) -> None:
    """Let a function end the process at its nth call, before or after it has done its work."""
    real, calls = getattr(place, name), []

    def once(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == call and not after:
            raise Killed
        done = real(*given, **named)
        if len(calls) == call:
            raise Killed
        return done

    monkeypatch.setattr(place, name, once)


# Before or after the nth call: of the checkpoints, the files of a part, its record.
MOMENTS = [
    (files, "write_whole", 1, True),
    (files, "write_whole", 2, False),
    (files, "write_whole", 3, True),
    (trained_parts, "write_whole", 1, True),
    (trained_parts, "write_whole", 6, True),
    (fits, "save_part", 3, True),
]


@pytest.mark.proves("killed")
@pytest.mark.parametrize(("place", "name", "call", "after"), MOMENTS)
def test_a_run_that_ended_anywhere_ends_as_one_left_alone(
    place: Any,
    name: str,
    call: int,
    after: bool,
    tuned: Path,
    embedded: Path,
    tmp_path: Path,
    finetune: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(embedded, folder)
    with monkeypatch.context() as patched:
        dying(patched, place, name, call, after)
        with pytest.raises(Killed):
            finetune(folder, "--fold", "all")
    # A real end leaves what an exception tidies away.
    parts = sorted((folder / "work/finetune/quick").glob("fold-*"))
    for part in parts:
        (part / ".tmp-killed").write_bytes(b"half")
    done = finetune(folder, "--fold", "all")
    assert done.exit_code == 0, done.stderr
    assert results(folder) == results(tuned)
    assert left_over(folder) == []


@pytest.mark.proves("killed")
def test_a_killed_process_leaves_what_the_next_goes_on_from(
    archive: Path, tuned: Path, finetune: Command
) -> None:
    words = ["finetune", archive, "--recipe", archive / "quick.toml", "--fold", "all"]
    command = [sys.executable, "-c", KILLED, *words, "--device", "cpu", "--workers", "0"]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(list(archive.glob("work/finetune/quick/fold-0/state/*"))) == 1
    done = finetune(archive, "--fold", "all")
    assert done.exit_code == 0, done.stderr
    for part in ("fold-0", "fold-1", "fold-2"):
        assert results(archive)[part][1:] == results(tuned)[part][1:]
    assert left_over(archive) == []


@pytest.mark.proves("writers")
def test_a_second_run_of_the_system_is_refused_naming_the_first(
    archive: Path, finetune: Command
) -> None:
    place = archive / "work/finetune/quick"
    place.mkdir(parents=True)
    with Lock(place):
        told = error_of(finetune(archive, "--fold", "0"))
        assert f"another process writes to the run {place}: pid {os.getpid()} on host" in told
        assert not list(place.glob("fold-*"))
    assert finetune(archive, "--fold", "0").exit_code == 0


@pytest.mark.proves("hostile")
@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "my recipe",
        "وصفة",
        "a\nb",
        "a" * 210,
        "model selection (nested)",
        "greedy",
        "x@cache",
    ],
)
def test_a_name_that_is_no_systems_is_refused_before_anything_is_trained(
    name: str, archive: Path, finetune: Command
) -> None:
    recipe = archive / f"{name}.toml"
    shutil.copy(archive / "quick.toml", recipe)
    told = error_of(finetune(archive, "--fold", "0", recipe=str(recipe)))
    assert "cannot name a system" in told or "cannot be called" in told
    assert not (archive / "work/finetune").exists() and not list(archive.glob("work/fold-*"))


@pytest.mark.proves("writers")
def test_neither_probe_nor_fine_tuned_system_is_written_over_by_the_other(
    tuned: Path, tmp_path: Path, finetune: Command, run: Command
) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(tuned, folder)
    recipe = folder / "ridge-hog.toml"
    shutil.copy(folder / "quick.toml", recipe)
    before = (folder / "work/runs/ridge-hog/run.json").read_bytes()
    told = error_of(finetune(folder, "--fold", "all", recipe=str(recipe)))
    assert "is a system of the kind 'probe'" in told and "another name" in told
    assert (folder / "work/runs/ridge-hog/run.json").read_bytes() == before
    shutil.rmtree(folder / "work/runs/ridge-hog")
    assert finetune(folder, "--fold", "all", recipe=str(recipe)).exit_code == 0
    assert load_task(folder).work.is_dir()
    told = error_of(run("probe", folder, "--probe", "ridge", "--features", "hog"))
    assert "is a system of the kind 'finetune'" in told


@pytest.mark.proves("images")
@pytest.mark.parametrize("how", ["gone", "changed"])
@pytest.mark.parametrize("unreadable", ["skip", "blank"])
def test_images_that_are_not_what_was_embedded(
    how: str, unreadable: str, archive: Path, finetune: Command
) -> None:
    with (archive / "quick.toml").open("a") as recipe:
        recipe.write(f'[rows]\nunreadable = "{unreadable}"\n')
    (archive / "3.png").unlink()
    if how == "changed":
        shutil.copy(archive / "4.png", archive / "3.png")
    told = error_of(finetune(archive, "--fold", "0"))
    assert "1 image (3) gone or changed since" in told and "run embed again" in told
    assert not list(archive.glob("work/finetune/quick/fold-*"))
    assert left_over(archive) == []


@pytest.mark.proves("images")
def test_a_decoder_that_dies_costs_its_image_aloud(
    archive: Path, finetune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = images.decode_file

    def dies(path: str, *given: Any) -> DecodedImage:
        return DecodedImage("decoder_died") if path == "3.png" else real(path, *given)

    monkeypatch.setattr(images, "decode_file", dies)
    done = finetune(archive, "--fold", "0")
    assert done.exit_code == 0, done.stderr
    assert "1 image (3) could be read before and give no pixels now (decoder_died)" in done.stderr


@pytest.mark.proves("memory")
def test_out_of_memory_tells_what_happens_next(
    archive: Path, tuned: Path, finetune: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from archiveprobe.finetune.train import Trainer

    real = Trainer.train_step

    def full(self: Any, rows: list[int], inputs: Any, epoch: int, step: int) -> float:
        if epoch == 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(self, rows, inputs, epoch, step)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", full)
        told = error_of(finetune(archive, "--fold", "all"))
    assert "run the same command again, which goes on from the last state it kept" in told
    assert "by --set, which trains another system" in told
    smaller = archive / "smaller.toml"
    smaller.write_text((archive / "quick.toml").read_text() + "[optimizer]\nbatch_size = 4\n")
    assert finetune(archive, "--fold", "0", recipe=str(smaller)).exit_code == 0
    assert finetune(archive, "--fold", "all").exit_code == 0
    assert results(archive) == results(tuned)


@pytest.mark.proves("training")
def test_parts_answered_in_another_precision_are_not_mixed(
    archive: Path, finetune: Command, run: Command
) -> None:
    assert finetune(archive, "--fold", "0", "--precision", "bf16").exit_code == 0
    told = error_of(finetune(archive, "--fold", "0"))
    assert "was trained otherwise: --precision was 'bf16' and is now 'fp32': set it" in told
    assert finetune(archive, "--fold", "all", "--precision", "bf16").exit_code == 0
    # What is stored is what the stored system answers again.
    record = load_run(load_task(archive), "quick").record
    assert record["answers_in"] == "bf16"
    new = archive.parent / "new"
    new.mkdir()
    shutil.copy(archive / "3.png", new)
    words = ("--system", "quick", "--images", new, "-o", new / "out.csv")
    done = run("predict", archive, *words, "--device", "cpu", "--workers", "0")
    assert done.exit_code == 0, done.stderr
