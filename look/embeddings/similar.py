"""Neighbours and words on demand, for the server: embeddings are read when first asked for."""

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from archiveprobe.api.state import Pinned, pin
from archiveprobe.base.errors import InputError
from archiveprobe.embed.words import check_comparable, vector_of_words
from archiveprobe.evaluate.cosines import nearest_of_one, scale_to_unit, similarities
from archiveprobe.look.embeddings.matrix import read_embeddings, standing_caches
from archiveprobe.task.config import Task
from archiveprobe.task.snapshot import Snapshot, digest_of_words, snapshot_digest

if TYPE_CHECKING:
    from archiveprobe.embed.text_tower import TextNetwork

NEIGHBOURS = 24


def rows_digest(pinned: Pinned) -> str:
    """Digest which image every row has, and the caches in use; corrections do not change it."""
    cells = [cell for entry in pinned.entries for cell in (entry.id, entry.digest)]
    return snapshot_digest({"rows": digest_of_words(*cells)}, pinned.snapshot.in_use)


class Similar:
    """Answers for the embeddings of a page by their numbers; several threads may ask.

    `rows` and `embeddings` are those of the page's `meta`.
    """

    def __init__(
        self, task: Task, rows: str, embeddings: list[str], *, partial: bool = False
    ) -> None:
        self._task, self._asked, self._partial = task, rows, partial
        self._names = embeddings
        self._towers: dict[str, TextNetwork] = {}
        self._lock = threading.Lock()

    def neighbours(self, number: int, position: int) -> list[tuple[int, float]]:
        """Return the nearest rows of a row, each with its cosine, the nearest first.

        Raises:
            InputError: the task is another than on the page, or a cache is damaged.
        """
        return nearest_of_one(self._read(number), position, NEIGHBOURS)

    def search(self, number: int, words: str) -> np.ndarray:
        """Return the cosine (n,) float32 of every row with words, NaN where there is no image.

        Raises:
            InputError: the backbone embeds no words, or not here; else as `neighbours`.
        """
        units, name = self._read(number), self._names[number]
        with self._lock:
            vector = vector_of_words(
                self._task,
                self._loaded.snapshot,
                name,
                words,
                self._towers,
                partial=self._partial,
            )
        check_comparable(name, vector, units.shape[1])
        return similarities(units, vector)

    def _read(self, number: int) -> np.ndarray:
        with self._lock:
            found = self._loaded.units[self._names[number]]
        if isinstance(found, InputError):
            raise found
        return found

    @cached_property
    def _loaded(self) -> "_Loaded":
        """Read all embeddings at once: what the rows take in memory is free again afterwards."""
        task = self._task
        pinned = pin(task, partial=self._partial, notify=lambda _: None)
        rows = pinned.keyed
        if rows_digest(pinned) != self._asked:
            raise InputError(
                f"{task.file} has changed since this page was made: run "
                f"`archiveprobe look {task.shell_path}` again"
            )
        readers, gone = standing_caches(pinned, rows)
        lost = InputError("; ".join(f"{gap.what}: run `{gap.command}`" for gap in gone))
        units: dict[str, np.ndarray | InputError] = dict.fromkeys(self._names, lost)
        for name in set(self._names) & readers.keys():
            try:
                matrix = read_embeddings(task, rows, name, readers[name])
                scale_to_unit(matrix)
                units[name] = matrix
            except InputError as error:
                units[name] = error
        return _Loaded(pinned.snapshot, units)


@dataclass(frozen=True)
class _Loaded:
    """What `embed` left, and unit embeddings (n, d) by backbone, or why there are none."""

    snapshot: Snapshot
    units: dict[str, np.ndarray | InputError]
