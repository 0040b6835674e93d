"""What stops a command: Ctrl-C, SIGTERM (Slurm, `kill`) and SIGHUP (a terminal that was closed).

While a command runs each of them raises KeyboardInterrupt once, on whose way out everything commits
what is done. Before and after there is nothing to keep, and the process ends without a word.
"""

import os
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_at_once() -> Any:
    """Let Ctrl-C end this process as it ends any other program. Returns the handler so far."""
    if threading.current_thread() is not threading.main_thread():
        return None
    before = signal.getsignal(signal.SIGINT)
    # Whoever was told to ignore it, as a shell tells what it starts with `&`, goes on ignoring it.
    if before is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    return before


def end_with_any_parent() -> None:
    """Bind a process of `multiprocessing` to its parent, also while it imports what it is to do.

    It imports the parent's main module first, by this name, and that is the command line.
    """
    if "__mp_main__" in sys.modules:
        from archiveprobe.embed.processes import end_with

        end_with(os.getppid())


class Stop:
    """Which signal has come; 0 while none has."""

    number = 0

    @property
    def exit_status(self) -> int:
        """As a shell names the end by a signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.number or signal.SIGINT)


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Within this context the first signal that stops raises KeyboardInterrupt.

    A second Ctrl-C ends the process at once. A second SIGTERM or SIGHUP does not: `timeout` sends
    both to process and group, and a shell and its terminal both hang up.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def interrupt(number: int, _: FrameType | None) -> None:
        stop.number = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        for quiet in set(before) - {signal.SIGINT}:
            signal.signal(quiet, signal.SIG_IGN)
        if number == signal.SIGHUP:
            _leave_terminal()
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt)
        for number in _STOPS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_terminal() -> None:
    """Say what is still said to nobody where the terminal is gone, which makes it an error."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
