"""Signals that stop a run, kept from child processes; and children that end with their parent."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection, parent_process, resource_tracker
from typing import Any

# Ctrl-C, the way in which Slurm and `kill` stop a process, and a terminal that was closed.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PR_SET_PDEATHSIG = 1


@contextmanager
def interrupt_later() -> Iterator[None]:
    """Put Ctrl-C and its like off while processes of `multiprocessing` are started or ended.

    See `stops_later`.

    Raises:
        KeyboardInterrupt: at the end, if one came meanwhile.
    """
    # Starting it would end the block before its time.
    resource_tracker.ensure_running()
    with stops_later():
        yield


@contextmanager
def stops_later() -> Iterator[None]:
    """Put signals that stop a run off to the end of the block; processes begun in it never see one.

    Signals reach the whole group: a process that still imports its libraries would print a
    traceback, and the parent, which still commits, would miss one that is at work. Blocked they
    stay so in a new process; a handler would come too late. A block that ends processes needs it
    too: what interrupts a finaliser is lost.

    Raises:
        KeyboardInterrupt: at the end, if one came meanwhile.
    """
    came: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    # Other threads of this process may still be given it.
    with _collected(came):
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if came:
        signal.raise_signal(came[0])


@contextmanager
def _collected(came: list[int]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A signal that this process ignores, as under nohup, stays ignored.
    before: dict[int, Any] = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in STOPS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent(*_: object) -> None:
    """Let this process of `multiprocessing` end when the one that started it does.

    What a DataLoader gives the processes that it starts is not looked at.
    Its siblings hold the other ends of its pipes, so that it would wait for orders for ever.
    """
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()
        end_with(parent.pid or 0)


def end_with(parent: int) -> None:
    """Let the kernel end this process with process `parent`, whose child it is.

    No thread could: a library that waits for memory while it is imported holds Python's lock. Only
    Linux does this; the thread that started this process must live as long as its process.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before the kernel knew.
    if os.getppid() != parent:
        os._exit(1)


def _follow(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
