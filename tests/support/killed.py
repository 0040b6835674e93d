"""Processes that train and end by a real SIGKILL.

    python tests/support/killed.py CLIP

registers the open_clip model of a configuration file, and then reads lines [epoch, *words]: each
starts a process that runs `archiveprobe WORDS`, in which SIGKILL comes within that epoch, counted
from 1 over all trainings; its exit status is printed. Forked from one process that has loaded the
libraries already, since loading takes longer than all else.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import torch
from click.testing import CliRunner
from counted import register_clip

from archiveprobe import cli
from archiveprobe.finetune import checkpoint_writer
from archiveprobe.finetune.checkpoint_writer import CheckpointWriter
from archiveprobe.finetune.train import Trainer


def start(clip: Path) -> "Popen[str]":
    """Start the process that starts the others."""
    return Popen([sys.executable, __file__, str(clip)], stdin=PIPE, stdout=PIPE, text=True)


def killed_in_epoch(started: "Popen[str]", number: int, words: list[str]) -> int:
    """Run the command line until SIGKILL comes in its `number`th epoch; return the exit status."""
    assert started.stdin and started.stdout
    print(json.dumps([number, *words]), file=started.stdin, flush=True)
    return int(started.stdout.readline())


def run_and_die(number: int, words: list[str]) -> None:
    """Run the command line; SIGKILL comes after the first step of its `number`th epoch."""
    epochs: list[Trainer] = []
    train_epoch, train_step = Trainer.train_epoch, Trainer.train_step

    def counted(self: Trainer, *given: Any) -> Any:
        epochs.append(self)
        return train_epoch(self, *given)

    def deadly(self: Trainer, *given: Any) -> Any:
        loss = train_step(self, *given)
        if len(epochs) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    Trainer.train_epoch, Trainer.train_step = counted, deadly  # type: ignore[method-assign]
    CheckpointWriter.offer = written(CheckpointWriter.offer)  # type: ignore[method-assign]
    checkpoint_writer.SECONDS = 0.0
    CliRunner().invoke(cli.main, words)


def written(offer: Callable[..., None]) -> Callable[..., None]:
    """Let every state be on the disk before the next epoch begins."""

    def wait(self: CheckpointWriter, *given: Any) -> None:
        offer(self, *given)
        self._collect()

    return wait


def main() -> None:
    """Start a process for every line."""
    register_clip(Path(sys.argv[1]))
    torch.set_num_threads(1)
    for line in sys.stdin:
        number, *words = json.loads(line)
        child = os.fork()
        if child == 0:
            run_and_die(number, words)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
