"""What a command tells its user beside the result: messages and progress, on stderr and in a file.

Everything goes through the package's logger, so that a log file holds what stderr holds: errors are
ERROR, messages and progress INFO, and what only `-v` shows is DEBUG.
"""

import logging
import re
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Count

if TYPE_CHECKING:
    from rich.progress import Progress as Display

LOGGER = logging.getLogger("archiveprobe")
MINUTE = 60.0
_DATE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")
_IN_BAR = {"in_bar": True}
"""Marks what a bar on a terminal shows already."""
SHOWN = {"shown": True}
"""Marks what is on stderr already."""


class Clock:
    """The time, in seconds, and waiting; tests have one of their own."""

    def now(self) -> float:
        """Return the seconds since some moment."""
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for an event; return False where it did not come in time."""
        return event.wait(seconds)


class _Stderr(logging.Handler):
    """Writes to what is stderr now: above the bars of a terminal, wrapped at words there."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.display: Display | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        if hasattr(record, "shown"):
            return
        text = record.getMessage()
        if is_terminal(sys.stderr):
            text = wrap(text)
        if sys.stderr is None:
            return
        if self.display is None:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()
        elif not hasattr(record, "in_bar"):
            self.display.console.print(text, markup=False, highlight=False, soft_wrap=True)


class _LogFile(logging.FileHandler):
    """Appends to a file; where that fails, as on a full disk, it says so once and goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802
        """See logging.Handler."""
        LOGGER.removeHandler(self)
        LOGGER.warning("note: %s cannot be written: %s", self.baseFilename, sys.exc_info()[1])

    def close(self) -> None:
        """Close the file; what a full disk has not taken was told when it was written."""
        with suppress(OSError):
            super().close()


class Reporting:
    """Takes messages and progress from the first to the last line of a command."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.debug = False
        self._clock = clock or Clock()
        self._stderr = _Stderr()
        self._file: logging.Handler | None = None
        self._open_bars = 0

    def __enter__(self) -> Self:
        # Libraries give the root logger a handler, which would say everything a second time.
        LOGGER.propagate = False
        LOGGER.setLevel(logging.INFO)
        LOGGER.addHandler(self._stderr)
        return self

    def __exit__(self, *_: object) -> None:
        LOGGER.removeHandler(self._stderr)
        LOGGER.setLevel(logging.NOTSET)
        LOGGER.propagate = True
        if self._file is not None:
            LOGGER.removeHandler(self._file)
            self._file.close()

    def be_quiet(self) -> None:
        """Show errors only; a log file still holds everything."""
        self._stderr.setLevel(logging.ERROR)

    def be_verbose(self) -> None:
        """Show, and write into a log file, how long every stage took."""
        LOGGER.setLevel(logging.DEBUG)
        if self._stderr.level == logging.INFO:
            self._stderr.setLevel(logging.DEBUG)

    def log_to(self, file: Path) -> None:
        """Append everything to a file as well, with date and time.

        Raises:
            InputError: it cannot be written, or holds something else than a log.
        """
        try:
            if file.exists():
                with file.open("rb") as stream:
                    head = stream.read(20)
                if head and not _DATE.fullmatch(head):
                    raise InputError(f"{file} is no log file: name another one with --log-file")
            self._file = _LogFile(file, "a", "utf-8", errors="backslashreplace")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"cannot write the log file {file}: {reason}: name another one with --log-file"
            ) from None
        self._file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        LOGGER.addHandler(self._file)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Show a bar on a terminal, elsewhere a line a minute, and one at the end of long work."""
        count = Count(what, total, self._clock.now())
        with self._lines(count), self._bar(count) as draw:

            def advance() -> None:
                count.done += 1
                draw()

            yield advance

    @contextmanager
    def _lines(self, count: Count) -> Iterator[None]:
        end = threading.Event()

        def report() -> None:
            # A thread of its own: one step of slow work may take longer than a minute.
            while not self._clock.wait(end, MINUTE):
                # A reader of stderr that has gone is met by the next message.
                with suppress(OSError):
                    LOGGER.info("%s", count.line(self._clock.now()), extra=_IN_BAR)

        thread = threading.Thread(target=report, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()
            now = self._clock.now()
            level = logging.INFO if now - count.start >= MINUTE else logging.DEBUG
            LOGGER.log(level, "%s", count.last_line(now))

    @contextmanager
    def _bar(self, count: Count) -> Iterator[Callable[[], None]]:
        if not is_terminal(sys.stderr) or self._stderr.level == logging.ERROR:
            yield lambda: None
            return
        # One display for all bars that are open at once: two would draw over each other.
        display = self._stderr.display = self._stderr.display or _display()
        row = display.add_task(count.what, total=count.total or None)
        self._open_bars += 1
        display.start()
        try:
            yield lambda: display.advance(row)
        finally:
            self._open_bars -= 1
            if not self._open_bars:
                display.stop()
                self._stderr.display = None


def is_terminal(stream: TextIO | None) -> bool:
    """Say whether a standard stream leads to a terminal; one that was closed is None."""
    return stream is not None and stream.isatty()


def wrap(text: str) -> str:
    """Wrap at words for the width of the terminal; a long path stays in one piece."""
    width = shutil.get_terminal_size().columns
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _display() -> "Display":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Display
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate())
    return Display(*columns, TimeRemainingColumn(), console=Console(stderr=True))
