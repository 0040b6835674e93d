"""Decoder processes: what a call costs that hangs, dies, or never had a process to run in."""

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from children import children, decoders

from archiveprobe.base.errors import InputError
from archiveprobe.embed import decoder_pool as module
from archiveprobe.embed.decoder_pool import DecoderError, DecoderPool

WORK = """
import os, signal, time
from pathlib import Path

def work(what, *given):
    return globals()[what](*given)

def double(number):
    return 2 * number

def spin():
    while True:
        pass

def sleep(seconds):
    time.sleep(seconds)
    return "awake"

def die(number=signal.SIGKILL):
    os.kill(os.getpid(), number)

def leave(status):
    os._exit(status)

def die_once(marker):
    if not Path(marker).exists():
        Path(marker).touch()
        die()
    return "again"

def fail(text):
    raise FileNotFoundError(2, text)

def odd():
    class Odd(Exception):
        pass
    raise Odd("cannot be handed over")

def large():
    return bytes(5_000_000)

def ignored():
    return [signal.getsignal(n) is signal.SIG_IGN for n in (2, 15, 1)]
"""


@pytest.fixture
def work(tmp_path, monkeypatch) -> Callable[..., Any]:
    """A module of its own, which reaches a process through sys.path; a patch would not."""
    (tmp_path / "odd_work.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("odd_work", None)
    importlib.invalidate_caches()
    return importlib.import_module("odd_work").work


def test_results_and_exceptions_come_back(work) -> None:
    with DecoderPool(work, 2, seconds=30) as decoders:
        calls = [decoders.submit("double", number) for number in range(30)]
        failed, odd = decoders.submit("fail", "gone"), decoders.submit("odd")
        large = decoders.submit("large")
        assert [call.result() for call in reversed(calls)] == list(range(58, -1, -2))
        with pytest.raises(FileNotFoundError, match="gone"):
            failed.result()
        with pytest.raises(RuntimeError, match="cannot be handed over"):
            odd.result()
        assert len(large.result()) == 5_000_000


def test_a_call_that_computes_without_end_costs_itself(work) -> None:
    with DecoderPool(work, 1, seconds=0.5) as decoders:
        calls = [
            decoders.submit("double", 1),
            decoders.submit("spin"),
            decoders.submit("double", 2),
        ]
        assert calls[0].result() == 2
        with pytest.raises(DecoderError, match=r"over 0.5 s of processor time") as fault:
            calls[1].result()
        assert fault.value.status == "decode_timeout"
        assert calls[2].result() == 4


@pytest.mark.proves("images")
def test_time_in_which_nothing_is_computed_does_not_count(work) -> None:
    # As when the machine was suspended, or others took the processor.
    with DecoderPool(work, 1, seconds=0.5) as decoders:
        assert decoders.submit("sleep", 1.2).result() == "awake"


@pytest.mark.proves("images")
def test_a_clock_that_jumps_ends_no_call(work, monkeypatch) -> None:
    real = time.monotonic
    hours = iter(range(10**6))
    with DecoderPool(work, 1, seconds=30) as decoders:
        decoders.submit("double", 1).result()
        monkeypatch.setattr(module.time, "monotonic", lambda: real() + 3600 * next(hours))
        monkeypatch.setattr(module, "_STEP_SECONDS", 0.05)
        assert decoders.submit("sleep", 0.5).result() == "awake"


def test_a_call_that_waits_without_end_costs_itself(work, monkeypatch) -> None:
    monkeypatch.setattr(module, "_STEP_SECONDS", 0.1)
    with DecoderPool(work, 1, seconds=30) as decoders:
        decoders.submit("double", 1).result()
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.5)
        with pytest.raises(DecoderError, match=r"no answer in 0.5 s") as fault:
            decoders.submit("sleep", 3600).result()
        assert fault.value.status == "decode_timeout"
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 600)
        assert decoders.submit("double", 2).result() == 4


def test_a_process_that_was_killed_from_outside_costs_nothing(work, tmp_path) -> None:
    with DecoderPool(work, 1, seconds=30) as decoders:
        calls = [decoders.submit("die_once", tmp_path / "died"), decoders.submit("double", 2)]
        assert [call.result() for call in calls] == ["again", 4]


