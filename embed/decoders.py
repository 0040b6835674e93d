"""Decoder processes as their parent sees them: calls go out, answers come back in any order.

A call that hangs, or that kills its process twice, costs that call only. Each process has a pipe of
its own and a queue of calls in it, so there is no lock that a dying process could keep, no thread
here, and nothing with a name that a killed run would leave behind.
"""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Pipe, wait
from typing import Any, Self

from embed import decoder
from embed.processes import stops_later
from task.errors import InputError

# Without an answer and without having used up its processor time: a disk that does not answer.
PATIENCE_SECONDS = 600.0
START_SECONDS = 20.0
_STEP_SECONDS = 1.0
_GRACE_SECONDS = 2.0
_DEATHS = 2
_FAILED_STARTS = 3
# Libraries of linear algebra take memory for every thread when they are imported, and where a limit
# refuses it they ask again for ever.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class DecoderTimeoutError(Exception):
    """A call took too long."""


class DecoderDiedError(Exception):
    """A call ended its process, and another one's too."""


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


class Decoders:
    """Up to `workers` processes that call `work`, which any process must be able to import.

    `seconds` of processor time are given to each call; `files` are descriptors that the processes
    have under the same numbers.
    """

    def __init__(
        self,
        work: Callable[..., Any],
        workers: int,
        *,
        seconds: float,
        files: Sequence[int] = (),
    ) -> None:
        self._start: Callable[[], _Process] = lambda: _Process(work, seconds, files)
        self._workers = workers
        self._seconds = seconds
        self._processes: list[_Process] = []
        self._failed_starts = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with stops_later():
            for process in self._processes:
                process.dismiss()
            for process in self._processes:
                process.end(_GRACE_SECONDS)

    def ask(self, *given: Any) -> Call:
        """Hand the arguments of a call to the process that has the least to do.

        Raises:
            InputError: no process can start.
        """
        call = Call(given)
        self._free().give(call)
        return call

    def result(self, call: Call) -> Any:
        """Wait for a call that was asked for.

        Raises:
            DecoderTimeoutError, DecoderDiedError: see there.
            InputError: no process can start.
            Exception: whatever the call has raised.
        """
        while not call.done:
            self._wait(call)
        if call.fault is not None:
            raise call.fault
        return call.result

    def _free(self) -> "_Process":
        best = min(self._processes, key=lambda process: len(process.queue), default=None)
        if best is None or (best.queue and len(self._processes) < self._workers):
            best = self._start()
            self._processes.append(best)
        return best

    def _wait(self, call: Call) -> None:
        """Take in what has arrived, or note that the process which has the call is silent."""
        holder = next(process for process in self._processes if call in process.queue)
        began = time.monotonic()
        arrived = wait([process.pipe for process in self._processes], _STEP_SECONDS)
        # A step more, at most, however long this process itself was stopped or suspended.
        holder.silent += min(time.monotonic() - began, _STEP_SECONDS)
        for process in [process for process in self._processes if process.pipe in arrived]:
            process.silent = 0.0
            if not process.receive():
                self._replace(process)
            elif process.ready:
                self._failed_starts = 0
        if holder.silent > PATIENCE_SECONDS:
            holder.stuck = True
            self._replace(holder)

    def _replace(self, process: "_Process") -> None:
        """Let another process have the calls of one that has ended, or is stuck."""
        self._processes.remove(process)
        process.end(0.0 if process.stuck else _GRACE_SECONDS)
        if process.ready:
            self._blame(process)
        else:
            self._failed_starts += 1
            if process.is_late or self._failed_starts == _FAILED_STARTS:
                raise InputError(
                    f"no decoder process can start ({process.fate}): free memory, raise its limit "
                    "(ulimit -v), or run with --workers 0, which decodes in this process"
                )
        if process.queue:
            other = self._start()
            self._processes.append(other)
            for call in process.queue:
                other.give(call)

    def _blame(self, process: "_Process") -> None:
        """Fail the call that a process was at, unless its death may have come from outside."""
        if not process.queue:
            return
        call = process.queue[0]
        call.deaths += 1
        if process.is_late:
            limit = f"over {self._seconds:g} s of processor time"
            stuck = f"no answer in {PATIENCE_SECONDS:g} s"
            call.fail(DecoderTimeoutError(stuck if process.stuck else limit))
        elif call.deaths == _DEATHS:
            call.fail(DecoderDiedError(process.fate))
        if call.done:
            process.queue.popleft()


class _Process:
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
            return f"no sign of life in {PATIENCE_SECONDS:g} s"
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
            with stops_later():
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
