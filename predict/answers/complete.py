"""The way of a folder of answers from its first unit to its end, whoever answers the units."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from archiveprobe.archive.index import Index
from archiveprobe.archive.units import Share
from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.base.wording import number_of
from archiveprobe.predict.answers.folder import WHAT, AnswersWriter
from archiveprobe.predict.answers.log import finished_parts
from archiveprobe.predict.answers.merge import merge
from archiveprobe.predict.answers.read import count_answers
from archiveprobe.predict.answers.record import AnswersRecord

# What a merge finds damaged is answered again.
_TRIES = 3


def answer_missing(
    folder: Path,
    index: Index,
    record: AnswersRecord,
    share: Share | None,
    drive: Callable[[AnswersWriter], None],
    *,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> AnswersRecord:
    """Let `drive` answer the units that are missing, and end the folder where none is left then.

    Returns the record, with counts where every image is answered and the parts are merged.

    Raises:
        InputError: another process writes, or the disk refuses.
    """
    for _ in range(_TRIES):
        # A share with nothing left to do needs no lock, which who merges may hold.
        if share is None or not _is_done(folder, index):
            with AnswersWriter(folder, index, record, share) as writer:
                for note in writer.notes:
                    notify(note)
                drive(writer)
        if not _is_done(folder, index):
            return record
        ended = _end(folder, record, notify, progress)
        if ended is not None:
            return ended
        # What is damaged is answered again, whosever share it was.
        share = None
    raise InputError(f"parts of {folder} are damaged again and again: check the disk")


def _is_done(folder: Path, index: Index) -> bool:
    return sum(part.units for part in finished_parts(folder)) == index.units


def _end(
    folder: Path, record: AnswersRecord, notify: Notify, progress: Progress
) -> AnswersRecord | None:
    """Merge the parts and count the answers; None where damaged parts had to be dropped."""
    lock = Lock(folder, WHAT)
    try:
        lock.acquire()
    except InputError as error:
        # Of several shares that end together the last one gets the lock.
        notify(f"all is answered, but the parts are not merged yet: {error}")
        return record
    try:
        damaged = merge(folder, record.classes, progress=progress)
        if damaged:
            notify(f"{number_of(len(damaged), 'part')} damaged: answered again")
            return None
        record = replace(record, counts=count_answers(folder))
        record.write(folder)
        return record
    finally:
        lock.release()
