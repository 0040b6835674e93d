"""Folds trained side by side, one process per device; whoever started them holds the run's lock."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import connection, get_context
from pathlib import Path
from typing import TYPE_CHECKING

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify, Progress
from archiveprobe.embed.decoding import default_workers
from archiveprobe.embed.device import check_device
from archiveprobe.embed.processes import end_with_parent, interrupt_later
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.recipe_run import Options, RecipeRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

_NOTE, _EPOCH, _FAULT = "note", "epoch", "fault"


def devices_asked(options: Options) -> list[str]:
    """Return the devices to train folds on side by side; none where there is no such wish.

    Raises:
        InputError: a device that is not here, or of another kind than the first; or parts that are
            not trained side by side.
    """
    if options.devices is None:
        return []
    devices = [name.strip() for name in options.devices.split(",")]
    for device in devices:
        check_device(device)
    if len({device.partition(":")[0] for device in devices}) > 1:
        raise InputError(
            f"--devices {options.devices}: networks of other kinds of devices are not equal to the "
            "bit: name devices of one kind"
        )
    if options.device or options.from_cache or options.fold != "all":
        raise InputError(
            "--devices trains the images' folds side by side: give --fold all, and neither "
            "--device nor --from-cache"
        )
    return devices


@dataclass(frozen=True)
class Share:
    """The folds that one process trains on its device."""

    task: Path
    recipe: Recipe
    options: Options
    names: Sequence[str]
    threads: int


def train_side_by_side(
    task: Path,
    recipe: Recipe,
    options: Options,
    names: Sequence[str],
    devices: Sequence[str],
    *,
    notify: Notify,
    progress: Progress,
) -> None:
    """Train the named folds, dealt out to the devices, each as it would be trained by itself.

    A single one is left to the caller. The first fault ends all processes; states and finished
    folds stay.

    Raises:
        InputError: what a process raised, or one has ended.
    """
    import torch

    devices = devices[: len(names)]
    if len(devices) < 2:
        return
    workers = options.workers
    if workers is None and devices[0] != "cpu":
        workers = max(1, default_workers() // len(devices))
    # As many threads as here: sums of other numbers of threads differ in their last bits.
    shares = [
        Share(
            task,
            recipe,
            replace(options, device=device, devices=None, workers=workers),
            names[at :: len(devices)],
            torch.get_num_threads(),
        )
        for at, device in enumerate(devices)
    ]
    processes: dict[Connection, tuple[BaseProcess, Share]] = {}
    epochs = recipe.schedule.epochs * len(names)
    notify(f"{len(names)} folds side by side on {', '.join(devices)}")
    try:
        with interrupt_later():
            for share in shares:
                receiver, process = _start(share)
                processes[receiver] = process, share
        with progress("epochs of all folds", epochs) as advance:
            _follow(dict(processes), notify, advance)
    finally:
        for process, _ in processes.values():
            process.kill()
            process.join()


def _start(share: Share) -> "tuple[Connection, BaseProcess]":
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(share, sender))
    process.start()
    # The process has the only other end, so that its death is seen here.
    sender.close()
    return receiver, process


def _follow(
    processes: "dict[Connection, tuple[BaseProcess, Share]]",
    notify: Notify,
    advance: Callable[[], None],
) -> None:
    """Pass on what the processes say until all have ended. Raises InputError: a fault of one."""
    while processes:
        for receiver in connection.wait(list(processes)):
            assert isinstance(receiver, connection.Connection)
            process, share = processes[receiver]
            try:
                what, text = receiver.recv()
            except (EOFError, OSError):
                process.join()
                del processes[receiver]
                if process.exitcode:
                    raise InputError(
                        f"the process that trains {', '.join(share.names)} on "
                        f"{share.options.device} has ended ({process.exitcode}), as when memory "
                        "runs out: run the same command again, which goes on from the last states"
                    ) from None
                continue
            if what == _FAULT:
                raise InputError(text)
            if what == _EPOCH:
                advance()
            else:
                notify(text)


def _train(share: Share, sender: "Connection") -> None:
    """Train the folds of a share; runs in a process of its own."""
    end_with_parent()
    import torch

    from archiveprobe.evaluate.dataset import load_dataset
    from archiveprobe.task.config import load_task

    torch.set_num_threads(share.threads)

    def send(what: str, text: str = "") -> None:
        sender.send((what, text))

    @contextmanager
    def progress(what: str, total: int) -> "Iterator[Callable[[], None]]":  # noqa: ARG001
        """Count the epochs of folds only."""
        yield partial(send, _EPOCH) if what in share.names else lambda: None

    try:
        dataset = load_dataset(load_task(share.task))
        notify = partial(send, _NOTE)
        with RecipeRun(
            dataset, share.recipe, share.options, notify=notify, progress=progress
        ) as run:
            for name in share.names:
                run.part(name)
    except InputError as error:
        send(_FAULT, f"on {share.options.device}: {error}")
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        send(
            _FAULT,
            f"on {share.options.device}: {', '.join(share.names)} cannot be trained ({reason}): "
            "finished folds and states are kept; --device with --debug shows where it fails",
        )
