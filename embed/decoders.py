"""Decoder processes as their parent sees them: calls go out, answers come back in any order.

A call that hangs, or that kills its process twice, costs that call only. Each process has a pipe of
its own, so there is no lock that a dying process could keep, and nothing with a name that a killed
run would leave behind.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Pipe, wait
from typing import Any, Self

from embed import decoder
from embed.processes import STOPS, stops_later
from task.errors import InputError

# Without an answer and without having used up its processor time: a disk that does not answer.
PATIENCE_SECONDS = 600.0
START_SECONDS = 20.0
_STEP_SECONDS = 1.0
_GRACE_SECONDS = 2.0
_DEATHS = 2
_FAILED_STARTS = 3
# The one that a process is at, and the next.
_AT_ONCE = 2
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
    have under the same numbers. One thread looks after them all, so that they have something to do
    while this process computes.
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
        self._backlog: deque[Call] = deque()
        self._changed = threading.Condition()
        self._fault: BaseException | None = None
        self._closing = False
        self._woken, self._wake = Pipe(duplex=False)
        self._thread = threading.Thread(target=self._run, name="decoders", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        with stops_later():
            self._wake.send_bytes(b"!")
            self._thread.join()
        self._woken.close()
        self._wake.close()

    def ask(self, *given: Any) -> Call:
        """Hand in the arguments of a call."""
        call = Call(given)
        self._backlog.append(call)
        self._wake.send_bytes(b"!")
        return call

    def result(self, call: Call) -> Any:
        """Wait for a call that was asked for.

        Raises:
            DecoderTimeoutError, DecoderDiedError: see there.
            InputError: no process can start.
            Exception: whatever the call has raised.
        """
        with self._changed:
            while not call.done and self._fault is None:
                self._changed.wait()
        fault = call.fault if call.done else self._fault
        if fault is not None:
            raise fault
        return call.result

    def _run(self) -> None:
        # Blocked here, they are blocked in every process that is started here.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            while not self._closing:
                self._hand_out()
                self._take_in()
        except BaseException as fault:
            # Whoever waits for a call is told.
            self._fault = fault
        finally:
            self._tell()
            for process in self._processes:
                process.dismiss()
            for process in self._processes:
                process.end(_GRACE_SECONDS)

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _hand_out(self) -> None:
        """Give calls to the processes with the least to do; start those that are missing."""
        while self._backlog:
            process = min(self._processes, key=lambda one: len(one.queue), default=None)
            if process is None or (process.queue and len(self._processes) < self._workers):
                process = self._start()
                self._processes.append(process)
            elif len(process.queue) == _AT_ONCE:
                return
            process.give(self._backlog.popleft())

    def _take_in(self) -> None:
        """Wait until something arrives, and note which processes are silent meanwhile."""
        began = time.monotonic()
        arrived = wait([self._woken, *(one.pipe for one in self._processes)], _STEP_SECONDS)
        # A step at most, however long this process itself was stopped or suspended.
        waited = min(time.monotonic() - began, _STEP_SECONDS)
        if self._woken in arrived:
            self._woken.recv_bytes()
        for process in list(self._processes):
            process.silent += waited if process.queue else 0.0
            if process.pipe in arrived:
                self._receive(process)
            elif process.silent > PATIENCE_SECONDS:
                process.stuck = True
                self._replace(process)
        self._tell()

    def _receive(self, process: "_Process") -> None:
        process.silent = 0.0
        if not process.receive():
            self._replace(process)
        elif process.ready:
            self._failed_starts = 0

    def _replace(self, process: "_Process") -> None:
        """Give back the calls of a process that has ended, or is stuck."""
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
        self._backlog.extendleft(reversed(process.queue))

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
