"""Prepare images ahead of the backbones, a bounded number at a time, in decoder processes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from archiveprobe.base.cores import usable_cores
from archiveprobe.embed.decoder_pool import DecoderError, DecoderPool
from archiveprobe.embed.prepare import Preparation, PreparedImage, prepare
from archiveprobe.embed.shared_memory import PrepareInto, shared_slots, slot_bytes
from archiveprobe.task.decoding import rejected

# Of processor time: the clock runs on while a machine is suspended or does other things.
SECONDS_PER_IMAGE = 60.0
_AHEAD_PER_WORKER = 8


def default_workers() -> int:
    """Return how many decoder processes to start: one per core, also where the CPU embeds.

    Decoders wait while a batch runs and the network waits while they fill the next, so each has all
    cores in its turn; with half of the cores embed took a third longer (see LOG.md).
    """
    return usable_cores()


def prepare_images(
    files: Iterable[tuple[str, str]],
    preparation: Preparation,
    *,
    workers: int,
    seconds: float = SECONDS_PER_IMAGE,
    notify: Callable[[str], None] = lambda _: None,
) -> Iterator[PreparedImage]:
    """Prepare (path, digest) pairs in order, in `workers` processes (0: in this one).

    An image at which a decoder takes longer than `seconds`, or dies twice, costs itself only.

    Raises:
        InputError: no process can start.
    """
    if workers == 0:
        for path, digest in files:
            yield prepare(path, digest, preparation)
        return
    ahead = _AHEAD_PER_WORKER * workers
    with shared_slots(ahead, slot_bytes(preparation), notify) as slots:
        work = PrepareInto(preparation, slots.descriptor)
        files_shared = () if slots.descriptor is None else (slots.descriptor,)
        with DecoderPool(work, workers, seconds=seconds, files=files_shared) as pool:
            calls = ((path, digest, slots.take()) for path, digest in files)
            for (_, digest, slot), result in pool.map(calls, ahead):
                if isinstance(result, DecoderError):
                    image = PreparedImage(digest, rejected(result.status, str(result)))
                else:
                    image = slots.unpack(result, slot)
                # Whichever process wrote into it is at another image, or has ended.
                slots.give_back(slot)
                # The digest in the answer is a copy, which a long run would keep for every image.
                yield replace(image, digest=digest)
