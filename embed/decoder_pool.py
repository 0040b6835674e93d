"""A pool of decoder processes: a call that hangs, or kills its process twice, costs itself only.

The pools of the standard library have neither a limit for a call nor a way to go on after a process
has died: `ProcessPoolExecutor` fails every call, `multiprocessing.Pool` waits for ever. Here each
process has a pipe of its own, so there is no lock that a dying process could keep, and nothing with
a name that a killed run would leave behind.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Pipe, wait
from typing import Any, Self

from archiveprobe.base.errors import InputError
from archiveprobe.embed import decoder_process
from archiveprobe.embed.processes import STOPS, stops_later

START_SECONDS = 20.0
# Without an answer and without having used up its processor time: a disk that does not answer.
PATIENCE_SECONDS = 600.0
_STEP_SECONDS = 1.0
_GRACE_SECONDS = 2.0
_MOST_DEATHS = 2
_MOST_FAILED_STARTS = 3
# Calls in the pipe of a process: the one that it works at, and the next.
_IN_PIPE = 2
# Libraries of linear algebra take memory for every thread when they are imported, and where a limit
# refuses it they ask again for ever.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_REMEDY = "or use 0 workers, which decodes in this process"


class DecoderError(Exception):
    """A call has no result because of its process; `status` is the one of its image.

    "decode_timeout": it took too long; "decoder_died": it ended its process, and another one too.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(eq=False)
class _Call:
    """The arguments of a call, its result to be, and how many processes died at it."""

    arguments: tuple[Any, ...]
    future: "Future[Any]" = field(default_factory=Future)
    deaths: int = 0


class DecoderPool:
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
        self._backlog: deque[_Call] = deque()
        # Held while a call is handed in, and while all of them are failed.
        self._lock = threading.Lock()
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

    def submit(self, *arguments: Any) -> "Future[Any]":
        """Hand in a call; its future raises what the call has raised, or one of these.

        Raises:
            DecoderError: the call took too long, or ended two processes.
            InputError: no process can start.
        """
        call = _Call(arguments)
        with self._lock:
            if self._fault is not None:
                call.future.set_exception(self._fault)
                return call.future
            self._backlog.append(call)
        self._wake.send_bytes(b"!")
        return call.future

    def map(
        self, calls: Iterable[tuple[Any, ...]], ahead: int
    ) -> Iterator[tuple[tuple[Any, ...], Any]]:
        """Yield the arguments and the result of every call in order, of which `ahead` are begun.

        A call whose process failed has the DecoderError as its result.

        Raises:
            InputError: no process can start.
            Exception: whatever a call has raised.
        """
        begun: deque[tuple[tuple[Any, ...], Future[Any]]] = deque()
        for arguments in calls:
            begun.append((arguments, self.submit(*arguments)))
            if len(begun) >= ahead:
                yield _result(*begun.popleft())
        while begun:
            yield _result(*begun.popleft())

    def _run(self) -> None:
        # Blocked here, they are blocked in every process that is started here.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        try:
            while not self._closing:
                self._hand_out()
                self._take_in()
        except BaseException as fault:
            with self._lock:
                self._fault = fault
            for call in (
                *(c for process in self._processes for c in process.calls),
                *self._backlog,
            ):
                call.future.set_exception(fault)
        finally:
            for process in self._processes:
                process.dismiss()
            for process in self._processes:
                process.end(_GRACE_SECONDS)

    def _hand_out(self) -> None:
        """Give calls to the processes with the least to do; start those that are missing."""
        while self._backlog:
            process = min(self._processes, key=lambda process: len(process.calls), default=None)
            if process is None or (process.calls and len(self._processes) < self._workers):
                process = self._start()
                self._processes.append(process)
            elif len(process.calls) == _IN_PIPE:
                return
            process.give(self._backlog.popleft())

    def _take_in(self) -> None:
        """Wait until something arrives, and note which processes are silent meanwhile."""
        began = time.monotonic()
        pipes = [process.pipe for process in self._processes]
        arrived = wait([self._woken, *pipes], _STEP_SECONDS)
        # A step at most, however long this process itself was stopped or suspended.
        waited = min(time.monotonic() - began, _STEP_SECONDS)
        if self._woken in arrived:
            self._woken.recv_bytes()
        for process in list(self._processes):
            process.silent += waited if process.calls else 0.0
            if process.pipe in arrived:
                process.silent = 0.0
                if not process.receive():
                    self._replace(process)
                elif process.ready:
                    self._failed_starts = 0
            elif process.silent > PATIENCE_SECONDS:
                process.stuck = True
                self._replace(process)

    def _replace(self, process: "_Process") -> None:
        """Take back the calls of a process that has ended, or is stuck."""
        process.end(0.0 if process.stuck else _GRACE_SECONDS)
        if process.ready:
            self._blame(process)
        else:
            self._failed_starts += 1
            if process.is_late or self._failed_starts == _MOST_FAILED_STARTS:
                raise InputError(
                    f"no decoder process can start ({process.end_reason}): free memory, raise its "
                    f"limit (ulimit -v), {_REMEDY}"
                )
        self._processes.remove(process)
        self._backlog.extendleft(reversed(process.calls))

    def _blame(self, process: "_Process") -> None:
        """Fail the call that a process was at, unless its death may have come from outside."""
        if not process.calls:
            return
        call = process.calls[0]
        call.deaths += 1
        fault: DecoderError | None = None
        if process.stuck:
            fault = DecoderError("decode_timeout", f"no answer in {PATIENCE_SECONDS:g} s")
        elif process.is_late:
            fault = DecoderError("decode_timeout", f"over {self._seconds:g} s of processor time")
        elif call.deaths == _MOST_DEATHS:
            fault = DecoderError("decoder_died", process.end_reason)
        if fault is not None:
            process.calls.popleft().future.set_exception(fault)


