"""Decoder processes: images are prepared ahead of the backbones, a bounded number at a time.

An image at which a decoder hangs past the time limit, or dies twice, costs itself only.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from archiveprobe.base.cores import usable_cores
from archiveprobe.embed.decoder_process import Call
from archiveprobe.embed.decoders import DecoderDiedError, Decoders, DecoderTimeoutError
from archiveprobe.embed.prepare import Order, Prepared, prepare
from archiveprobe.embed.slots import PrepareInto, Slot, Slots, shared_slots, slot_bytes
from archiveprobe.task.decoding import rejected

# Of processor time: the clock runs on while a machine is suspended or does other things.
SECONDS_PER_PHOTOGRAPH = 60.0
_AHEAD_PER_WORKER = 8


def default_workers() -> int:
    """Decoder processes: one per core, also where the CPU computes as well.

    Decoders wait while a batch runs and the network waits while they fill the next, so each has all
    cores in its turn; with half of the cores embed took a third longer (see LOG.md).
    """
    return usable_cores()


def prepared(
    images: Iterable[tuple[str, str]],
    order: Order,
    *,
    workers: int,
    seconds: float = SECONDS_PER_PHOTOGRAPH,
    notify: Callable[[str], None] = lambda _: None,
) -> Iterator[Prepared]:
    """Prepare (path, digest) pairs in order, in `workers` processes (0: in this one).

    Raises:
        InputError: no process can start.
    """
    if workers == 0:
        for path, digest in images:
            yield prepare(path, digest, order)
        return
    ahead = _AHEAD_PER_WORKER * workers
    waiting: deque[_Asked] = deque()
    with shared_slots(ahead, slot_bytes(order), notify) as slots:
        work = PrepareInto(order, slots.memory)
        with Decoders(work, workers, seconds=seconds, files=slots.files) as decoders:
            for path, digest in images:
                slot = slots.take()
                waiting.append(_Asked(digest, slot, decoders.ask(path, digest, slot)))
                if len(waiting) >= ahead:
                    yield _result(waiting.popleft(), decoders, slots)
            while waiting:
                yield _result(waiting.popleft(), decoders, slots)


@dataclass
class _Asked:
    """An image that was handed to the decoders."""

    digest: str
    slot: Slot | None
    call: Call


def _result(asked: _Asked, decoders: Decoders, slots: Slots) -> Prepared:
    try:
        item = slots.unpack(decoders.result(asked.call), asked.slot)
    except DecoderTimeoutError as error:
        item = Prepared(asked.digest, rejected("decode_timeout", str(error)))
    except DecoderDiedError as error:
        item = Prepared(asked.digest, rejected("decoder_died", str(error)))
    # Whichever process wrote into it is at something else, or has ended.
    slots.give_back(asked.slot)
    # Its digest is a copy from another process, which a long run would keep for every image.
    return replace(item, digest=asked.digest)
