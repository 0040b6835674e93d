"""Decoder processes as their parent sees them: calls go out, answers come back in any order.

A call that hangs, or that kills its process twice, costs that call only. Each process has a pipe of
its own, so there is no lock that a dying process could keep, and nothing with a name that a killed
run would leave behind.
"""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Pipe, wait
from typing import Any, Self

from archiveprobe.base.errors import InputError
from archiveprobe.embed.decoder_process import Call, DecoderProcess
from archiveprobe.embed.processes import STOPS, stops_later

# Without an answer and without having used up its processor time: a disk that does not answer.
PATIENCE_SECONDS = 600.0
_STEP_SECONDS = 1.0
_GRACE_SECONDS = 2.0
_DEATHS = 2
_FAILED_STARTS = 3
# The one that a process is at, and the next.
_AT_ONCE = 2


class DecoderTimeoutError(Exception):
    """A call took too long."""


class DecoderDiedError(Exception):
    """A call ended its process, and another one's too."""


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
        self._start: Callable[[], DecoderProcess] = lambda: DecoderProcess(work, seconds, files)
        self._workers = workers
        self._seconds = seconds
        self._processes: list[DecoderProcess] = []
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

    def _receive(self, process: DecoderProcess) -> None:
        process.silent = 0.0
        if not process.receive():
            self._replace(process)
        elif process.ready:
            self._failed_starts = 0

    def _replace(self, process: DecoderProcess) -> None:
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

    def _blame(self, process: DecoderProcess) -> None:
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
