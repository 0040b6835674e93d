"""Decoder processes: photographs are prepared ahead of the backbones, a bounded number at a time.

A decoder that hangs past the time limit, or that kills its process, costs that photograph only.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from embed.prepare import Order, Prepared, prepare
from embed.slots import Slot, Slots, prepare_into, shared_slots, slot_bytes
from task.images import rejected

SECONDS_PER_PHOTOGRAPH = 60.0
_AHEAD_PER_WORKER = 8


def default_workers() -> int:
    """Decoder processes: one per core, also where the CPU computes as well.

    Decoders wait while a batch runs and the network waits while they fill the next, so each has all
    cores in its turn; with half of the cores embed took a third longer (see LOG.md).
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def prepared(
    photographs: Iterable[tuple[str, str]],
    order: Order,
    *,
    workers: int,
    seconds: float = SECONDS_PER_PHOTOGRAPH,
) -> Iterator[Prepared]:
    """Prepare (path, digest) pairs in order, in `workers` processes (0: in this one)."""
    if workers == 0:
        for path, digest in photographs:
            yield prepare(path, digest, order)
        return
    # Imported here: a run with nothing to decode needs no pool.
    from pebble import ProcessPool

    # Spawned, not forked: the parent may hold torch's threads, which do not survive a fork.
    context = multiprocessing.get_context("spawn")
    ahead = _AHEAD_PER_WORKER * workers
    waiting: deque[tuple[str, Slot | None, Any]] = deque()
    with (
        shared_slots(ahead, slot_bytes(order)) as slots,
        ProcessPool(
            max_workers=workers, context=context, initializer=_leave_interrupts_to_the_parent
        ) as pool,
    ):
        try:
            for path, digest in photographs:
                slot = slots.take()
                given = (path, digest, order, slot)
                job = pool.schedule(prepare_into, args=given, timeout=seconds)
                waiting.append((digest, slot, job))
                if len(waiting) >= ahead:
                    yield _result(*waiting.popleft(), slots, seconds)
            while waiting:
                yield _result(*waiting.popleft(), slots, seconds)
        except BaseException:
            pool.stop()  # type: ignore[no-untyped-call]
            raise


def _leave_interrupts_to_the_parent() -> None:
    # Ctrl-C reaches the whole process group, and each worker would print a traceback of its own.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _result(digest: str, slot: Slot | None, job: Any, slots: Slots, seconds: float) -> Prepared:
    from pebble import ProcessExpired

    # A slot whose decoder was killed is not used again: it might still be dying.
    try:
        item = slots.unpack(job.result(), slot)
    except FutureTimeoutError:
        return Prepared(digest, rejected("decode_timeout", f"over {seconds:g} s"))
    except ProcessExpired as error:
        return Prepared(digest, rejected("decoder_died", str(error)))
    slots.give_back(slot)
    return item
