"""Collecting the views of many images into batches, equal pixels once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np

from archiveprobe.base.memory import is_out_of_memory
from archiveprobe.embed.views import Rendered

Encode = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class _Waiting:
    key: bytes
    rendered: Rendered

    @property
    def looks(self) -> list[tuple[int, bool]]:
        """(crop, mirrored) of every view."""
        return list(zip(self.rendered.crop, self.rendered.mirror, strict=True))


class Batches:
    """A queue of rendered images in front of an encoder's forward passes."""

    def __init__(self, size: int, notify: Callable[[str], None]) -> None:
        self.size = size
        self._notify = notify
        self._waiting: list[_Waiting] = []
        self._passes = 0

    @property
    def full(self) -> bool:
        """Whether at least one whole batch of distinct crops waits."""
        return self._passes >= self.size

    @property
    def waiting(self) -> bool:
        """Whether anything is queued."""
        return bool(self._waiting)

    def push(self, key: bytes, rendered: Rendered) -> None:
        """Queue the views of one image."""
        one = _Waiting(key, rendered)
        self._waiting.append(one)
        self._passes += len(set(one.looks))

    def crops(self) -> tuple[np.ndarray, np.ndarray]:
        """The distinct crops that wait: (b, size, size, 3) uint8, and (b,) whether mirrored."""
        looks = [(one, look) for one in self._waiting for look in dict.fromkeys(one.looks)]
        crops = np.stack([one.rendered.crops[at] for one, (at, _) in looks])
        return crops, np.array([mirrored for _, (_, mirrored) in looks])

    def take(self) -> "Batches":
        """What waits, as a queue of its own; this one is empty afterwards."""
        taken = Batches(self.size, self._notify)
        taken._waiting, taken._passes = self._waiting, self._passes
        self._waiting, self._passes = [], 0
        return taken

    def drain(self, encode: Encode) -> Iterator[tuple[bytes, np.ndarray]]:
        """Embed what waits: (key, (views, *shape) float32) of every image in order."""
        if not self._waiting:
            return
        embeddings = self._encode(encode, *self.crops())
        waiting, self._waiting, self._passes = self._waiting, [], 0
        start = 0
        for one in waiting:
            place = {look: start + at for at, look in enumerate(dict.fromkeys(one.looks))}
            yield one.key, embeddings[[place[look] for look in one.looks]]
            start += len(place)

    def _encode(self, encode: Encode, crops: np.ndarray, mirror: np.ndarray) -> np.ndarray:
        start, parts = 0, []
        while start < len(crops):
            part = slice(start, start + self._even(len(crops) - start))
            try:
                parts.append(encode(crops[part], mirror[part]))
            except Exception as error:
                if not is_out_of_memory(error) or self.size == 1:
                    raise
                self.size = max(1, self.size // 2)
                self._notify(f"out of memory: batch halved to {self.size}")
                continue
            start = part.stop
        return np.concatenate(parts)

    def _even(self, count: int) -> int:
        """The size of the next of as few parts as hold `count` crops: 12 are 6 + 6, not 8 + 4."""
        return ceil(count / ceil(count / self.size))
