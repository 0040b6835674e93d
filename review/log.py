"""The log of a review: lines that are only ever added, each chained to the one before it.

    {"sha256": "<of the rest of the line>", "previous": "<SHA-256 of the line before>", "kind": ...}

A line is one JSON object. `sha256` is over all that follows it in the line, so that a changed line
names itself. `previous` is over the whole line before, without its newline, as `sha256sum` gives it
(64 zeros in the first line), so that none can be changed with its digest, taken out, put in or
moved. Who keeps the digest of the last line, as a certificate does, proves all of them.

Lines that were added together say so, `"batch": [1, 3]` in the first of three: they count together
or not at all. What a killed writer leaves, a batch that is not whole or a line without its newline,
never counted, and goes when the next line is added, which a line of the kind `mended` says.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import RLock
from typing import Any

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import NAME as LOCK
from archiveprobe.base.lock import wait_for_lock
from archiveprobe.base.reading import PRODUCT_BYTES, read_ordinary
from archiveprobe.review.lines import fault_of

FILE = "log.jsonl"
FIRST = "0" * 64
_BEGIN, _BETWEEN = b'{"sha256": "', b'", '
_REST = len(_BEGIN) + 64 + len(_BETWEEN)


@dataclass(frozen=True)
class Line:
    """A line that was proved: its number from 1, its kind, time and content, and its SHA-256.

    `batch` is its place, from 1, among the lines that were added together, and how many they are.
    """

    number: int
    kind: str
    time: str
    content: Mapping[str, Any]
    digest: str
    batch: tuple[int, int] = (1, 1)


class ReviewLog:
    """The log of the review in a folder; several threads or processes may add to it.

    Lines that were read once are kept: `refresh` reads and proves what came since.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / FILE
        self.lines: list[Line] = []
        self._read = 0
        # The lock of the folder keeps processes apart, this one the threads of ours.
        self._mutex, self._is_locked = RLock(), False

    @property
    def head(self) -> str:
        """Return the SHA-256 of the last line that was read."""
        return self.lines[-1].digest if self.lines else FIRST

    def refresh(self) -> list[Line]:
        """Read the lines that came since the last call, whole batches only, and return those.

        Raises:
            InputError: the first line that was changed, or that is none of ours, is named.
        """
        with self._mutex:
            count = len(self.lines)
            *whole, _ = self._unread().split(b"\n")
            batch: list[Line] = []
            size = 0
            for raw in whole:
                batch.append(self._prove(raw, batch))
                size += len(raw) + 1
                at, of = batch[-1].batch
                if at == of:
                    self.lines += batch
                    self._read += size
                    batch, size = [], 0
            return self.lines[count:]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other writers out, with every line read that they have added; may be nested.

        Raises:
            InputError: see `refresh`; or the folder cannot be written.
        """
        with self._mutex:
            if self._is_locked:
                yield
                return
            with files.explained(f"write {self.folder}"):
                files.make_folder(self.folder)
                lock = wait_for_lock(self.folder, LOCK)
                lock.__enter__()
            try:
                self._is_locked = True
                self.refresh()
                yield
            finally:
                self._is_locked = False
                lock.__exit__(None, None, None)

    def append(self, kind: str, contents: Sequence[Mapping[str, Any]]) -> list[Line]:
        """Add a line for each of `contents`, all or none of them, durable on return.

        Raises:
            InputError: see `refresh`; or the disk refuses.
        """
        with self.locked():
            self._mend()
            return self._append(kind, contents)

    def refusal(self, number: int, fault: str) -> InputError:
        """Return the error of a line whose digests are right and that is none of ours."""
        return InputError(
            f"{self.file}: line {number} is none that archiveprobe has written: {fault}: {_REMEDY}"
        )

    def _append(self, kind: str, contents: Sequence[Mapping[str, Any]]) -> list[Line]:
        time, of = now(), len(contents)
        previous, added = self.head, bytearray()
        for at, content in enumerate(contents, 1):
            whole = {**content, "batch": [at, of]} if of > 1 else content
            fault = fault_of({"previous": previous, "kind": kind, "time": time, **whole})
            if fault is not None:
                raise ValueError(f"nobody could read this line ({kind}): {fault}")
            line = format_line(previous, kind, time, whole)
            previous = hashlib.sha256(line).hexdigest()
            added += line + b"\n"
        if added:
            with files.explained(f"write {self.file}"):
                files.append_durable(self.file, bytes(added))
        return self.refresh()

    def _mend(self) -> None:
        """Take away what a killed writer left of a line or a batch, and say so in the log."""
        left = self._unread()
        if left:
            with files.explained(f"write {self.file}"):
                files.shorten(self.file, self._read)
            lines = left.count(b"\n") + (not left.endswith(b"\n"))
            self._append("mended", [{"bytes": len(left), "lines": lines}])

    def _unread(self) -> bytes:
        """Read what was not read yet. Raises InputError."""
        try:
            if not self._read:
                return read_ordinary(self.file, PRODUCT_BYTES)
            with self.file.open("rb") as stream:
                stream.seek(self._read - 1)
                end, rest = stream.read(1), stream.read()
        except FileNotFoundError:
            end, rest = b"", b""
        except OSError as error:
            raise InputError(f"cannot read {self.file}: {error.strerror or error}") from None
        if self._read and end != b"\n":
            raise InputError(f"{self.file} was changed since it was read: {_REMEDY}")
        return rest

    def _prove(self, line: bytes, batch: Sequence[Line]) -> Line:
        """Read the line after those of a batch that is not whole yet.

        Raises:
            InputError: it, or the one before, is not what was written, or none of ours.
        """
        number = len(self.lines) + len(batch) + 1
        claimed, rest = line[len(_BEGIN) : len(_BEGIN) + 64], line[_REST:]
        frame = line.startswith(_BEGIN) and line[len(_BEGIN) + 64 : _REST] == _BETWEEN
        if not frame or claimed != hashlib.sha256(rest).hexdigest().encode():
            raise InputError(f"{self.file}: line {number} was changed: {_REMEDY}")
        try:
            content = json.loads(b"{" + rest)
        except (ValueError, RecursionError):
            raise self.refusal(number, "it is no JSON object, or nested too deep") from None
        fault = fault_of(content)
        if fault is not None:
            raise self.refusal(number, fault)
        if content.pop("previous") != (batch[-1].digest if batch else self.head):
            before = f"line {number - 1} was changed" if number > 1 else "its first lines are gone"
            raise InputError(
                f"{self.file}: {before}, or lines between it and line {number} were added, "
                f"removed or moved: {_REMEDY}"
            )
        kind, time = content.pop("kind"), content.pop("time")
        at, of = content.pop("batch", (1, 1))
        if at != len(batch) + 1 or at > of or (batch and (kind, of) != _batch_of(batch)):
            raise self.refusal(number, f"it cannot be line {at} of {of} added together")
        digest = hashlib.sha256(line).hexdigest()
        return Line(number, kind, time, content, digest, (at, of))


def _batch_of(batch: Sequence[Line]) -> tuple[str, int]:
    return batch[-1].kind, batch[-1].batch[1]


_REMEDY = "bring back the file as it was, or begin a new review with --name"


def now() -> str:
    """Return the time in UTC, in seconds, as every line has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_line(previous: str, kind: str, time: str, content: Mapping[str, Any]) -> bytes:
    """Write a line, without its newline."""
    record = {"previous": previous, "kind": kind, "time": time, **content}
    # ASCII: halves of characters in names become escapes, and no editor sees another line end.
    rest = json.dumps(record, allow_nan=False)[1:].encode()
    return _BEGIN + hashlib.sha256(rest).hexdigest().encode() + _BETWEEN + rest
