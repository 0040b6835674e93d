"""The loop: rows to learn from become a trained state, epoch by epoch, resumable after each."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from archiveprobe.embed import libraries
from archiveprobe.embed.job import Notify
from archiveprobe.finetune.checkpoint import Checkpoints
from archiveprobe.finetune.interpolate import choose_mixture
from archiveprobe.finetune.lesson import Course, Ends, Epoch, Lesson, Trained
from archiveprobe.finetune.loader import Loader
from archiveprobe.finetune.model import Network
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.schedule import generator
from archiveprobe.finetune.training import Training

__all__ = ["Ends", "Epoch", "Lesson", "Trained", "train"]
Told = Callable[[Epoch], None]


def train(
    network: Network,
    lesson: Lesson,
    recipe: Recipe,
    *,
    ends: Ends | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    workers: int = 0,
    checkpoints: Checkpoints | None = None,
    told: Told = lambda _: None,
    notify: Notify = lambda _: None,
) -> Trained:
    """Train a network, which holds the kept state afterwards, in eval mode.

    With `checkpoints` every epoch leaves a state, and a run goes on from the last one. `told` hears
    of every epoch, of those before too. With `precision` "bf16" networks learn under autocast;
    their weights, and all that is rated or answered, stay in fp32.

    Raises:
        InputError: a loss that is no number (step and images are named), too little memory, or
            checkpoints of other settings.
        InputError: a checkpoint cannot be written.
    """
    torch = libraries.torch()
    devices = [torch.device(device)] if device != "cpu" else []
    first = network.state(whole=False) if recipe.interpolate.tuned else {}
    with (
        torch.random.fork_rng(devices=devices),
        Loader(lesson.source, workers=workers, pin=device != "cpu", notify=notify) as loader,
    ):
        torch.manual_seed(int(generator("train", recipe.seed).integers(2**62)))
        run = Training(network.to(device), lesson, recipe, ends, device, loader, precision)
        course, kept = _go(run, checkpoints, told, notify)
    network.load_state(kept)
    tuned = _mixed(run, first, kept) if recipe.interpolate.tuned else None
    history = [Epoch(**each) for each in course.history]
    state = network.eval().state(whole=False)
    return Trained(state, course.best or len(history), history, tuned, course.seconds)


def _go(
    run: Training, checkpoints: Checkpoints | None, told: Told, notify: Notify
) -> tuple[Course, Mapping[str, Any]]:
    """All epochs that are left; the course, and the state to keep."""
    course, best = _resumed(run, checkpoints)
    if course.history:
        notify(f"{run.lesson.part.name}: goes on after epoch {len(course.history)}")
    for each in course.history:
        told(Epoch(**each))
    while not run.over(course):
        started = time.monotonic()
        done = run.epoch(len(course.history))
        course.history.append(asdict(done))
        score = run.rated(done)
        better = score is not None and (course.score is None or score > course.score)
        state = None
        if better:
            course.best, course.score = done.epoch, score
            best = state = run.state()
        course.seconds += time.monotonic() - started
        if checkpoints is not None:
            checkpoints.save(done.epoch, run.captured(course), state)
        told(done)
    if best is not None and run.recipe.schedule.restore_best:
        return course, best
    course.best = 0
    return course, run.state()


def _resumed(
    run: Training, checkpoints: Checkpoints | None
) -> tuple[Course, Mapping[str, Any] | None]:
    state = checkpoints.load() if checkpoints is not None else None
    if checkpoints is None or state is None:
        return Course(), None
    return Course(**run.restored(state)["course"]), checkpoints.best()


def _mixed(run: Training, first: Mapping[str, Any], tuned: Mapping[str, Any]) -> float:
    """Leave the network with a mixture of first and tuned weights; the share of tuned ones."""
    shares = run.recipe.interpolate.tuned
    if run.ends is not None:
        shares = (1.0 if run.ends.tuned is None else run.ends.tuned,)

    def score(state: Mapping[str, Any]) -> float:
        run.network.load_state(state)
        # Shares of a final fit were chosen on folds before, and nothing is held out to rate them.
        return run.selected(run.network) if run.ends is None else 0.0

    chosen = choose_mixture(first, tuned, shares, score)
    run.network.load_state(chosen.state)
    return chosen.tuned
