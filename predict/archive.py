"""Answers for an archive: the images of a source, into a folder of parts, in shares or at once."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from archiveprobe.archive.index import Index, write_index
from archiveprobe.archive.source import Source
from archiveprobe.archive.units import Receipt, Share, images_per_unit
from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock, wait_for_lock
from archiveprobe.base.progress import Progress, silent
from archiveprobe.base.wording import number_of
from archiveprobe.embed.fingerprint import versions
from archiveprobe.embed.shared_memory import slot_bytes
from archiveprobe.evaluate.dataset import Dataset, load_dataset
from archiveprobe.predict.answers.folder import AnswersWriter
from archiveprobe.predict.answers.layout import INDEX, PARTS, check_place
from archiveprobe.predict.answers.merge import finish_merge, is_interrupted, merge
from archiveprobe.predict.answers.read import count_answers
from archiveprobe.predict.answers.record import AnswersRecord, Counts
from archiveprobe.predict.checks import check_reproduces
from archiveprobe.predict.columns import USABLE
from archiveprobe.predict.system_digest import system_digest
from archiveprobe.predict.systems import Resources, System, load_system
from archiveprobe.predict.units import UnitWork
from archiveprobe.task.config import Task

Notify = Callable[[str], None]
ENGINES = ("local", "ray")
_CREATION = "LOCK-record"
# What a merge finds damaged is answered again, once or twice.
_TRIES = 3


class Driver(Protocol):
    """Has units answered; `commit` gets a receipt as each is on disk."""

    def __call__(
        self,
        work: UnitWork,
        index: Index,
        todo: Iterable[int],
        commit: Callable[[Receipt], None],
        *,
        workers: int | None,
        notify: Notify,
        progress: Progress,
    ) -> None:
        """Answer the units in `todo`. Raises InputError."""
        ...


@dataclass(frozen=True)
class How:
    """Says how an archive is answered; None leaves a choice to the machine."""

    device: str | None = None
    batch_size: int | None = None
    workers: int | None = None
    engine: str = "local"
    share: Share | None = None
    keep_embeddings: bool = False
