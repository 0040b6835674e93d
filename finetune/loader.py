"""Training batches: which rows in which order, and the processes that draw them ahead.

What is drawn depends on seed, epoch, row and how often the row came before in the epoch, and
nothing here touches a global generator, so any number of processes gives the same batches. One
DataLoader runs through all epochs: while an epoch is rated its processes draw for the next one.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.embed.augment import seeded
from archiveprobe.embed.decoding import default_workers
from archiveprobe.embed.processes import end_with_parent, interrupt_later
from archiveprobe.embed.views import Rendered

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    import torch

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
# A hundred times what a batch takes, and the start of a process.
SECONDS, SECONDS_PER_ROW = 300.0, 2.0
AHEAD_PER_WORKER = 3
# A process takes some seconds to start, and draws a hundred images a second.
_CORES_PER_PROCESS, _WORTH_A_PROCESS = 4, 2_000


class Draw(NamedTuple):
    """One training input: a row, the epoch, and how often the row came before in that epoch."""

    row: int
    epoch: int
    occurrence: int


Batch = tuple[list[Draw], "torch.Tensor"]


class InputRows(Protocol):
    """Rows that a network is trained on and answers: `images.ImageRows` or `tokens.TokenRows`."""

    @property
    def readable(self) -> np.ndarray:
        """(n,) whether a row has an input."""
        ...

    def __getitem__(self, draw: Draw) -> "torch.Tensor":
        """Return a training input: floats, or bytes for `augment.as_floats`."""
        ...

    def rendered(self, row: int, views: Sequence[int]) -> Rendered:
        """Return what some views show of a row, without anything random."""
        ...

    def with_seed(self, seed: int) -> Self:
        """Return the same rows with another seed of what is drawn."""
        ...


class BatchSampler:
    """The batches of a run, for torch's DataLoader; iterating gives those of `epochs`.

    `rows` (n,) are the rows to train on and `labels` (n,) their classes. With "shuffle" every row
    comes once an epoch; "balanced" draws n of them with replacement, every class equally often on
    average.

    Raises:
        InputError: "balanced", and there is only one class.
    """

    def __init__(
        self,
        rows: np.ndarray,
        labels: np.ndarray,
        *,
        sampler: str = "shuffle",
        batch_size: int,
        seed: int,
        epochs: range = range(1),
    ) -> None:
        self._rows, self._size, self._seed, self.epochs = rows, batch_size, seed, epochs
        self._probabilities: np.ndarray | None = None
        if sampler == "balanced":
            counts = np.bincount(labels)
            if np.count_nonzero(counts) < 2:
                raise InputError(
                    "the rows to learn from have one class only: use fewer folds, or label more"
                )
            # Drawn with 1 / (rows of its class), so every class has the same total.
            weights = 1.0 / counts[labels]
            self._probabilities = weights / weights.sum()

    def __iter__(self) -> Iterator[list[Draw]]:
        for epoch in self.epochs:
            yield from self.epoch(epoch)

    @property
    def steps(self) -> int:
        """Return the number of batches of an epoch."""
        return len(self._starts())

    def epoch(self, epoch: int) -> Iterator[list[Draw]]:
        """Yield the batches of one epoch, which depend on seed and epoch only."""
        rng, n = seeded("order", self._seed, epoch), len(self._rows)
        if self._probabilities is None:
            places = rng.permutation(n)
        else:
            places = rng.choice(n, n, p=self._probabilities)
        rows = self._rows[places]
        starts = self._starts()
        came: dict[int, int] = {}
        for start, end in zip(starts, [*starts[1:], n], strict=True):
            batch = []
            for row in rows[start:end].tolist():
                batch.append(Draw(row, epoch, came.get(row, 0)))
                came[row] = came.get(row, 0) + 1
            yield batch

    def _starts(self) -> list[int]:
        """Return where batches start. BatchNorm needs two rows: a last one joins those before."""
        n = len(self._rows)
        starts = list(range(0, n, self._size))
        if len(starts) > 1 and n - starts[-1] == 1 and self._size > 1:
            starts.pop()
        return starts


def default_drawing(device: str, draws: int) -> int:
    """Return how many processes draw the images of a fit of about so many draws, 0: none.

    Beside a network on the CPU one process for every four cores keeps up, since a step takes
    several times as long as what it needs is drawn in; with none the other cores wait while the
    step's one draws (see LOG.md). Few draws take less time than the process to start.
    """
    cores = default_workers()
    if device.partition(":")[0] != "cpu":
        return cores
    return -(-cores // _CORES_PER_PROCESS) if cores > 1 and draws >= _WORTH_A_PROCESS else 0


def training_batches(
    rows: InputRows,
    sampler: BatchSampler,
    *,
    workers: int = 0,
    pin: bool = False,
    notify: Notify = lambda _: None,
) -> Generator[Batch]:
    """Yield every batch of a sampler with its tensor, drawn by `workers` processes ahead.

    With 0, or where no process can be started, which `notify` hears, this process draws. Close the
    generator to end the processes.

    Raises:
        InputError: a process ended, as when memory runs out, or gives nothing any more.
    """
    import torch

    started = _start_processes(rows, sampler, workers, pin, notify) if workers else None
    if started is None:
        for draws in sampler:
            yield draws, torch.stack([rows[draw] for draw in draws])
        return
    batches, processes, seconds = started
    try:
        for draws in sampler:
            with _watch(processes, seconds):
                inputs = next(batches)
            yield draws, _as_tensor(inputs, pin)
    finally:
        # Killed, since one that is stuck would not end by itself, and no signal but this reaches
        # those that were started under `interrupt_later`.
        for process in processes:
            process.kill()


def _start_processes(
    rows: Any, sampler: BatchSampler, workers: int, pin: bool, notify: Notify
) -> tuple[Iterator[Any], list["BaseProcess"], float] | None:
    """Start processes that draw; None where none can be started."""
    import torch
    from torch.utils.data import DataLoader

    first = next(iter(sampler), None)
    if first is None:
        return None
    seconds = SECONDS + SECONDS_PER_ROW * len(first)
    ahead = _ahead_in_shared_memory(rows[first[0]].nbytes * len(first), workers, notify)
    before = set(multiprocessing.active_children())
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        loader = DataLoader(
            rows,
            batch_sampler=sampler,
            num_workers=workers,
            prefetch_factor=ahead or AHEAD_PER_WORKER,
            pin_memory=pin,
            # Spawned: a fork takes along locks that the parent's threads hold.
            multiprocessing_context="spawn",
            worker_init_fn=end_with_parent,
            timeout=seconds,
            collate_fn=None if ahead else _stack_as_array,
            # Of its own, so that starting does not move the global one.
            generator=torch.Generator(),
        )
        with interrupt_later():
            batches = iter(loader)
    except OSError as error:
        notify(
            f"no processes can be started to draw training images ({error.strerror or error}; "
            f"{SHARED_MEMORY}): this one draws them"
        )
        return None
    finally:
        # torch's handler would raise wherever the main thread happens to be, as in the middle of a
        # step or a checkpoint. `_watch` looks after the processes when a batch is needed.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
    return batches, list(set(multiprocessing.active_children()) - before), seconds


def _ahead_in_shared_memory(batch_bytes: int, workers: int, notify: Notify) -> int:
    """Return how many batches every process draws ahead through shared memory; 0: through pipes.

    A container of Docker's has 64 MB of it. A process that finds no room there loses its batch
    without telling anybody, so what may be on its way at a time is what is free, and fewer batches
    ahead come before pipes.
    """
    free = free_shared_memory()
    # Two more: that which is trained on, and the one before, which may not be given back yet.
    room = (free // max(1, batch_bytes) - 2) // workers
    ahead = max(0, min(AHEAD_PER_WORKER, room))
    if ahead < AHEAD_PER_WORKER:
        needed = batch_bytes * (workers * AHEAD_PER_WORKER + 2)
        chosen = (
            f"every process draws {ahead} ahead instead of {AHEAD_PER_WORKER}"
            if ahead
            else "they go through pipes, which costs time on a fast GPU"
        )
        notify(
            f"{SHARED_MEMORY} has {free / 1e6:.1f} MB free and training images drawn ahead take "
            f"{needed / 1e6:.1f}: {chosen}; a container gets more by docker run --shm-size"
        )
    return ahead


def free_shared_memory() -> int:
    """Return the bytes that shared memory takes; 0 where it is not there or read-only."""
    if sys.platform != "linux":
        return sys.maxsize
    try:
        return os.access(SHARED_MEMORY, os.W_OK) * shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return 0


@contextmanager
def _watch(processes: Sequence["BaseProcess"], seconds: float) -> Iterator[None]:
    """Wait for a batch, but not longer than `seconds`, nor for a process that has ended.

    The alarm interrupts whatever the main thread waits in: a message that a killed process left
    half-written has no limit of its own, nor has the answer of one that is stuck. In other threads
    DataLoader's own timeout serves.
    """
    deadline = time.monotonic() + seconds

    def check(*_: object) -> None:
        if not all(process.is_alive() for process in processes):
            raise _LostError("ended")
        if time.monotonic() > deadline:
            raise _LostError("give nothing any more")

    main = threading.current_thread() is threading.main_thread()
    if main:
        handler = signal.signal(signal.SIGALRM, check)
        timer = signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
    try:
        yield
    except (_LostError, RuntimeError, MemoryError, ConnectionError, EOFError) as error:
        known = str(error).startswith("DataLoader") or "shared memory" in str(error)
        if type(error) is RuntimeError and not known:
            raise
        what = str(error) if isinstance(error, _LostError) else "ended"
        raise InputError(
            f"processes that draw training images {what}, as when memory runs out, or "
            f"{SHARED_MEMORY}: use fewer --workers, or 0, which draws in this process"
        ) from None
    finally:
        if main:
            signal.setitimer(signal.ITIMER_REAL, *timer)
            signal.signal(signal.SIGALRM, handler)


class _LostError(Exception):
    """Processes that draw have ended, or give nothing any more."""


def _stack_as_array(tensors: Sequence["torch.Tensor"]) -> np.ndarray:
    """Collate a batch so that it goes through a pipe instead of shared memory."""
    import torch

    return np.asarray(torch.stack(list(tensors)).numpy())


def _as_tensor(inputs: Any, pin: bool) -> "torch.Tensor":
    import torch

    if isinstance(inputs, np.ndarray):
        tensor = torch.from_numpy(inputs)
        return tensor.pin_memory() if pin else tensor
    return torch.as_tensor(inputs)
