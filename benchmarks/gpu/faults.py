"""Faults on a device: memory that ends, a kill while training, a container's small /dev/shm.

    cd benchmarks; ../.venv/bin/python -m gpu.faults [--only NAME]... [--device D] [--tiny]

Every fault must be answered by one line or by going on, within a time limit. Memory is limited by
`torch.cuda.set_per_process_memory_fraction`, so that check needs CUDA; /dev/shm by a mount of 64 MB
in a namespace of its own (`unshare -m`), which some machines refuse: both are then left out, and
the figures say so. A run that is killed and goes on must give the answers of one that was not, as
closely as two that were not agree, or within 0.01.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import COMMAND, Figure, arguments, at_most, exactly, load, report, run
from gpu.work import Attempt, attempt, draw_task, kill, random_backbones, start

from archiveprobe.embed.backbones import Backbone

LIMITED = (
    "import sys, torch; device = sys.argv.pop(1); bytes_ = float(sys.argv.pop(1)); "
    "total = torch.cuda.get_device_properties(device).total_memory; "
    "torch.cuda.set_per_process_memory_fraction(bytes_ / total, device); "
)
_CLOSE = 0.01
_MOUNT = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'


def main(words: list[str] | None = None) -> None:
    """Bring the faults about, and print the table."""
    parser = arguments(__doc__, "gpu_faults")
    parser.add_argument("--only", choices=list(CHECKS), nargs="+", default=list(CHECKS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--limit", type=float, default=150, help="seconds for every command")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(words)
    before = load()
    figures: list[Figure] = []
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            figures += CHECKS[name](Path(folder), options)
    report(options.json, figures, before)


def memory(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """Yield how embed and finetune answer where the device has too little memory."""
    if not options.device.startswith("cuda"):
        yield Figure("memory that ends", "left out: needs a GPU with CUDA")
        return
    file, recipe = learnable(folder, options, "batch_size = 4096")
    name = network(options).name
    embed = ["embed", file, "--backbone", name, "--device", options.device, "--json"]
    batch = limited(options, 3.0e9, *embed, "--batch-size", 4096)
    yield exactly("embed, a batch too large: exit status", batch.status, 0)
    yield Figure("embed, a batch too large: last line", batch.last_line)
    weights = limited(options, 2.0e8, *embed, "--views", "squash")
    yield exactly("embed, weights too large: one line", weights.in_one_line, True)
    yield Figure("embed, weights too large: last line", weights.last_line)
    run("embed", file, "--device", "cpu", "--json")
    words = ["finetune", file, "--recipe", recipe, "--fold", "0", "--device", options.device]
    training = limited(options, 3.0e9, *words)
    yield exactly("finetune, a batch too large: one line", training.in_one_line, True)
    yield Figure("finetune, a batch too large: last line", training.last_line)


def limited(options: argparse.Namespace, size: float, *words: str | Path | int) -> Attempt:
    """Run a command that may take so many bytes of the device's memory."""
    return attempt(
        options.device, size, *words, limit=options.limit, program=("-c", LIMITED + COMMAND)
    )


def network(options: argparse.Namespace) -> Backbone:
    """Return the network that the faults meet."""
    return random_backbones(["dfn-vit-l14"], tiny=options.tiny)[0]


def learnable(folder: Path, options: argparse.Namespace, optimizer: str = "") -> tuple[Path, Path]:
    """Draw a task, and write a recipe that trains all of the network for four epochs."""
    folder.mkdir(exist_ok=True)
    backbone = network(options)
    file = draw_task(folder, "JPEG", options.images, [backbone], tiny=options.tiny)
    recipe = folder / "whole.toml"
    recipe.write_text(
        f'[model]\nbackbone = "{backbone.name}"\n[optimizer]\n{optimizer}\n'
        '[schedule]\nepochs = 4\nmonitor = "none"\n[rows]\nmerged = true\n'
    )
    return file, recipe


def resume(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """Yield how close a run that was killed comes to two that were not."""
    logits, killed, said = [], False, ""
    for number in range(3):
        file, recipe = learnable(folder / str(number), options)
        run("embed", file, "--device", "cpu", "--json")
        words = ["finetune", file, "--recipe", recipe, "--fold", "0", "--device", options.device]
        part = file.parent / "work" / "finetune" / recipe.stem / "fold-0"
        if number == 2:
            killed = kill_after_a_state(words, part / "state", options.limit)
        done = attempt(*words, "--json", limit=options.limit)
        if done.status != 0:
            yield exactly("finetune ends", done.last_line or "too long", "")
            return
        [file] = part.glob("logits*.npy")
        logits.append(np.load(file))
        said = done.err
    yield exactly("killed while it trained", killed, True)
    yield exactly("goes on from its state", "goes on after epoch" in said, True)
    equal = float(np.nanmax(np.abs(logits[0] - logits[1])))
    resumed = float(np.nanmax(np.abs(logits[0] - logits[2])))
    yield Figure("largest difference of logits, two runs that were not killed", equal)
    yield at_most("largest difference of logits, killed and resumed", resumed, max(_CLOSE, equal))


def kill_after_a_state(words: list[str | Path], state: Path, limit: float) -> bool:
    """Kill a training once its first state lies on disk; say whether it was still at work."""
    running, until = start(*words), time.monotonic() + limit
    while not list(state.glob("epoch-*")) and running.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    at_work = running.poll() is None
    if at_work:
        kill(running)
    running.communicate()
    return at_work


def shm(folder: Path, options: argparse.Namespace) -> Iterator[Figure]:
    """Yield whether embed and finetune end where /dev/shm has the 64 MB of a container."""
    if attempt(limit=20, program=("-c", "pass"), prefix=("unshare", "-m")).status != 0:
        yield Figure("a /dev/shm of 64 MB", "left out: unshare is refused here")
        return
    file, recipe = learnable(folder, options)
    inside = ("unshare", "-m", "sh", "-c", _MOUNT, "sh")
    name = network(options).name
    # With all its cores decoding, and with batches drawn ahead.
    for words in (
        ["embed", file, "--backbone", name, "--json"],
        ["embed", file, "--json"],
        ["finetune", file, "--recipe", recipe, "--fold", "0", "--json", "--workers", 4],
    ):
        done = attempt(*words, "--device", options.device, limit=options.limit, prefix=inside)
        what = f"{words[0]} with a /dev/shm of 64 MB"
        yield exactly(f"{what}: exit status", "too long" if done.status is None else done.status, 0)
        if done.status:
            yield Figure(f"{what}: last line", done.last_line)
        yield Figure(f"{what}: seconds", round(done.seconds, 1), "s")


CHECKS = {"memory": memory, "resume": resume, "shm": shm}


if __name__ == "__main__":
    main()
