"""One writer of a folder of answers: what is done, what is missing, and what has to be mended."""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from archiveprobe.archive.index import Index
from archiveprobe.archive.units import Receipt, Share
from archiveprobe.base import files
from archiveprobe.base.lock import Lock
from archiveprobe.base.wording import number_of
from archiveprobe.predict.answers import log
from archiveprobe.predict.answers.layout import PARTS
from archiveprobe.predict.answers.part import part_name, read_part
from archiveprobe.predict.answers.record import AnswersRecord

WHAT = "the answers in"
_PART_NAME = re.compile(r"[0-9]{8,}(-[0-9]{8,})?\.parquet", re.ASCII)


class AnswersWriter:
    """One writer of a folder of answers whose record and index exist; a context manager.

    Without a `share` it is the only one; shares write side by side, each once.
    """

    def __init__(self, folder: Path, index: Index, record: AnswersRecord, share: Share | None):
        self.folder, self.parts = folder, folder / PARTS
        self.notes: list[str] = []
        """What had to be mended, a sentence each."""
        self._index, self._record, self._share = index, record, share
        name = None if share is None else str(share)
        self._lock = Lock(folder, WHAT, name)
        self._log = self.parts / log.log_name(share)
        self._done = bytearray(index.units)

    def __enter__(self) -> Self:
        """Take the lock and mend what a fault has left.

        Raises:
            InputError: another process writes, or the disk refuses.
        """
        self._lock.acquire()
        try:
            with files.explained(f"resume the answers in {self.folder}"):
                self._resume()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    @property
    def done(self) -> int:
        """Count the units that are done, by whomever."""
        return sum(self._done)

    def missing(self) -> list[int]:
        """Return the numbers of the share's units that are not done."""
        return [unit for unit in self._index.units_of(self._share) if not self._done[unit]]

    def commit(self, receipt: Receipt) -> None:
        """Count a unit as done; a second receipt of it changes nothing. Raises InputError."""
        if self._done[receipt.unit]:
            return
        with files.explained(f"write to the answers in {self.folder}"):
            log.append_part(self._log, log.Part.of(receipt))
        self._done[receipt.unit] = True

    def _resume(self) -> None:
        files.make_folder(self.parts)
        if self._share is None:
            files.drop_temporaries(self.parts)
        own = log.log_files(self.parts) if self._share is None else [self._log]
        # What a killed writer had not come to sync is counted as done from here on.
        for path in own:
            with suppress(FileNotFoundError):
                files.fsync(path)
        files.fsync(self.parts)
        # Temporaries of other shares come and go meanwhile.
        sizes = {
            entry.name: entry.stat().st_size
            for entry in os.scandir(self.parts)
            if _PART_NAME.fullmatch(entry.name)
        }
        self._mend(own, sizes)
        for part in log.finished_parts(self.folder):
            for unit in part.numbers[: len(self._done) - part.unit]:
                self._done[unit] = True
        for unit in self.missing():
            if part_name(unit) in sizes:
                self._adopt(unit)
        if self._share is None:
            self._remove_strays(sizes)

    def _mend(self, logs: Sequence[Path], sizes: dict[str, int]) -> None:
        """Leave out lines that are damaged, or whose part is not what they say."""
        said, named = set[str](), set[str]()
        for path in logs:
            read = log.read_log(path)
            kept = [part for part in read.parts if sizes.get(part.file) == part.bytes]
            if read.damaged or len(kept) < len(read.parts):
                files.write_whole(path, b"".join(map(log.format_part, kept)))
            said |= {part.file for part in read.parts}
            named |= {part.file for part in kept}
        if lost := said - named:
            self.notes.append(
                f"{number_of(len(lost), 'part')} gone or cut short: their images are answered again"
            )

    def _remove_strays(self, sizes: dict[str, int]) -> None:
        """Remove parts that no log names: other programs would read their images twice."""
        named = {part.file for part in log.finished_parts(self.folder)}
        for name in sizes:
            if name not in named:
                files.remove(self.parts / name)

    def _adopt(self, number: int) -> None:
        """Count the part of a unit as done where it is sound, and remove it otherwise."""
        path = self.parts / part_name(number)
        unit = self._index.unit(number)
        receipt = read_part(path, unit, self._record.classes, self._record.short)
        if receipt is None:
            files.remove(path)
        else:
            self.commit(receipt)
