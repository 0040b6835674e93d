"""Decoder processes: photographs are prepared ahead of the backbones, a bounded number at a time.

A decoder that hangs past the time limit, or that kills its process, costs that photograph only.
"""

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from typing import Any, Self

from embed.prepare import Order, Prepared, prepare
from embed.processes import end_with_parent, interrupt_later
from embed.slots import Slot, Slots, prepare_into, shared_slots, slot_bytes
from task.cores import usable_cores
from task.errors import InputError
from task.images import rejected

SECONDS_PER_PHOTOGRAPH = 60.0
_AHEAD_PER_WORKER = 8
_REPLACEMENTS = 3


def default_workers() -> int:
    """Decoder processes: one per core, also where the CPU computes as well.

    Decoders wait while a batch runs and the network waits while they fill the next, so each has all
    cores in its turn; with half of the cores embed took a third longer (see LOG.md).
    """
    return usable_cores()


def prepared(
    photographs: Iterable[tuple[str, str]],
    order: Order,
    *,
    workers: int,
    seconds: float = SECONDS_PER_PHOTOGRAPH,
) -> Iterator[Prepared]:
    """Prepare (path, digest) pairs in order, in `workers` processes (0: in this one).

    Raises:
        InputError: the processes end again and again before they have done anything.
    """
    if workers == 0:
        for path, digest in photographs:
            yield prepare(path, digest, order)
        return
    ahead = _AHEAD_PER_WORKER * workers
    waiting: deque[_Asked] = deque()
    with shared_slots(ahead, slot_bytes(order)) as slots, _Decoders(workers, seconds) as decoders:
        for path, digest in photographs:
            waiting.append(decoders.ask(path, digest, order, slots.take()))
            if len(waiting) >= ahead:
                yield decoders.result(waiting, slots)
        while waiting:
            yield decoders.result(waiting, slots)


@dataclass
class _Asked:
    """A photograph that was handed to a decoder process, and the job that will have its result."""

    path: str
    digest: str
    order: Order
    slot: Slot | None
    job: Any


class _Decoders:
    """A pool of decoder processes, replaced as a whole where pebble gives it up.

    pebble gives up all jobs when a process dies between two of them, as may happen when memory runs
    out and the kernel picks an idle one.
    """

    def __init__(self, workers: int, seconds: float) -> None:
        self._workers = workers
        self._seconds = seconds
        self._replaced = 0
        self._pool = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._pool.close()
        else:
            self._pool.stop()
        self._pool.join()

    def _start(self) -> Any:
        # Imported here: a run with nothing to decode needs no pool.
        from pebble import ProcessPool

        # Spawned, not forked: the parent may hold torch's threads, which do not survive a fork.
        context = multiprocessing.get_context("spawn")
        return ProcessPool(
            max_workers=self._workers,
            context=context,
            initializer=end_with_parent,
        )

    def ask(self, path: str, digest: str, order: Order, slot: Slot | None) -> _Asked:
        """Hand a photograph to the next free process."""
        return _Asked(path, digest, order, slot, self._schedule(path, digest, order, slot))

    def _schedule(self, *given: Any) -> Any:
        from concurrent.futures.process import BrokenProcessPool

        try:
            # Here processes are started.
            with interrupt_later():
                return self._pool.schedule(prepare_into, args=given, timeout=self._seconds)
        except RuntimeError:
            # The pool broke since; whoever asks for the result replaces it.
            lost: Future[Any] = Future()
            lost.set_exception(BrokenProcessPool())
            return lost

    def result(self, waiting: deque[_Asked], slots: Slots) -> Prepared:
        """Take the first of those waiting out of the queue: what became of it."""
        from concurrent.futures.process import BrokenProcessPool

        while True:
            try:
                item = _result(waiting[0], slots, self._seconds)
            except BrokenProcessPool:
                self._replace(waiting)
            else:
                self._replaced = 0
                waiting.popleft()
                return item

    def _replace(self, waiting: deque[_Asked]) -> None:
        self._replaced += 1
        if self._replaced > _REPLACEMENTS:
            raise InputError(
                "the decoder processes end as soon as they start: free memory, or run with "
                "--workers 0, which decodes in this process"
            )
        self._pool.stop()
        self._pool.join()
        self._pool = self._start()
        for asked in waiting:
            if _lost(asked.job):
                asked.job = self._schedule(asked.path, asked.digest, asked.order, asked.slot)


def _lost(job: Any) -> bool:
    """Whether a job ended with its pool rather than by itself."""
    from concurrent.futures.process import BrokenProcessPool

    return not job.done() or job.cancelled() or isinstance(job.exception(), BrokenProcessPool)


def _result(asked: _Asked, slots: Slots, seconds: float) -> Prepared:
    from pebble import ProcessExpired

    # A slot whose decoder was killed is not used again: it might still be dying.
    try:
        item = slots.unpack(asked.job.result(), asked.slot)
    except FutureTimeoutError:
        return Prepared(asked.digest, rejected("decode_timeout", f"over {seconds:g} s"))
    except ProcessExpired as error:
        return Prepared(asked.digest, rejected("decoder_died", str(error)))
    slots.give_back(asked.slot)
    # Its digest is a copy from another process, which a long run would keep for every photograph.
    return replace(item, digest=asked.digest)