@pytest.mark.parametrize(
    ("call", "fate"),
    [
        (("die",), "killed by SIGKILL"),
        (("die", 11), "killed by SIGSEGV"),
        (("leave", 3), "status 3"),
    ],
)
def test_a_call_that_always_kills_its_process_costs_itself(work, call, fate) -> None:
    with DecoderPool(work, 1, seconds=30) as decoders:
        calls = [decoders.submit(*call), decoders.submit("double", 2)]
        with pytest.raises(DecoderError, match=fate) as fault:
            calls[0].result()
        assert fault.value.status == "decoder_died"
        assert calls[1].result() == 4


def test_decoders_leave_signals_to_their_parent(work) -> None:
    with DecoderPool(work, 1, seconds=30) as decoders:
        assert decoders.submit("ignored").result() == [True, True, True]


def unable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> Callable[..., Any]:
    """What a process cannot import, though this one has."""
    (tmp_path / "unable.py").write_text("def work(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("unable", None)
    importlib.invalidate_caches()
    work = importlib.import_module("unable").work
    (tmp_path / "unable.py").write_text(program)
    return work


@pytest.mark.proves("images")
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise ImportError('no room for it')", "ImportError: no room for it"),
        ("import os; os._exit(1)", "exit status 1"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("while True: pass", "over 0.7 s of processor time"),
        ("pow(3, 10**8)", "over 0.7 s of processor time"),
    ],
)
def test_processes_that_cannot_start_end_the_run_in_one_line(
    tmp_path, monkeypatch, capfd, program, reason
) -> None:
    monkeypatch.setattr(module, "START_SECONDS", 0.7)
    work = unable(tmp_path, monkeypatch, program)
    with DecoderPool(work, 2, seconds=30) as decoders:
        calls = [decoders.submit() for _ in range(5)]
        with pytest.raises(
            InputError, match=r"no decoder process can start.*use 0 workers"
        ) as caught:
            calls[0].result()
        assert reason in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.proves("images")
def test_without_room_for_a_process_the_run_ends_in_one_line(work, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(module.subprocess, "Popen", refuse)
    with (
        DecoderPool(work, 1, seconds=30) as decoders,
        pytest.raises(InputError, match=r"temporarily unavailable.*use 0 workers"),
    ):
        decoders.submit("double", 1).result()


PARENT = """
import sys
from archiveprobe.embed.decoder_pool import DecoderPool
from orphan_work import work
with DecoderPool(work, 2, seconds=1e6) as decoders:
    calls = [decoders.submit() for _ in range(4)]
    open("asked", "w").close()
    calls[0].result()
"""
# Without a thread's chance to run: one call in C, for hours.
IMPORTS = """
import os
if os.environ.get("OMP_NUM_THREADS") == "1":
    open(f"started-{os.getpid()}", "w").close()
    pow(3, 10**10)
def work(): pass
"""
SPINS = """
import os
def work():
    open(f"started-{os.getpid()}", "w").close()
    pow(3, 10**10)
"""


def with_folder(folder: Path) -> str:
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


@pytest.mark.proves("killed")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux does it")
@pytest.mark.parametrize("program", [IMPORTS, SPINS], ids=["importing", "decoding"])
def test_processes_end_with_a_killed_parent(tmp_path, program) -> None:
    (tmp_path / "orphan_work.py").write_text(program)
    (tmp_path / "parent.py").write_text(PARENT)
    here = {**os.environ, "PYTHONPATH": with_folder(tmp_path), "OMP_NUM_THREADS": "2"}
    command = [sys.executable, tmp_path / "parent.py"]
    with subprocess.Popen(command, env=here, cwd=tmp_path) as parent:
        wait_until(lambda: len(list(tmp_path.glob("started-*"))) == 2)
        parent.kill()
    pids = [int(file.name.split("-")[1]) for file in tmp_path.glob("started-*")]
    wait_until(lambda: not any(map(is_running, pids)))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_leaving_early_ends_what_is_at_work(work) -> None:
    before = children()
    with DecoderPool(work, 2, seconds=30) as decoders:
        decoders.submit("double", 1).result()
        decoders.submit("sleep", 3600)
        wait_until(lambda: bool(children() - before))
    assert not children() - before


def test_a_group_that_is_told_to_end_leaves_the_decoders_to_the_parent(work) -> None:
    with DecoderPool(work, 1, seconds=30) as pool:
        pool.submit("double", 1).result()
        [pid] = decoders()
        call = pool.submit("sleep", 1.0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(int(pid), number)
        assert call.result() == "awake"
        assert decoders() == {pid}
