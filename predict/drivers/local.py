"""Has units answered on this machine: decoder processes read ahead, threads compute and write.

While a unit is encoded the next one is decoded; a few units are in memory, however many there are.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress

from archiveprobe.archive.index import Index
from archiveprobe.archive.references import Reference
from archiveprobe.archive.units import Receipt, Unit
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.embed.decoding import ReferenceDecoders, default_workers
from archiveprobe.embed.prepare import PreparedImage
from archiveprobe.predict.units import UnitWork

Commit = Callable[[Receipt], None]
# One is encoded while the part of the other is written.
_AT_ONCE = 2


def run(
    work: UnitWork,
    index: Index,
    todo: Iterable[int],
    commit: Commit,
    *,
    workers: int | None = None,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> None:
    """Answer the units with the numbers in `todo`; `commit` gets a receipt as each is on disk.

    Stopped by an exception, units that are nearly done are finished and committed first.

    Raises:
        InputError: the system or its backbones are not what they were, the source gives nothing,
            no process can start, memory runs out, or the disk takes no more.
    """
    numbers = list(todo)
    if not numbers:
        return
    images = count_images(index, numbers)
    workers = min(default_workers() if workers is None else workers, images)
    with (
        progress("answering", images) as advance,
        work.open(notify=notify) as opened,
        ReferenceDecoders(
            work.source, opened.preparation, workers=workers, notify=notify
        ) as decoders,
        ThreadPoolExecutor(_AT_ONCE, "answers") as pool,
    ):
        receipts = _Receipts(commit, advance)
        try:
            for unit, content in decode_units(index, numbers, decoders):
                receipts.add(pool.submit(opened.answer, unit, content))
            receipts.settle(0)
        except BaseException:
            receipts.settle_after_fault()
            raise


def decode_units(
    index: Index, numbers: Iterable[int], decoders: ReferenceDecoders
) -> Iterator[tuple[Unit, list[PreparedImage]]]:
    """Yield every unit with its images, prepared; images of the next one are begun meanwhile."""
    begun: deque[Unit] = deque()

    def references() -> Iterator[Reference]:
        for number in numbers:
            unit = index.unit(number)
            begun.append(unit)
            yield from unit.references

    images: list[PreparedImage] = []
    for image in decoders.images(references()):
        images.append(image)
        if len(images) == len(begun[0].references):
            yield begun.popleft(), images
            images = []


class _Receipts:
    """Units that threads work at, and what becomes of their receipts."""

    def __init__(self, commit: Commit, advance: Callable[[], None]) -> None:
        self._commit, self._advance = commit, advance
        self._pending: set[Future[Receipt]] = set()

    def add(self, answer: "Future[Receipt]") -> None:
        """Take in a unit; waits while there are too many."""
        self._pending.add(answer)
        self.settle(_AT_ONCE)

    def settle(self, most: int) -> None:
        """Commit what is done, and wait until no more than `most` units are left."""
        while self._pending:
            seconds = None if len(self._pending) > most else 0
            done, self._pending = wait(self._pending, seconds, FIRST_COMPLETED)
            for answer in done:
                self._take(answer.result())
            if not done:
                return

    def settle_after_fault(self) -> None:
        """Commit the units that are begun, as far as they can be finished."""
        begun = [answer for answer in self._pending if not answer.cancel()]
        for answer in begun:
            with suppress(Exception):
                self._take(answer.result())

    def _take(self, receipt: Receipt) -> None:
        self._commit(receipt)
        for _ in range(receipt.rows):
            self._advance()


def count_images(index: Index, numbers: Iterable[int]) -> int:
    """Count the images of some units, of which only the last one may be smaller than the rest."""
    lacking = index.units * index.unit_images - index.images
    return sum(index.unit_images - lacking * (at == index.units - 1) for at in numbers)
