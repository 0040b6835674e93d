"""Processes that Ctrl-C leaves alone: the one that started them ends them."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection, parent_process, resource_tracker
from typing import Any


@contextmanager
def interrupt_later() -> Iterator[None]:
    """Put Ctrl-C off to the end of the block; processes begun in it never see one.

    A terminal sends it to all of them, and whichever is still importing its libraries would print
    a traceback. Blocked it stays so in a new process; a handler would come too late. A block that
    ends processes needs it too: what interrupts a finaliser is lost.

    Raises:
        KeyboardInterrupt: at the end, if it came meanwhile.
    """
    # Starting it would end the block before its time.
    resource_tracker.ensure_running()
    came: list[int] = []
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # Other threads of this process may still be given it.
    with _handled(came):
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if came:
        raise KeyboardInterrupt


def end_with_parent() -> None:
    """Let this process end when the one that started it does, even if that was killed.

    Its siblings hold the other ends of its pipes, so that it would wait for orders for ever.
    """
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()


def _follow(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


@contextmanager
def _handled(came: list[int]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: Any = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
