"""Prepare images ahead of the backbones, a bounded number at a time, in decoder processes."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, Self

from archiveprobe.archive.references import Reference
from archiveprobe.archive.source import Source
from archiveprobe.base.cores import usable_cores
from archiveprobe.base.progress import Notify
from archiveprobe.embed.decoder_pool import DecoderError, DecoderPool
from archiveprobe.embed.prepare import Preparation, PreparedImage, prepare, prepare_reference
from archiveprobe.embed.shared_memory import PrepareInto, Slots, shared_slots, slot_bytes
from archiveprobe.task.decoding import rejected

# Of processor time: the clock runs on while a machine is suspended or does other things.
SECONDS_PER_IMAGE = 60.0
AHEAD_PER_WORKER = 8


Arguments = tuple[Any, ...]


def default_workers() -> int:
    """Return how many decoder processes to start: one per core, also where the CPU embeds.

    Decoders wait while a batch runs and the network waits while they fill the next, so each has all
    cores in its turn; with half of the cores embed took a third longer (see LOG.md).
    """
    return usable_cores()


class Decoders:
    """Up to `workers` processes that prepare images (0: this one); a context manager.

    `work` makes a PreparedImage of the arguments that name an image, and of the `preparation`. An
    image at which a process takes longer than `seconds` of processor time, or dies twice, costs
    itself only.
    """

    def __init__(
        self,
        work: Callable[..., PreparedImage],
        preparation: Preparation,
        *,
        workers: int,
        seconds: float = SECONDS_PER_IMAGE,
        notify: Notify = lambda _: None,
    ) -> None:
        self._work = partial(work, preparation=preparation)
        self._image_bytes = slot_bytes(preparation)
        self._workers = workers
        self._ahead = AHEAD_PER_WORKER * workers
        self._seconds = seconds
        self._notify = notify
        self._stack = ExitStack()
        self._slots = Slots()
        self._pool: DecoderPool | None = None

    def __enter__(self) -> Self:
        if self._workers:
            with self._stack:
                slots = shared_slots(self._ahead, self._image_bytes, self._notify)
                self._slots = self._stack.enter_context(slots)
                descriptor = self._slots.descriptor
                files = () if descriptor is None else (descriptor,)
                into = PrepareInto(self._work, descriptor)
                pool = DecoderPool(into, self._workers, seconds=self._seconds, files=files)
                self._pool = self._stack.enter_context(pool)
                self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *fault: Any) -> None:
        self._stack.__exit__(*fault)

    def prepare(self, calls: Iterable[Arguments]) -> Iterator[tuple[Arguments, PreparedImage]]:
        """Yield the arguments of every call with their image, in order; a few are ahead.

        An image that cost its process has no digest, since its bytes are not known.

        Raises:
            InputError: no process can start.
            Exception: whatever a call has raised.
        """
        if self._pool is None:
            for arguments in calls:
                yield arguments, self._work(*arguments)
            return
        slots = self._slots
        with_slots = ((slots.take(), *arguments) for arguments in calls)
        for with_slot, result in self._pool.map(with_slots, self._ahead):
            slot, arguments = with_slot[0], with_slot[1:]
            if isinstance(result, DecoderError):
                image = PreparedImage("", rejected(result.status, str(result)))
            else:
                image = slots.unpack(result, slot)
            # Whichever process wrote into it is at another image, or has ended.
            slots.give_back(slot)
            yield arguments, image


class ReferenceDecoders(Decoders):
    """Decoders that read the images of an archive through its source."""

    def __init__(self, source: Source, preparation: Preparation, **how: Any) -> None:
        super().__init__(partial(prepare_reference, source=source), preparation, **how)

    def images(self, references: Iterable[Reference]) -> Iterator[PreparedImage]:
        """Prepare images in order.

        Raises:
            InputError: no process can start, or the source gives nothing at all.
        """
        calls = ((reference,) for reference in references)
        return (image for _, image in self.prepare(calls))


def prepare_images(
    files: Iterable[tuple[str, str]],
    preparation: Preparation,
    *,
    workers: int,
    seconds: float = SECONDS_PER_IMAGE,
    notify: Notify = lambda _: None,
) -> Generator[PreparedImage, None, None]:
    """Prepare (path, digest) pairs in order, in `workers` processes (0: in this one).

    An image at which a decoder takes longer than `seconds`, or dies twice, costs itself only.

    Raises:
        InputError: no process can start.
    """
    with Decoders(
        prepare, preparation, workers=workers, seconds=seconds, notify=notify
    ) as decoders:
        for (_, digest), image in decoders.prepare(files):
            # The digest in the answer is a copy, which a long run would keep for every image.
            yield replace(image, digest=digest)
