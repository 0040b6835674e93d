"""Forward passes: batches of crops, computed on threads while the next images are decoded.

On a GPU one pass runs at a time; on a CPU they run side by side, one thread each. A CPU's cores
could also share every pass, as torch does by itself; then its threads meet after each layer, and as
soon as another process has one of the cores all of them wait, dozens of times a pass, for a thread
that the scheduler has put aside. Passes of one thread each wait for nothing; smaller batches also
stay longer in a core's own memory (see LOG.md).
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from math import ceil
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np

from archiveprobe.base.cores import usable_cores
from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import (
    give_back_freed_memory,
    is_out_of_memory,
    keep_freed_memory,
    memory_for,
)
from archiveprobe.embed.networks import LoadedBackbone
from archiveprobe.embed.views import Rendered

Embed = Callable[[np.ndarray, np.ndarray], np.ndarray]
Rows = list[tuple[bytes, np.ndarray]]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
# Characters of a library's own words.
_SHOWN = 200


class Batch:
    """Images that a backbone embeds together: every distinct view once, `size` at a time."""

    def __init__(self, size: int, notify: Callable[[str], None]) -> None:
        self.size = size
        self._notify = notify
        self._images: list[tuple[bytes, Rendered]] = []
        self._crops = 0

    @property
    def full(self) -> bool:
        """Return whether there are crops enough for one forward pass."""
        return self._crops >= self.size

    @property
    def empty(self) -> bool:
        """Return whether there is nothing to embed."""
        return not self._images

    def add(self, key: bytes, rendered: Rendered) -> None:
        """Add the views of one image."""
        self._images.append((key, rendered))
        self._crops += len(rendered.distinct)

    def crops(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct crops, (b, size, size, 3) uint8, and (b,) whether mirrored."""
        views = [(image, view) for _, image in self._images for view in image.distinct]
        crops = np.stack([image.crops[crop] for image, (crop, _) in views])
        return crops, np.array([mirrored for _, (_, mirrored) in views])

    def embed(self, embed: Embed) -> Rows:
        """Return (key, (views, *shape) float32) of every image in order.

        `size` is one that fits the device's memory afterwards.
        """
        if self.empty:
            return []
        embeddings = self._in_parts(embed, *self.crops())
        rows, start = [], 0
        for key, image in self._images:
            place = {view: start + at for at, view in enumerate(image.distinct)}
            views = zip(image.crop, image.mirror, strict=True)
            rows.append((key, embeddings[[place[view] for view in views]]))
            start += len(place)
        return rows

    def _in_parts(self, embed: Embed, crops: np.ndarray, mirror: np.ndarray) -> np.ndarray:
        start, parts = 0, []
        while start < len(crops):
            left = len(crops) - start
            # As few parts as hold what is left, and even ones: 12 are 6 + 6, not 8 + 4.
            part = slice(start, start + ceil(left / ceil(left / self.size)))
            try:
                parts.append(embed(crops[part], mirror[part]))
            except Exception as error:
                if not is_out_of_memory(error) or self.size == 1:
                    raise
            else:
                start = part.stop
                continue
            # Here, since the error holds what the pass had made until its block ends.
            self.size = max(1, self.size // 2)
            self._notify(f"out of memory: batch halved to {self.size}")
            give_back_freed_memory()
        return np.concatenate(parts)


class ForwardThreads:
    """The threads that forward passes run in, shared by all backbones of a run.

    `passes` is how many run side by side on a CPU; None: one for every core.
    """

    def __init__(self, device: str, passes: int | None = None) -> None:
        self._cpu = device == "cpu"
        threads = (passes or usable_cores()) if self._cpu else 1
        # One batch more than there are threads waits on a CPU, so that none of them ever does. On a
        # GPU the next one is gathered meanwhile, which is enough.
        self.ahead = threads + 1 if self._cpu else 1
        self._pool = ThreadPoolExecutor(threads, "forward")
        self._threads_before: int | None = None
        if self._cpu:
            # Before there is any other thread, which would have an arena of its own.
            keep_freed_memory()

    def submit(
        self,
        work: Callable[Arguments, Result],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> "Future[Result]":
        """Have something computed as soon as a thread is free."""
        if self._cpu and self._threads_before is None and "torch" in sys.modules:
            # Asked here, since the first pass changes the number that new threads begin with.
            self._threads_before = sys.modules["torch"].get_num_threads()
        return self._pool.submit(self._run, partial(work, *arguments, **named))

    def embed(self, loaded: LoadedBackbone, crops: np.ndarray, mirror: np.ndarray) -> np.ndarray:
        """Embed a few crops, one to a pass, and wait for them. See LoadedBackbone.embed."""
        passes = [
            self.submit(loaded.embed, crops[at : at + 1], mirror[at : at + 1])
            for at in range(len(crops))
        ]
        return np.concatenate([done.result() for done in passes])

    def restore(self) -> None:
        """Give torch the number of threads back that it had; the next pass takes it again."""
        if self._threads_before is not None:
            sys.modules["torch"].set_num_threads(self._threads_before)
            self._threads_before = None

    def _run(self, work: Callable[[], Result]) -> Result:
        # A descriptor computes without torch, which takes seconds to load.
        torch = sys.modules.get("torch") if self._cpu else None
        if torch is not None and torch.get_num_threads() != 1:
            torch.set_num_threads(1)
        return work()


class _Pending(NamedTuple):
    batch: Batch
    loaded: LoadedBackbone
    rows: "Future[Rows]"


class PendingBatches:
    """Batches on their way through a backbone, in order; `where` names it and its device."""

    def __init__(self, threads: ForwardThreads, where: str) -> None:
        self._threads = threads
        self._where = where
        self._pending: deque[_Pending] = deque()

    def submit(self, batch: Batch, loaded: LoadedBackbone) -> None:
        """Have a batch computed as soon as a thread is free."""
        rows = self._threads.submit(batch.embed, loaded.embed)
        self._pending.append(_Pending(batch, loaded, rows))

    def results(self, ahead: int = 0) -> Iterator[tuple[Batch, Rows]]:
        """Wait until only `ahead` batches are left; yield the others with their rows.

        Raises:
            InputError: there is no memory for a single crop, or the network fails.
        """
        while len(self._pending) > ahead:
            first = self._pending[0]
            rows = self._rows(first)
            self._pending.popleft()
            yield first.batch, rows

    def results_after_fault(self) -> Iterator[tuple[Batch, Rows]]:
        """Yield what is computed nevertheless of the batches that a fault has left behind."""
        begun = [pending for pending in self._pending if not pending.rows.cancel()]
        self._pending.clear()
        wait([pending.rows for pending in begun])
        for pending in begun:
            if pending.rows.exception() is None:
                yield pending.batch, pending.rows.result()

    @contextmanager
    def explain_faults(self) -> Iterator[None]:
        """Say in one line why a network fails.

        Raises:
            InputError: whatever was raised within the block.
        """
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:_SHOWN]
            raise InputError(
                f"{self._where} cannot embed ({reason}): check its arguments and preprocess in "
                "task.toml, or try the precision fp32 or the device cpu"
            ) from error

    def _rows(self, pending: _Pending) -> Rows:
        with self.explain_faults():
            try:
                return pending.rows.result()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Not even one crop had memory enough, beside those of the other threads.
            wait([other.rows for other in self._pending])
            remedy = "free memory, or choose a smaller backbone"
            with memory_for(f"embedding one crop with {self._where}", remedy):
                return self._threads.submit(pending.batch.embed, pending.loaded.embed).result()
