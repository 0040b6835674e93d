"""Messages and progress: a line a minute where there is no terminal, a log file, quiet, verbose."""

import io
import logging
import queue
import re
import sys
import threading
from pathlib import Path

import pytest

from archiveprobe.base.errors import InputError
from archiveprobe.base.reporting import LOGGER, Clock, Reporting


class Minutes(Clock):
    """A clock on which a minute passes when the test says so."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._waiting: queue.Queue[None] = queue.Queue()
        self._passed: queue.Queue[None] = queue.Queue()

    def now(self) -> float:
        return self.seconds

    def wait(self, event: threading.Event, seconds: float) -> bool:
        assert seconds == 60
        self._waiting.put(None)
        while not event.is_set():
            try:
                self._passed.get(timeout=0.01)
            except queue.Empty:
                continue
            return False
        return True

    def pass_minute(self) -> None:
        """Let a minute pass, and wait until all is written."""
        self._waiting.get()
        self.seconds += 60
        self._passed.put(None)
        self._waiting.get()
        self._waiting.put(None)


class Terminal(io.StringIO):
    """A stream that calls itself a terminal."""

    def isatty(self) -> bool:
        return True


def test_there_is_a_line_a_minute_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Minutes()
    with Reporting(clock) as reporting, reporting.progress("embedding", 100) as advance:
        for _ in range(30):
            advance()
        assert capsys.readouterr().err == ""
        clock.pass_minute()
        assert capsys.readouterr().err == (
            "embedding: 30 of 100 (30%), 30.0/min, 2 min 20 s left\n"
        )
        # Also where nothing has been done since.
        clock.pass_minute()
        assert capsys.readouterr().err == (
            "embedding: 30 of 100 (30%), 15.0/min, 4 min 40 s left\n"
        )
        for _ in range(70):
            advance()
    assert capsys.readouterr().err == "embedding: 100 of 100 in 2 min, 50.0/min\n"


def test_short_work_says_nothing_unless_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    for verbose in (False, True):
        with Reporting(Minutes()) as reporting:
            if verbose:
                reporting.be_verbose()
            with reporting.progress("reading", 1) as advance:
                advance()
        assert ("reading: 1 of 1" in capsys.readouterr().err) == verbose


def test_a_log_file_holds_everything_with_its_time_and_is_appended_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.log"
    for word in ("first", "second"):
        clock = Minutes()
        with Reporting(clock) as reporting:
            reporting.log_to(file)
            reporting.be_quiet()
            LOGGER.info(word)
            with reporting.progress("fitting", 2):
                clock.pass_minute()
            LOGGER.error("error: none")
    lines = file.read_text("utf-8").splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in lines)
    once = ["fitting: 0 of 2 (0%), 0.0/s, unknown time left", "fitting: 0 of 2 in 1 min, 0.0/s"]
    expected = ["first", *once, "error: none", "second", *once, "error: none"]
    assert [line[20:] for line in lines] == expected
    assert capsys.readouterr().err == "error: none\nerror: none\n"


def test_a_log_file_never_grows_at_the_end_of_something_else(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(b"image,label\n")
    with Reporting() as reporting:
        with pytest.raises(InputError, match=r"labels.csv is no log file: name another"):
            reporting.log_to(file)
        with pytest.raises(InputError, match=r"cannot write the log file .*: name another"):
            reporting.log_to(tmp_path / "absent" / "run.log")
        with pytest.raises(InputError, match=r"cannot write the log file .*: name another"):
            reporting.log_to(tmp_path)
        LOGGER.info("a message")
    assert file.read_bytes() == b"image,label\n"


def test_messages_stand_above_the_bars_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    with Reporting() as reporting, reporting.progress("outer", 2) as outer:
        with reporting.progress("inner", 2) as inner:
            inner()
            LOGGER.info("a message about [bold] /some/path that is longer than the screen is wide")
        outer()
    # What comes before the sequence that erases a line is not seen any more.
    left = re.sub(r"[^\n]*\x1b\[2K", "", screen.getvalue())
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", left).splitlines()
    [at] = [number for number, line in enumerate(shown) if "a message" in line]
    assert shown[at] == "a message about [bold] /some/path that is longer than the"
    assert shown[at + 1] == "screen is wide"
    assert any("outer" in line and "2/2" not in line for line in shown)
    assert any("inner" in line and "1/2" in line for line in shown)


def test_quiet_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with Reporting() as reporting:
        reporting.be_quiet()
        with reporting.progress("embedding", 2) as advance:
            advance()
        LOGGER.info("a note")
    assert screen.getvalue() == ""


def test_a_full_disk_ends_the_log_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Reporting() as reporting:
        reporting.log_to(tmp_path / "run.log")
        assert reporting._file is not None

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        reporting._file.stream.write = full
        LOGGER.info("first")
        LOGGER.info("second")
    first, second, third = capsys.readouterr().err.splitlines()
    assert {first, third} == {"first", "second"}
    assert second.startswith(f"note: {tmp_path / 'run.log'} cannot be written: ")


def test_a_disk_that_is_full_when_the_log_is_closed_is_no_fault(tmp_path: Path) -> None:
    with Reporting() as reporting:
        reporting.log_to(tmp_path / "run.log")
        assert reporting._file is not None

        def full() -> None:
            raise OSError(28, "No space left on device")

        reporting._file.stream.close = full


def test_a_message_is_said_once_whatever_a_library_does_to_the_root_logger(
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = logging.StreamHandler(sys.stderr)
    with Reporting():
        # What logging.info does for a library that has set up nothing.
        logging.getLogger().addHandler(handler)
        try:
            LOGGER.error("error: none")
        finally:
            logging.getLogger().removeHandler(handler)
    assert capsys.readouterr().err == "error: none\n"


def test_closed_streams_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with Reporting() as reporting, reporting.progress("reading", 1) as advance:
        advance()
        LOGGER.error("nobody reads this")
