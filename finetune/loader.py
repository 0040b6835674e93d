"""Batches of pictures: drawn anew to learn from, rendered views to predict from.

Processes draw ahead of the network, one thread each. What they draw depends on seed, epoch and row,
and nothing here touches a global generator, so any number of them gives the same batches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from embed import libraries
from embed.preprocess import Preprocess
from finetune.augment import normalised
from finetune.pixels import Pixels
from task.errors import InputError

_AHEAD_PER_WORKER = 3


class Draw(Protocol):
    """finetune.augment.Augmentation, or anything like it that can be pickled."""

    def __call__(self, picture: np.ndarray, epoch: int, row: int | str) -> Any:
        """A float tensor (3, size, size) of a picture (height, width, 3) uint8."""
        ...


class Source(Protocol):
    """Rows that can be learnt: `PictureRows`, or finetune.tokens.TokenRows."""

    def learn(self, rows: Sequence[int] | np.ndarray, epoch: int) -> Any:
        """A float tensor (b, ...) of rows as they are drawn in an epoch."""
        ...


@dataclass(frozen=True)
class PictureRows:
    """n rows of decoded pictures, with the same methods as finetune.tokens.TokenRows."""

    pixels: Pixels
    draw: Draw
    preprocess: Preprocess

    @property
    def readable(self) -> np.ndarray:
        """(n,) whether a row has pixels."""
        return self.pixels.readable

    def learn(self, rows: Sequence[int] | np.ndarray, epoch: int) -> Any:
        """A batch (b, 3, size, size) float32 of rows, drawn for that epoch."""
        drawn = [self.draw(self.pixels.picture(int(row)), epoch, int(row)) for row in rows]
        return libraries.torch().stack(drawn)

    def look(self, rows: Sequence[int] | np.ndarray, view: int) -> Any:
        """A batch (b, 3, size, size) float32 of rows through a view."""
        views = np.stack([self.pixels.view(int(row), view) for row in rows])
        return normalised(views, self.preprocess)


class Loader:
    """Batches of a source, in `workers` processes ahead of whoever asks (0: in this one).

    Without processes nothing is drawn ahead: RandAugment borrows the global generators for a
    moment, which in a thread would reach the dropout of the step beside it.
    """

    def __init__(self, source: Source, *, workers: int, pin: bool = False) -> None:
        self._source = source
        self._orders = _Orders()
        self._loader: Any = self._start(workers, pin) if workers else None

    def epoch(self, batches: Sequence[np.ndarray], epoch: int) -> Iterator[tuple[np.ndarray, Any]]:
        """The rows and the float tensor of every batch, in order.

        Raises:
            InputError: a process ended, as when memory runs out.
        """
        if self._loader is None:
            for rows in batches:
                yield rows, self._source.learn(rows, epoch)
            return
        self._orders.asked = [(rows, epoch) for rows in batches]
        drawn = iter(self._loader)
        for rows in batches:
            yield rows, _next(drawn)

    def close(self) -> None:
        """End the processes."""
        # They end when the iterator that DataLoader keeps is gone.
        self._loader = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, workers: int, pin: bool) -> Any:
        torch = libraries.torch()
        return torch.utils.data.DataLoader(
            _Drawn(self._source),
            batch_size=None,
            sampler=self._orders,
            num_workers=workers,
            prefetch_factor=_AHEAD_PER_WORKER,
            persistent_workers=True,
            pin_memory=pin,
            # Spawned: a fork takes along locks that the parent's threads hold.
            multiprocessing_context="spawn",
            # Of its own, so that starting an epoch does not move the global one.
            generator=torch.Generator(),
        )


class _Orders:
    """What the next epoch asks for; DataLoader looks here whenever an epoch starts."""

    def __init__(self) -> None:
        self.asked: list[tuple[np.ndarray, int]] = []

    def __iter__(self) -> Iterator[tuple[np.ndarray, int]]:
        return iter(self.asked)

    def __len__(self) -> int:
        return len(self.asked)


@dataclass(frozen=True)
class _Drawn:
    """A source as DataLoader wants it; its processes have one thread each by themselves."""

    source: Source

    def __getitem__(self, asked: tuple[np.ndarray, int]) -> Any:
        rows, epoch = asked
        return self.source.learn(rows, epoch)


def _next(drawn: Iterator[Any]) -> Any:
    try:
        return next(drawn)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise InputError(
            "a process that draws training pictures ended, as when memory runs out: use fewer "
            "--workers, or 0, which draws in this process"
        ) from None
