"""What a decoder process runs; it is bound to its parent before it imports anything large.

Its time is the processor's, not the clock's: a machine that was suspended, a clock that steps or
busy neighbours make no image take longer. Beyond its limit the kernel ends it with SIGPROF, also in
the midst of a library that never comes back.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from archiveprobe.embed.processes import STOPS, end_with


def main(descriptor: int, errors: int, parent: int, start: float, seconds: float) -> None:
    """Work through calls until the parent closes their pipe.

    Args:
        descriptor: of a pipe; first comes what to call, then the arguments of every call. Back go
            None, or why it cannot start, and for every call (True, result) or (False, exception).
        errors: descriptor for messages, from when the imports have succeeded.
        parent: process id.
        start: seconds of processor time for the imports.
        seconds: of processor time for a call.
    """
    end_with(parent)
    # The parent commits what is done before it ends the decoders.
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    with Connection(descriptor) as pipe, suppress(EOFError, ConnectionError):
        try:
            with processor_limit(start):
                # Unpickling what to call imports its modules.
                work = pipe.recv()
        except (EOFError, ConnectionError):
            return
        except Exception as error:
            pipe.send(f"{type(error).__name__}: {error}")
            return
        pipe.send(None)
        os.dup2(errors, 2)
        while True:
            arguments = pipe.recv()
            with processor_limit(seconds):
                answer = _answer(work, arguments)
            _send(pipe, answer)


@contextmanager
def processor_limit(seconds: float) -> Iterator[None]:
    """End this process when the block uses more processor time than that."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _answer(work: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    try:
        return True, work(*arguments)
    except Exception as error:
        return False, error


def _send(pipe: "Connection[Any, Any]", answer: tuple[bool, Any]) -> None:
    try:
        pipe.send(answer)
    except ConnectionError:
        raise
    except Exception as error:
        # Not every exception can be handed to another process.
        pipe.send((False, RuntimeError(f"{type(error).__name__}: {error}: {answer[1]!r}")))
