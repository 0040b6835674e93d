"""Batches of images: drawn anew to learn from, rendered views to predict from.

Processes draw ahead of the network, one thread each. What they draw depends on seed, epoch, row and
how often the row came before in the epoch, and nothing here touches a global generator, so any
number of them gives the same batches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries
from archiveprobe.embed.job import Notify
from archiveprobe.embed.preprocess import Preprocess
from archiveprobe.embed.processes import interrupt_later
from archiveprobe.finetune.augment import normalised
from archiveprobe.finetune.handover import (
    LATE,
    SHARED,
    as_array,
    as_tensor,
    begin,
    bytes_in_flight,
    check_semaphores,
    free_bytes,
    limited,
    quiet_start,
    seconds_to_wait,
)
from archiveprobe.finetune.pixels import Pixels
from archiveprobe.finetune.schedule import occurrences

_AHEAD_PER_WORKER = 3
Ints = Sequence[int] | np.ndarray
Order = tuple[np.ndarray, int, np.ndarray]
"""The rows of a batch, the epoch that they are drawn for, and how often each came before in it."""


class Draw(Protocol):
    """finetune.augment.Augmentation, or anything like it that can be pickled."""

    def __call__(self, image: np.ndarray, epoch: int, row: int | str, occurrence: int = 0) -> Any:
        """A float tensor (3, size, size) of an image (height, width, 3) uint8."""
        ...


class Source(Protocol):
    """Rows that can be learnt: `PictureRows`, or finetune.tokens.TokenRows."""

    def learn(self, rows: Ints, epoch: int, occurrence: Ints | None = None) -> Any:
        """A float tensor (b, ...) of rows as they are drawn in an epoch.

        `occurrence` (b,) says how often each row came before in that epoch; None: never.
        """
        ...


@dataclass(frozen=True)
class PictureRows:
    """n rows of decoded images, with the same methods as finetune.tokens.TokenRows."""

    pixels: Pixels
    draw: Draw
    preprocess: Preprocess

    @property
    def readable(self) -> np.ndarray:
        """(n,) whether a row has pixels."""
        return self.pixels.readable

    def learn(self, rows: Ints, epoch: int, occurrence: Ints | None = None) -> Any:
        """A batch (b, 3, size, size) float32 of rows, drawn for that epoch; see Source."""
        counts = np.zeros(len(rows), int) if occurrence is None else occurrence
        drawn = [
            self.draw(self.pixels.image(int(row)), epoch, int(row), int(count))
            for row, count in zip(rows, counts, strict=True)
        ]
        return libraries.torch().stack(drawn)

    def look(self, rows: Ints, view: int) -> Any:
        """A batch (b, 3, size, size) float32 of rows through a view."""
        views = np.stack([self.pixels.view(int(row), view) for row in rows])
        return normalised(views, self.preprocess)


class Loader:
    """Batches of a source, in `workers` processes ahead of whoever asks (0: in this one).

    Without processes nothing is drawn ahead: RandAugment borrows the global generators for a
    moment, which in a thread would reach the dropout of the step beside it. Processes start with
    the first epoch; where they cannot, this one draws, and `notify` hears why.
    """

    def __init__(
        self,
        source: Source,
        *,
        workers: int,
        pin: bool = False,
        notify: Notify = lambda _: None,
    ) -> None:
        self._source, self._workers, self._pin, self._notify = source, workers, pin, notify
        self._orders = _Orders()
        self._loader: Any = None
        self._drawn: Any = None
        self._begun: Any = None

    def epoch(
        self, batches: Sequence[np.ndarray], epoch: int, following: Sequence[np.ndarray] = ()
    ) -> Iterator[tuple[np.ndarray, Any]]:
        """The rows and the float tensor of every batch, in order.

        `following` are the batches of the next epoch: processes go on with them while the last of
        these are learnt and the epoch is rated, so that the next one need not wait.

        Raises:
            InputError: a process ended, as when memory runs out, or gives nothing any more.
        """
        asked = _orders(batches, epoch)
        # Kept again at the end only: after an epoch that was broken off nothing is in its place.
        drawn, self._drawn = self._drawn, None
        begun = drawn is not None and self._orders.begin_with(asked)
        if not begun:
            self._orders.left = asked.copy()
        self._orders.left += _orders(following, epoch + 1)
        if not begun:
            drawn = self._begin(batches, epoch)
        if drawn is None:
            for order in asked:
                yield order[0], self._source.learn(*order)
            return
        seconds = seconds_to_wait(batches)
        for rows in batches:
            batch = as_tensor(_next(drawn, seconds), pin=self._pin)
            self._orders.drop_first()
            yield rows, batch
        self._drawn = drawn

    @property
    def ahead(self) -> int:
        """How many batches the processes have begun that were not given out yet."""
        return self._orders.handed

    def close(self) -> None:
        """End the processes."""
        # By name, since a traceback may hold the iterator longer than the pixels are there.
        with interrupt_later():
            if self._begun is not None:
                self._begun._shutdown_workers()
            self._drawn = self._begun = self._loader = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, batches: Sequence[np.ndarray], epoch: int) -> Any:
        """Let processes draw what is ordered; None where this one has to."""
        if not self._workers or not len(batches):
            return None
        try:
            if self._loader is None:
                check_semaphores()
                self._loader = self._made(batches, epoch)
            with interrupt_later(), quiet_start():
                self._begun = iter(self._loader)
        except OSError as error:
            self._workers, self._loader = 0, None
            self._notify(
                f"no processes can be started to draw training images ({error.strerror or error}"
                f"; {SHARED}): this one draws them"
            )
            return None
        return self._begun

    def _made(self, batches: Sequence[np.ndarray], epoch: int) -> Any:
        torch = libraries.torch()
        row = self._source.learn(batches[0][:1], epoch)
        size = max(map(len, batches)) * row.nbytes
        wanted = bytes_in_flight(size, self._workers, _AHEAD_PER_WORKER)
        free = free_bytes()
        shared = free is None or wanted <= free
        if free is not None and not shared:
            self._notify(
                f"{SHARED} has {free >> 20} MB free and training images drawn ahead take "
                f"{wanted >> 20}: they go through pipes, which costs time on a fast GPU; a "
                "container gets more by docker run --shm-size"
            )
        return torch.utils.data.DataLoader(
            _Drawn(self._source),
            batch_size=None,
            sampler=self._orders,
            num_workers=self._workers,
            prefetch_factor=_AHEAD_PER_WORKER,
            persistent_workers=True,
            pin_memory=self._pin,
            # Spawned: a fork takes along locks that the parent's threads hold.
            multiprocessing_context="spawn",
            worker_init_fn=begin,
            timeout=seconds_to_wait(batches),
            collate_fn=None if shared else as_array,
            # Of its own, so that starting an epoch does not move the global one.
            generator=torch.Generator(),
        )


class _Orders:
    """What is asked for and not given out yet; `handed` of it is with the processes.

    DataLoader takes the next order whenever a batch is given out, also after there was none once.
    """

    def __init__(self) -> None:
        self.left: list[Order] = []
        self.handed = 0

    def __iter__(self) -> Self:
        self.handed = 0
        return self

    def __next__(self) -> Order:
        if self.handed == len(self.left):
            raise StopIteration
        self.handed += 1
        return self.left[self.handed - 1]

    def begin_with(self, asked: Sequence[Order]) -> bool:
        """Whether the next batches to come are these, and at least one is being drawn."""
        pairs = zip(self.left, asked, strict=False)
        # How often a row came before follows from the rows.
        same = all(a[1] == b[1] and np.array_equal(a[0], b[0]) for a, b in pairs)
        return self.handed > 0 and len(self.left) >= len(asked) and same

    def drop_first(self) -> None:
        """The first order's batch is given out."""
        del self.left[0]
        self.handed -= 1


