"""How processes hand over what they drew: through shared memory where it has room, else by pipes.

A container of Docker's has 64 MB of shared memory, and a single batch of images takes 19. A
process that finds no room there loses its batch without telling anybody, and whoever waits for the
batch waits for ever: room is looked at before processes are started, one that can hand nothing over
ends, and nobody waits without a limit.
"""

import multiprocessing
import multiprocessing.queues
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.embed import libraries
from archiveprobe.embed.processes import end_with_parent

SHARED = Path("/dev/shm")  # noqa: S108
LATE = "DataLoader timed out"
_SECONDS, _SECONDS_PER_ROW = 300.0, 2.0


def free_bytes() -> int | None:
    """What shared memory takes; None where the system has no limit of its own for it."""
    if sys.platform != "linux":
        return None
    try:
        return shutil.disk_usage(SHARED).free if os.access(SHARED, os.W_OK) else 0
    except OSError:
        return 0


def check_semaphores() -> None:
    """Check that queues can be made: they have semaphores, which lie in shared memory too.

    Raises:
        OSError: they cannot.
    """
    multiprocessing.get_context("spawn").Semaphore()


def bytes_in_flight(batch: int, workers: int, ahead: int) -> int:
    """The most that batches of so many bytes take: all that are drawn ahead, one that is learnt
    and one that is handed over.
    """
    return batch * (workers * ahead + 2)


def seconds_to_wait(batches: Sequence[np.ndarray]) -> float:
    """How long a batch may take: a hundred times what it does, and the start of a process."""
    return _SECONDS + _SECONDS_PER_ROW * max(map(len, batches), default=0)


def begin(_: int) -> None:
    """Prepare a process that draws: it ends with its parent, or when it can hand nothing over."""
    end_with_parent()
    queue: Any = multiprocessing.queues.Queue
    queue._on_queue_feeder_error = staticmethod(_end)


def _end(*_: Any) -> None:
    # Of the process: the batch is lost, and Python's own way is to print that and go on.
    os._exit(1)


@contextmanager
def quiet_start() -> Iterator[None]:
    """Leave SIGCHLD as it was after a block in which processes are started.

    Torch would say that one has ended wherever the main thread happens to be: in a step of the
    network, or between two files of a checkpoint.
    """
    with _handled({signal.SIGCHLD: signal.SIG_DFL}):
        yield


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Wait for a batch, but not longer than that, nor for a process that has ended.

    Whatever the main thread waits in is left: a half-written message of a process that was killed,
    or an answer of one that is stuck, has no limit of its own. Other threads have DataLoader's.

    Raises:
        RuntimeError: time is over, or a process has ended; the message begins as torch's does.
    """
    with _handled({signal.SIGCHLD: _say_ended, signal.SIGALRM: _say_late}) as handled:
        if not handled:
            yield
            return
        _say_ended()
        left, every = signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, left, every)


@contextmanager
def _handled(handlers: Mapping[int, Any]) -> Iterator[bool]:
    """Signals handled in a block, in the main thread, which alone may do so."""
    here = threading.current_thread() is threading.main_thread()
    before = {one: signal.signal(one, handlers[one]) for one in handlers} if here else {}
    try:
        yield here
    finally:
        for one, handler in before.items():
            signal.signal(one, handler or signal.SIG_DFL)


def _say_ended(*_: Any) -> None:
    libraries.torch()._C._error_if_any_worker_fails()


def _say_late(*_: Any) -> None:
    raise RuntimeError(LATE)


def as_array(batch: Any) -> Any:
    """A batch as it goes through a pipe."""
    return batch.numpy()


def as_tensor(batch: Any, *, pin: bool) -> Any:
    """A batch as it is learnt from, however it came."""
    if not isinstance(batch, np.ndarray):
        return batch
    tensor = libraries.torch().from_numpy(batch)
    return tensor.pin_memory() if pin else tensor
