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
from functools import partial
from math import ceil
from typing import NamedTuple, TypeVar, TypeVarTuple

import numpy as np

from archiveprobe.base.cores import usable_cores
from archiveprobe.base.memory import (
    give_back_freed_memory,
    is_out_of_memory,
    keep_freed_memory,
    memory_for,
)
from archiveprobe.base.progress import Notify
from archiveprobe.embed.faults import MEMORY_REMEDY, explain_faults
from archiveprobe.embed.networks import Allocate, LoadedBackbone
from archiveprobe.embed.views import Rendered

Embed = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Rows = list[tuple[bytes, np.ndarray]]
Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class Views(NamedTuple):
    """Distinct views of some images: view v is crop `crop[v]`, mirrored where `mirror[v]`.

    `crops` is (u, size, size, 3) uint8, `mirror` (v,) bool and `crop` (v,) int64: the arguments of
    LoadedBackbone.embed.
    """

    crops: np.ndarray
    mirror: np.ndarray
    crop: np.ndarray

    def part(self, part: slice) -> "Views":
        """Return some of the views, with no more crops than lie between those that they show."""
        crop = self.crop[part]
        first = crop.min()
        return Views(self.crops[first : crop.max() + 1], self.mirror[part], crop - first)


class Batch:
    """Images that a backbone embeds together: every distinct view once, `size` at a time.

    `size` is halved where memory runs out.
    """

    def __init__(self, size: int, notify: Notify) -> None:
        self.size = size
        self._notify = notify
        self._rows: list[tuple[bytes, list[int]]] = []
        self._pixels: list[np.ndarray] = []
        self._mirror: list[bool] = []
        self._crop: list[int] = []
        self._views: Views | None = None

    @property
    def empty(self) -> bool:
        """Return whether there is nothing to embed."""
        return not self._rows

    @property
    def full(self) -> bool:
        """Return whether there are views enough for one forward pass."""
        return len(self._crop) >= self.size

    def has_room(self, rendered: Rendered) -> bool:
        """Return whether one forward pass takes the views of another image, too."""
        return self.empty or len(self._crop) + len(rendered.distinct) <= self.size

    def add(self, key: bytes, rendered: Rendered) -> None:
        """Add the views of one image; not after they were gathered."""
        place = {view: len(self._crop) + at for at, view in enumerate(rendered.distinct)}
        views = zip(rendered.crop, rendered.mirror, strict=True)
        self._rows.append((key, [place[view] for view in views]))
        # An image may have been prepared with crops that only other backbones look at.
        used = sorted({crop for crop, _ in place})
        first = sum(map(len, self._pixels))
        self._crop += [first + used.index(crop) for crop, _ in place]
        self._mirror += [mirrored for _, mirrored in place]
        self._pixels.append(
            rendered.crops if len(used) == len(rendered.crops) else rendered.crops[used]
        )

    def gather(self, allocate: Allocate = np.empty) -> Views:
        """Return the views; their crops are copied once, into the array that `allocate` makes."""
        if self._views is None:
            shape = (sum(map(len, self._pixels)), *self._pixels[0].shape[1:])
            crops = allocate(shape, self._pixels[0].dtype)
            np.concatenate(self._pixels, out=crops)
            self._pixels.clear()
            self._views = Views(crops, np.array(self._mirror), np.array(self._crop))
        return self._views

    def embed(self, embed: Embed) -> Rows:
        """Return (key, (views, *shape) float32) of every image in order.

        `size` is one that fits the device's memory afterwards; what does not fit at 1 is raised.
        """
        if self.empty:
            return []
        embeddings = np.concatenate(list(self._parts(embed, self.gather())))
        return [(key, embeddings[views]) for key, views in self._rows]

    def _parts(self, embed: Embed, views: Views) -> Iterator[np.ndarray]:
        start, count = 0, len(views.crop)
        while start < count:
            left = count - start
            # As few parts as hold what is left, and even ones: 12 are 6 + 6, not 8 + 4.
            part = slice(start, start + ceil(left / ceil(left / self.size)))
            try:
                embeddings = embed(*views.part(part))
            except Exception as error:
                if not is_out_of_memory(error) or self.size == 1:
                    raise
            else:
                start = part.stop
                yield embeddings
                continue
            # Here, since the error holds what the pass had made until its block ends.
            self.size = max(1, self.size // 2)
            self._notify(f"out of memory: batch halved to {self.size}")
            give_back_freed_memory()


class ForwardThreads:
    """The threads that forward passes run in, shared by all backbones of a run.

    `passes` is how many run side by side on a CPU; None: one for every core.
    """

    def __init__(self, device: str, passes: int | None = None) -> None:
        self._cpu = device == "cpu"
        threads = (passes or usable_cores()) if self._cpu else 1
        # One batch more than there are threads is ready, so that no thread ever waits for one.
        self.ahead = threads + 1
        self._pool = ThreadPoolExecutor(threads, "forward")
        self._threads_before: int | None = None
        if self._cpu:
            # Before there is any other thread, which would have an arena of its own.
            keep_freed_memory()

    def submit(
        self, work: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> "Future[Result]":
        """Have something computed as soon as a thread is free."""
        if self._cpu and self._threads_before is None and "torch" in sys.modules:
            # Asked here, since the first pass changes the number that new threads begin with.
            self._threads_before = sys.modules["torch"].get_num_threads()
        return self._pool.submit(self._run, partial(work, *arguments))

    def embed(self, loaded: LoadedBackbone, crops: np.ndarray, mirror: np.ndarray) -> np.ndarray:
        """Embed a few crops, one to a pass, and wait for them. See LoadedBackbone.embed."""
        passes = [
            self.submit(loaded.embed, crops[at : at + 1], mirror[at : at + 1])
            for at in range(len(crops))
        ]
        return np.concatenate([done.result() for done in passes])

    def together(self, loaded: LoadedBackbone, crops: np.ndarray, mirror: np.ndarray) -> np.ndarray:
        """Embed a few crops in one pass, and wait for it. See LoadedBackbone.embed."""
        return self.submit(loaded.embed, crops, mirror).result()

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
        """Gather a batch, and have it computed as soon as a thread is free.

        Raises:
            InputError: there is no memory to gather it in.
        """
        # Here, so that the threads do nothing but compute.
        with memory_for(f"gathering a batch for {self._where}", "choose a smaller --batch-size"):
            batch.gather(loaded.allocate)
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

    def _rows(self, pending: _Pending) -> Rows:
        with explain_faults(self._where):
            try:
                return pending.rows.result()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Not even one crop had memory enough, beside those of the other threads.
            wait([other.rows for other in self._pending])
            with memory_for(f"embedding one crop with {self._where}", MEMORY_REMEDY):
                return self._threads.submit(pending.batch.embed, pending.loaded.embed).result()