@dataclass(frozen=True)
class _Drawn:
    """A source as DataLoader wants it; its processes have one thread each by themselves."""

    source: Source

    def __getitem__(self, asked: Order) -> Any:
        return self.source.learn(*asked)


def _orders(batches: Sequence[np.ndarray], epoch: int) -> list[Order]:
    """All batches of an epoch as they are asked for."""
    if not len(batches):
        return []
    ends = np.cumsum([len(rows) for rows in batches])[:-1]
    counts = np.split(occurrences(np.concatenate(batches)), ends)
    return [(rows, epoch, count) for rows, count in zip(batches, counts, strict=True)]


def _next(drawn: Any, seconds: float) -> Any:
    try:
        with limited(seconds):
            return next(drawn)
    except (RuntimeError, MemoryError, ConnectionError, EOFError) as error:
        late = str(error).startswith(LATE)
        ours = not isinstance(error, RuntimeError) or str(error).startswith("DataLoader worker")
        if not late and not ours:
            raise
        # One that is stuck would not end by itself either.
        for process in drawn._workers:
            process.kill()
        what = "give nothing any more" if late else "ended"
        raise InputError(
            f"processes that draw training images {what}, as when memory runs out, or {SHARED}: "
            "use fewer --workers, or 0, which draws in this process"
        ) from None
