"""Neighbours and words on demand, for the server: embeddings are read when first asked for."""

import threading
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from archiveprobe.api.state import Pinned, pin
from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import Rows
from archiveprobe.look.embeddings import read_embeddings, scale_to_unit, standing_caches
from archiveprobe.look.neighbours import nearest_of_one, similarities
from archiveprobe.look.words import embed_words, load_tower, stored_texts, tower_of
from archiveprobe.task.config import Task
from archiveprobe.task.snapshot import digest_of_words, snapshot_digest

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
        self._units: dict[int, np.ndarray] = {}
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
        tower = tower_of(self._task, name)
        if tower is None:
            raise InputError(f"{name} embeds no words: choose a CLIP among embed.backbones")
        with self._lock:
            vector = self._stored(name, words)
            if vector is None:
                if name not in self._towers:
                    self._towers[name] = load_tower(tower)
                vector = embed_words(self._towers[name], words)
        if vector.shape != units.shape[1:]:
            raise InputError(
                f"{name} embeds words in {len(vector)} numbers and images in {units.shape[1]}: "
                "they cannot be compared"
            )
        return similarities(units, vector)

    def _stored(self, name: str, words: str) -> np.ndarray | None:
        """Return the vector of words that are a prompt or a caption; None for others."""
        pinned = self._pinned
        try:
            vector = stored_texts(
                self._task, pinned.snapshot, name, [words], partial=pinned.partial is not None
            )[0]
        except InputError:
            return None
        return vector if np.isfinite(vector).all() else None

    def _read(self, number: int) -> np.ndarray:
        with self._lock:
            if number not in self._units:
                pinned, name = self._pinned, self._names[number]
                readers, gone = standing_caches(pinned, self._rows)
                if name not in readers:
                    raise InputError("; ".join(f"{gap.what}: {gap.command}" for gap in gone))
                matrix = read_embeddings(self._task, self._rows, name, readers[name])
                scale_to_unit(matrix)
                self._units[number] = matrix
            return self._units[number]

    @cached_property
    def _pinned(self) -> Pinned:
        pinned = pin(self._task, partial=self._partial, notify=lambda _: None)
        if rows_digest(pinned) != self._asked:
            raise InputError(
                f"{self._task.file} has changed since this page was made: run "
                f"`archiveprobe look {self._task.file}` again"
            )
        return pinned

    @cached_property
    def _rows(self) -> Rows:
        return self._pinned.keyed
