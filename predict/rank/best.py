"""The best of any number of images, in memory for those only."""

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

from archiveprobe.predict.rank.candidates import Candidates


@dataclass
class Ranked:
    """An image and its score; `copies` counts it and the files equal to it."""

    id: str
    digest: str
    label: str | None
    proba: np.ndarray
    score: float
    copies: int = 1


class Best:
    """Keeps the `count` images of the highest scores; of equal scores those that came first.

    With `collapse` equal files are one image. Their embeddings are the same and so are their
    scores. A file that was once too low stays so, since the lowest score kept only grows: that is
    why all copies of what is kept at the end are counted.
    """

    def __init__(self, count: int, *, collapse: bool) -> None:
        self._count, self._collapse = count, collapse
        # The heap orders by score and, of equal ones, has the last that came on top.
        self._heap: list[tuple[float, int, Any, Ranked]] = []
        self._kept: dict[Any, Ranked] = {}
        self._arrived = 0

    def add(self, block: Candidates, scores: np.ndarray) -> None:
        """Take the best of a block by its scores (n,), NaN for what has none."""
        full = len(self._heap) == self._count
        lowest = self._heap[0][0] if full else -np.inf
        for at in np.flatnonzero(scores >= lowest):
            self._add(block, int(at), float(scores[at]))

    def _add(self, block: Candidates, at: int, score: float) -> None:
        digest = block.digests[at]
        key = digest if self._collapse and digest else self._arrived
        self._arrived += 1
        if key in self._kept:
            self._kept[key].copies += 1
            return
        full = len(self._heap) == self._count
        if full and score <= self._heap[0][0]:
            return
        image = Ranked(block.ids[at], digest, block.labels[at], block.proba[at], score)
        line = (score, -self._arrived, key, image)
        if full:
            del self._kept[heapq.heapreplace(self._heap, line)[2]]
        else:
            heapq.heappush(self._heap, line)
        self._kept[key] = image

    def ranked(self) -> list[Ranked]:
        """Return what was kept, the highest score first."""
        return [image for *_, image in sorted(self._heap, key=lambda line: line[:2])[::-1]]
