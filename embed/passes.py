"""The batches of one backbone that are being computed, and what becomes of those that fail."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import is_out_of_memory, memory_for
from archiveprobe.embed.batches import Batches
from archiveprobe.embed.encoder import Encoder
from archiveprobe.embed.lane import Lane

# Characters of a library's own words.
_SHOWN = 200

Rows = list[tuple[bytes, np.ndarray]]


class _Pass(NamedTuple):
    batch: Batches
    encoder: Encoder
    rows: Future[Rows]


class Passes:
    """Batches on their way through an encoder, in order; `where` names it and its device."""

    def __init__(self, lane: Lane, where: str) -> None:
        self._lane = lane
        self._where = where
        self._begun: deque[_Pass] = deque()

    def begin(self, batch: Batches, encoder: Encoder) -> None:
        """Have a batch computed as soon as a thread is free."""
        rows = self._lane.submit(_embeddings, batch, encoder)
        self._begun.append(_Pass(batch, encoder, rows))

    def done(self, ahead: int = 0) -> Iterator[tuple[Batches, Rows]]:
        """Wait until only `ahead` batches are being computed: the others, with their rows.

        Raises:
            InputError: there is no memory for a single crop, or the network fails.
        """
        while len(self._begun) > ahead:
            first = self._begun[0]
            rows = self._rows(first)
            self._begun.popleft()
            yield first.batch, rows

    def settle(self) -> Iterator[tuple[Batches, Rows]]:
        """Wait for batches that a fault has left behind: those that are computed nevertheless."""
        begun = [one for one in self._begun if not one.rows.cancel()]
        self._begun.clear()
        wait([one.rows for one in begun])
        for one in begun:
            if one.rows.exception() is None:
                yield one.batch, one.rows.result()

    @contextmanager
    def faults_told(self) -> Iterator[None]:
        """Tell in one line why a network fails.

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
                "task.toml, or try --precision fp32 or --device cpu; --debug shows more"
            ) from error

    def _rows(self, one: _Pass) -> Rows:
        with self.faults_told():
            try:
                return one.rows.result()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Not even one crop had memory enough, beside those of the other threads.
            wait([other.rows for other in self._begun])
            remedy = "free memory, or choose a smaller backbone"
            with memory_for(f"embedding one crop with {self._where}", remedy):
                return self._lane.submit(_embeddings, one.batch, one.encoder).result()


def _embeddings(batch: Batches, encoder: Encoder) -> Rows:
    """The rows of a batch, whose size is one that fits the device's memory afterwards."""
    return list(batch.drain(encoder.encode))
