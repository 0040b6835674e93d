"""One decoder process as its parent sees it: its pipe, its calls, and how it ended."""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Pipe
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.embed import decoder

START_SECONDS = 20.0
# Libraries of linear algebra take memory for every thread when they are imported, and where a limit
# refuses it they ask again for ever.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@dataclass(eq=False)
class Call:
    """What a decoder is to do, and what became of it."""

    given: tuple[Any, ...]
    done: bool = False
    result: Any = None
    fault: Exception | None = None
    deaths: int = 0

    def fail(self, fault: Exception) -> None:
        """Note why there is no result."""
        self.done, self.fault = True, fault


class DecoderProcess:
    """A decoder process, its pipe, and the calls that were put into it and not answered."""

    def __init__(self, work: Callable[..., Any], seconds: float, files: Sequence[int]) -> None:
        self.queue: deque[Call] = deque()
        self.ready = False
        self.silent = 0.0
        self.stuck = False
        self._reason = ""
        self.pipe, self._process = _spawn(seconds, files)
        self._put(work)

    def give(self, call: Call) -> None:
        """Put a call into the pipe."""
        self.queue.append(call)
        self._put(call.given)

    def _put(self, message: Any) -> None:
        # A process that has ended is noticed when nothing comes back.
        with suppress(OSError):
            self.pipe.send(message)

    def receive(self) -> bool:
        """Take in a message; False when the process has ended."""
        try:
            message = self.pipe.recv()
        except (EOFError, OSError):
            return False
        if not self.ready:
            self.ready, self._reason = message is None, message or ""
            return True
        call = self.queue.popleft()
        succeeded, value = message
        if succeeded:
            call.done, call.result = True, value
        else:
            call.fail(value)
        return True

    @property
    def is_late(self) -> bool:
        """Whether it was ended for taking too long."""
        return self.stuck or self._process.returncode == -signal.SIGPROF

    @property
    def fate(self) -> str:
        """How it ended, for people."""
        if self._reason:
            return self._reason
        if self.stuck:
            return "no sign of life"
        code = self._process.returncode
        if code == -signal.SIGPROF and not self.ready:
            return f"over {START_SECONDS:g} s of processor time"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def dismiss(self) -> None:
        """Tell it to end: at once if it has nothing to do, else after the call that it is at."""
        self.pipe.close()
        if not self.queue:
            self._process.kill()

    def end(self, grace: float) -> None:
        """End it, by force after so many seconds, and wait until it has."""
        self.pipe.close()
        try:
            self._process.wait(grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _spawn(seconds: float, files: Sequence[int]) -> tuple[Any, "subprocess.Popen[bytes]"]:
    """Start a decoder process. Returns this end of its pipe, and the process.

    Not forked: this process may hold torch's threads, which do not survive a fork. Not through
    `multiprocessing` either, which imports the user's own script before anything of ours.
    """
    ours, theirs = Pipe()
    with theirs:
        errors = _messages()
        path = [str(folder) for folder in sys.path]
        words = f"{theirs.fileno()}, {errors}, {os.getpid()}, {START_SECONDS!r}, {seconds!r}"
        program = (
            f"import sys; sys.path[:] = {path!r}; "
            f"from {decoder.__name__} import main; main({words})"
        )
        try:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # The traceback of an import that fails is for nobody.
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD},
                pass_fds=(theirs.fileno(), errors, *files),
            )
        except OSError as error:
            ours.close()
            raise InputError(
                f"no decoder process can start ({error.strerror}): free memory, raise the limits "
                "(ulimit -u, -v), or run with --workers 0, which decodes in this process"
            ) from None
        finally:
            os.close(errors)
    return ours, process


def _messages() -> int:
    """A descriptor for messages: this process's own stderr, where it has one."""
    try:
        return os.dup(2)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)
