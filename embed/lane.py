"""Where forward passes run: one at a time on a GPU, on a CPU side by side, one thread each.

A CPU's cores could also share every pass, as torch does by itself; then its threads meet after each
layer, and as soon as another process has one of the cores all of them wait, dozens of times a pass,
for a thread that the scheduler has put aside. Passes of one thread each wait for nothing; smaller
batches also stay longer in a core's own memory (see LOG.md).
"""

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

import numpy as np

from archiveprobe.base.cores import usable_cores
from archiveprobe.base.memory import keep_freed_memory
from archiveprobe.embed.encoder import Encoder

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Lane:
    """The threads that forward passes run in, shared by all backbones of a run."""

    def __init__(self, device: str) -> None:
        self._cpu = device == "cpu"
        threads = usable_cores() if self._cpu else 1
        # One batch more than there are threads waits on a CPU, so that none of them ever does. On a
        # GPU the next one is gathered meanwhile, which is enough.
        self.ahead = threads + 1 if self._cpu else 1
        self._pool = ThreadPoolExecutor(threads, "forward")
        self._threads_before: int | None = None
        if self._cpu:
            # Before any other thread is there, which would have an arena of its own.
            keep_freed_memory()

    def submit(
        self, work: Callable[Given, Result], *given: Given.args, **named: Given.kwargs
    ) -> Future[Result]:
        """Have something computed as soon as a thread is free."""
        if self._cpu and self._threads_before is None and "torch" in sys.modules:
            # Asked here, since the first pass changes the number that new threads begin with.
            self._threads_before = sys.modules["torch"].get_num_threads()
        return self._pool.submit(self._run, partial(work, *given, **named))

    def encode(self, encoder: Encoder, crops: np.ndarray, mirror: np.ndarray) -> np.ndarray:
        """Embed a few crops, one to a pass, and wait for them. See Encoder.encode."""
        parts = [
            self.submit(encoder.encode, crops[at : at + 1], mirror[at : at + 1])
            for at in range(len(crops))
        ]
        return np.concatenate([part.result() for part in parts])

    def rest(self) -> None:
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
