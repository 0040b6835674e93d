"""Answers for an archive: every image of a source, into a folder of parts."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from archiveprobe.archive.index import Index, write_index
from archiveprobe.archive.source import Source
from archiveprobe.archive.units import Receipt, Share, images_per_unit
from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import is_locked, wait_for_lock
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.embed.shared_memory import slot_bytes
from archiveprobe.evaluate.dataset import Dataset, load_dataset
from archiveprobe.predict.answers.complete import answer_missing
from archiveprobe.predict.answers.folder import AnswersWriter
from archiveprobe.predict.answers.layout import INDEX, PARTS, check_place
from archiveprobe.predict.answers.log import finished_parts
from archiveprobe.predict.answers.merge import mend_merge
from archiveprobe.predict.answers.record import AnswersRecord
from archiveprobe.predict.checks import check_reproduces
from archiveprobe.predict.images import Predicted
from archiveprobe.predict.system_digest import system_digest
from archiveprobe.predict.systems import Resources, System, load_system
from archiveprobe.predict.units import UnitWork
from archiveprobe.task.config import Task

# Held while the images are listed: of several shares that start, one does it.
_LISTING = "LOCK-listing"
# Below this nobody thinks of shares.
_FEW_UNITS = 16


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


@dataclass(frozen=True, kw_only=True)
class ArchiveAnswers(Predicted):
    """Holds what became of an archive of `images`, of which `rows` are answered by now."""

    images: int

    @property
    def complete(self) -> bool:
        """Return whether every image is answered."""
        return self.rows == self.images

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        record = {**super().record(), "images": self.images, "complete": self.complete}
        # They are counted when all is there.
        return record if self.complete else {**record, "unreadable": None}

    def summary(self) -> str:
        """Return what was written, in a sentence."""
        if self.complete:
            return super().summary()
        done = f"{self.rows} of {self.images} images by {self.system} in {self.file}"
        return f"{done} ({self.rows / self.images:.0%}); the other shares are not at their end"


def predict_folder(
    task: Task,
    system: str,
    source: Source,
    out: Path,
    how: How | None = None,
    *,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> ArchiveAnswers:
    """Answer every image of a source, into a folder of parts.

    Killed, the same command goes on. With a share, only its units are answered; whoever finishes
    last merges the parts.

    Raises:
        InputError: no such system or a stale one, no images, backbones that compute otherwise
            here than where the system was trained, a folder of other answers, another process that
            writes there, or a disk that refuses.
    """
    folder = Path(os.path.realpath(out))
    if folder.is_relative_to(os.path.realpath(task.work)):
        raise InputError(
            f"{out} is in {task.work}, where only products of the task lie: name another with -o"
        )
    archive = Archive(task, system, source, folder, how or How(), notify, progress)
    return archive.answered(out)


@dataclass(frozen=True)
class Archive:
    """An archive that a system answers into a folder."""

    task: Task
    system: str
    source: Source
    folder: Path
    how: How
    notify: Notify
    progress: Progress

    def answered(self, named: Path) -> ArchiveAnswers:
        """Answer what is missing, as far as it is this run's to do; `named` is for messages."""
        started = time.monotonic()
        check_place(self.folder)
        _check_apart(self.task, self.source)
        dataset = load_dataset(self.task)
        for remark in dataset.corrections.remarks():
            self.notify(remark)
        system = load_system(dataset, self.system, Resources(self.how.device, self.how.workers))
        work = self._work()
        record, index = self._opened(dataset, system, work)
        if record.counts is None:
            record = answer_missing(
                self.folder,
                index,
                record,
                self.how.share,
                partial(self._drive, work, index),
                notify=self.notify,
                progress=self.progress,
            )
        else:
            self.notify(f"all of it is answered already (images listed {record.listed})")
        done = sum(part.rows for part in finished_parts(self.folder))
        counts = record.counts
        status = {} if counts is None else dict(counts.status)
        labels = {} if counts is None else dict(counts.labels)
        return ArchiveAnswers(
            file=named,
            system=self.system,
            rows=done,
            unreadable=done - sum(labels.values()) if counts else 0,
            copy=None,
            seconds=time.monotonic() - started,
            snapshot=record.snapshot,
            notes=[],
            status=status,
            labels=labels,
            images=record.images,
        )

    def _work(self) -> UnitWork:
        how = self.how
        return UnitWork(
            task_file=Path(os.path.realpath(self.task.file)),
            system=self.system,
            source=self.source,
            folder=self.folder / PARTS,
            device=how.device,
            batch_size=how.batch_size,
            keep_embeddings=how.keep_embeddings,
            share=None if how.share is None else str(how.share),
            digest=system_digest(self.task, self.system),
        )

    def _opened(
        self, dataset: Dataset, system: System, work: UnitWork
    ) -> tuple[AnswersRecord, Index]:
        """Return the folder's record and index, made where there are none."""
        stored = AnswersRecord.read(self.folder)
        if stored is None:
            check_reproduces(system, dataset)
            # What cannot be computed here is refused before anything is written.
            # Whoever answers opens the work again, and is told then what there is to know of it.
            with work.open() as opened:
                unit_images = images_per_unit(slot_bytes(opened.preparation))
        else:
            unit_images = stored.unit_images
        with files.explained(f"write {self.folder}"):
            files.make_folder(self.folder)
            if is_locked(self.folder, _LISTING):
                self.notify("another process lists the images: waiting for it")
            with wait_for_lock(self.folder, _LISTING):
                mend_merge(self.folder)
                stored = AnswersRecord.read(self.folder)
                if stored is None:
                    stored = self._made(dataset, system, work, unit_images)
        stored.check_same(
            self.folder,
            task=self.task.name,
            system=self.system,
            system_digest=work.digest,
            source=self.source.identity(),
        )
        index = Index.open(self.folder / INDEX)
        if index.digest != stored.index:
            raise InputError(
                f"{index.file} is not the list that answers.json names: name another folder with "
                "-o, or delete that one"
            )
        return stored, index

    def _made(
        self, dataset: Dataset, system: System, work: UnitWork, unit_images: int
    ) -> AnswersRecord:
        """List the images and write the record; a fault leaves an empty folder at most."""
        if (self.folder / PARTS).exists():
            raise InputError(
                f"{self.folder} has parts but no answers.json, so nobody knows whose they are: "
                "bring it back, or name another folder with -o"
            )
        files.remove(self.folder / INDEX)
        try:
            index = write_index(
                self.source,
                self.folder / INDEX,
                unit_images,
                notify=self.notify,
                progress=self.progress,
            )
        except BaseException:
            files.discard(self.folder / _LISTING)
            with suppress(OSError):
                files.remove_folder(self.folder)
            raise
        if index.units > _FEW_UNITS:
            units = f"{index.units} units of at most {unit_images}"
            self.notify(f"{index.images} images in {units}")
        record = AnswersRecord(
            task=self.task.name,
            system=self.system,
            system_digest=work.digest,
            snapshot=dataset.snapshot_digest,
            classes=dataset.classes,
            positive=system.stored.positive,
            backbones=dict(system.source.caches),
            source=self.source.identity(),
            index=index.digest,
            images=index.images,
            unit_images=unit_images,
            listed=datetime.now(UTC).isoformat(" ", "minutes"),
            versions={name: version(name) for name in ("archiveprobe", "pyarrow")},
        )
        record.write(self.folder)
        return record

    def _drive(self, work: UnitWork, index: Index, writer: AnswersWriter) -> None:
        todo = writer.missing()
        if not todo:
            return
        if len(todo) < index.units:
            done = f"{writer.done} of {index.units} units are done, " if writer.done else ""
            self.notify(f"{done}{len(todo)} to answer now")
        module = import_module(f"archiveprobe.predict.drivers.{self.how.engine}")
        run: Driver = module.run
        run(
            work,
            index,
            todo,
            writer.commit,
            workers=self.how.workers,
            notify=self.notify,
            progress=self.progress,
        )


def _check_apart(task: Task, source: Source) -> None:
    """Refuse a folder of images in which the task's own thumbnails lie."""
    about = source.identity()
    if about["kind"] == "folder" and task.work.resolve().is_relative_to(about["place"]):
        raise InputError(
            f"{source.name} holds the task's own work folder: name the folder of the new images "
            "only"
        )