def _result(arguments: tuple[Any, ...], future: "Future[Any]") -> tuple[tuple[Any, ...], Any]:
    try:
        return arguments, future.result()
    except DecoderError as error:
        return arguments, error


class _Process:
    """A decoder process, its pipe, and the calls that were put into it and not answered."""

    def __init__(self, work: Callable[..., Any], seconds: float, files: Sequence[int]) -> None:
        self.calls: deque[_Call] = deque()
        self.ready = False
        self.silent = 0.0
        self.stuck = False
        self._reason = ""
        self.pipe, self._process = _spawn(seconds, files)
        self._put(work)

    def give(self, call: _Call) -> None:
        """Put a call into the pipe."""
        self.calls.append(call)
        self._put(call.arguments)

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
        future = self.calls.popleft().future
        succeeded, value = message
        if succeeded:
            future.set_result(value)
        else:
            future.set_exception(value)
        return True

    @property
    def is_late(self) -> bool:
        """Return whether it was ended for taking too long."""
        return self.stuck or self._process.returncode == -signal.SIGPROF

    @property
    def end_reason(self) -> str:
        """Return how it ended, for people."""
        if self._reason:
            return self._reason
        code = self._process.returncode
        if code == -signal.SIGPROF and not self.ready:
            return f"over {START_SECONDS:g} s of processor time"
        if self.stuck:
            return "no sign of life"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"

    def dismiss(self) -> None:
        """Tell it to end: at once if it has nothing to do, else after the call that it is at."""
        self.pipe.close()
        if not self.calls:
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
    """Start a decoder process; return this end of its pipe, and the process.

    Not forked: this process may hold torch's threads, which do not survive a fork. Not through
    `multiprocessing` either, which imports the user's own script before anything of ours.
    """
    ours, theirs = Pipe()
    with theirs:
        errors = _error_descriptor()
        path = [str(folder) for folder in sys.path]
        arguments = f"{theirs.fileno()}, {errors}, {os.getpid()}, {START_SECONDS!r}, {seconds!r}"
        program = (
            f"import sys; sys.path[:] = {path!r}; "
            f"from {decoder_process.__name__} import main; main({arguments})"
        )
        try:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-c", program],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # The traceback of an import that fails helps nobody.
                stderr=subprocess.DEVNULL,
                env={**os.environ, **_ONE_THREAD},
                pass_fds=(theirs.fileno(), errors, *files),
            )
        except OSError as error:
            ours.close()
            raise InputError(
                f"no decoder process can start ({error.strerror}): free memory, raise the limits "
                f"(ulimit -u, -v), {_REMEDY}"
            ) from None
        finally:
            os.close(errors)
    return ours, process


def _error_descriptor() -> int:
    """Return a descriptor for messages: this process's own stderr, where it has one."""
    try:
        return os.dup(2)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)
