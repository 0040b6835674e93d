"""Answers one unit of an archive: encode, score, write its part.

All drivers call this and nothing else, so an image has the same answer whoever computes it.
"""

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from threadpoolctl import threadpool_limits

from archiveprobe.archive.source import Source
from archiveprobe.archive.units import Receipt, Unit
from archiveprobe.base.errors import InputError
from archiveprobe.base.files import explained
from archiveprobe.base.progress import Notify
from archiveprobe.embed.device import check_device, default_device
from archiveprobe.embed.forward import ForwardThreads
from archiveprobe.embed.prepare import Preparation, PreparedImage
from archiveprobe.embed.unit_encoder import UnitEncoder, key_of_view
from archiveprobe.evaluate.dataset import Rows, load_dataset
from archiveprobe.predict.answers.part import UnitAnswers, write_part
from archiveprobe.predict.content import UnitContent
from archiveprobe.predict.system_digest import system_digest
from archiveprobe.predict.systems import Resources, System, load_system
from archiveprobe.task.config import load_task


@dataclass(frozen=True)
class UnitWork:
    """Names all that a process needs to answer units, wherever it runs; small, can be pickled.

    Parts go into `folder`. Kept embeddings go into the task's caches, for a `share` ("2of4") of
    the work into logs of its own. `digest` is that of the system as it was when the run began; ""
    takes whatever system is there.
    """

    task_file: Path
    system: str
    source: Source
    folder: Path
    device: str | None = None
    batch_size: int | None = None
    keep_embeddings: bool = False
    share: str | None = None
    digest: str = ""

    def open(
        self,
        *,
        passes: int | None = None,
        beside_others: bool = False,
        notify: Notify = lambda _: None,
    ) -> "OpenWork":
        """Load the system; networks are loaded when an image needs them.

        `passes` is how many forward passes run side by side on a CPU; None: one for every core.
        Of several processes that keep embeddings, each says that it is `beside_others`.

        Raises:
            InputError: no such system, one that is out of date, no such device, or backbones that
                compute otherwise here than where the system was trained.
        """
        device = self.device or default_device()
        check_device(device)
        task = load_task(self.task_file)
        if self.digest and system_digest(task, self.system) != self.digest:
            raise InputError(
                f"{self.system} was trained again since this run began: run the same command again"
            )
        system = load_system(load_dataset(task), self.system, Resources(device, 0, notify=notify))
        threads = ForwardThreads(device, passes)
        encoder = UnitEncoder(
            task,
            system.source.caches,
            device=device,
            threads=threads,
            batch_size=self.batch_size,
            looks=system.source.looks,
            keep=self.keep_embeddings,
            share=self.share,
            beside_others=beside_others,
            notify=notify,
        )
        return OpenWork(self, system, encoder, threads)


class OpenWork:
    """A system with its backbones, ready to answer units; a context manager.

    Threads may have units answered side by side.
    """

    def __init__(
        self, work: UnitWork, system: System, encoder: UnitEncoder, threads: ForwardThreads
    ) -> None:
        self._work, self._system, self._encoder, self._threads = work, system, encoder, threads
        self._stack = ExitStack()
        self._backbone = _short_digest([*system.source.caches.values()])

    @property
    def preparation(self) -> Preparation:
        """Return what is to be made of every image before it is answered."""
        return self._encoder.preparation

    def __enter__(self) -> Self:
        self._stack.enter_context(self._encoder)
        self._stack.callback(self._threads.restore)
        # A product of matrices that is cut among threads rounds differently.
        self._stack.enter_context(threadpool_limits(1, "blas"))
        return self

    def __exit__(self, *fault: Any) -> None:
        self._stack.__exit__(*fault)

    def answer(self, unit: Unit, images: Sequence[PreparedImage]) -> Receipt:
        """Encode and score the images of a unit, and write its part.

        Raises:
            InputError: memory runs out, weights do not fit, or the disk takes no more.
        """
        system = self._system
        images = self._encoder.complete(images)
        embeddings = self._encoder.encode(images)
        content = UnitContent(images, self.preparation, embeddings, self._threads)
        rows = _rows(unit, images)
        found = system.answer(rows, content=content)
        classes = system.task.labels
        answers = UnitAnswers(
            digests=[image.digest for image in images],
            status=[
                "bad_embedding" if image.views and not is_known else image.observation.status
                for image, is_known in zip(images, found.readable, strict=True)
            ],
            labels=found.labels(classes),
            classes=classes,
            proba=found.proba,
            spread=self._spread(rows, content),
            backbone=self._backbone,
            system=self._work.digest[:16],
        )
        with explained(f"write answers into {self._work.folder}"):
            return write_part(self._work.folder, unit, answers)

    def _spread(self, rows: Rows, content: UnitContent) -> np.ndarray:
        """Return how far the positive label's probability differs from view to view, (m,).

        It is the standard deviation of what the whole system would say if it saw one view only;
        NaN where there is one view, or backbones look at different ones.
        """
        views, system = len(self._encoder.views), self._system
        if views < 2:
            return np.full(len(rows), np.nan)
        found = system.answer(_split_views(rows, views), content=content.split_views())
        by_view = found.proba[:, system.stored.positive].reshape(len(rows), views)
        return np.asarray(by_view.std(1))


def _rows(unit: Unit, images: Sequence[PreparedImage]) -> Rows:
    return Rows(
        np.array([reference.id for reference in unit.references], np.str_),
        [bytes.fromhex(image.digest) if image.views else None for image in images],
        [None] * len(images),
    )


def _split_views(rows: Rows, views: int) -> Rows:
    keys = [
        key_of_view(key, view) if key is not None else None
        for key in rows.keys
        for view in range(views)
    ]
    return Rows(np.repeat(rows.ids, views), keys, [None] * len(keys))


def _short_digest(digests: Sequence[str]) -> str:
    """Return 16 hexadecimal digits that stand for all of some digests; of one, its first 16."""
    if len(digests) == 1:
        return digests[0][:16]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:16] if digests else ""
