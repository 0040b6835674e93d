"""Signals that stop a command: what is done is kept, one line, the status that a shell gives."""

import json
import os
import pty
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from archiveprobe import cli
from archiveprobe.base.errors import InputError
from archiveprobe.commands import limits
from archiveprobe.commands.stopping import stoppable
from archiveprobe.commands.terminal import Commands

ROOT = Path(__file__).resolve().parents[1]
STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label in ("intact", "ruin"):
        (tmp_path / label).mkdir()
        for number in range(6):
            pixels = rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    assert run("init", tmp_path).exit_code == 0
    return tmp_path


# Stops itself when five images are embedded, in the way that a placeholder names.
STOPPED = """
import os, signal, sys, time
from concurrent.futures import wait
from archiveprobe import cli
import archiveprobe.embed.run as stage
from archiveprobe.embed.forward import ForwardThreads

real, submit, passes = stage.prepare_images, ForwardThreads.submit, []

def submitted(*given):
    passes.append(submit(*given))
    return passes[-1]

def stopped(*given, **named):
    for number, item in enumerate(real(*given, **named)):
        yield item
        if number == 4:
            wait(passes)
            {stop}

stage.prepare_images, ForwardThreads.submit = stopped, submitted
sys.argv[1:] = ["embed", sys.argv[1], "--workers", "1", "--batch-size", "6"]
cli.main()
"""


def is_resumed(archive: Path) -> None:
    rest = json.loads(run("embed", archive, "--workers", "0", "--json").stdout)
    assert (rest["embedded"], rest["reused"]) == (7, 5)
    assert run("cache", "verify", archive, "--deep").exit_code == 0


@pytest.mark.proves("killed")
@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_a_group_that_is_stopped_commits_what_is_done(
    archive: Path, number: signal.Signals
) -> None:
    program = STOPPED.format(stop=f"os.killpg(0, {int(number)}); time.sleep(60)")
    done = subprocess.run(
        [sys.executable, "-c", program, archive],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        start_new_session=True,
    )
    assert done.returncode == 128 + number
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith("interrupted: what was finished is kept")
    assert "Traceback" not in done.stderr
    is_resumed(archive)


@pytest.mark.proves("killed")
def test_a_terminal_that_is_closed(archive: Path) -> None:
    program = STOPPED.format(stop="print('READY', flush=True); time.sleep(60)")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execv(sys.executable, [sys.executable, "-c", program, str(archive)])  # noqa: S606
    said = b""
    while b"READY" not in said:
        said += os.read(terminal, 1024)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    is_resumed(archive)


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_a_second_one(number: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in STOPS]
    with pytest.raises(KeyboardInterrupt), stoppable() as stop:
        try:
            signal.raise_signal(number)
        finally:
            assert stop.exit_status == 128 + number
            # `timeout` sends SIGTERM twice, a shell and its terminal both hang up.
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert [signal.getsignal(one) for one in STOPS] == before


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert stop.number == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("fault", "status", "line"),
    [
        (RuntimeError("what a library makes of it"), 143, "interrupted"),
        (ImportError("half a module"), 143, "interrupted"),
        (OSError(5, "the terminal is gone"), 143, "interrupted"),
        (InputError("mend the table"), 1, "error: mend the table"),
        (InputError("the disk is full"), 1, "error: the disk is full"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_an_interrupt_turns_into(fault: Exception, status: int, line: str) -> None:
    @click.group(cls=Commands)
    def group() -> None:
        pass

    @group.command()
    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise fault from None

    result = CliRunner().invoke(group, ["work"])
    assert result.exit_code == status
    assert result.stderr.startswith(line)
    assert len(result.stderr.splitlines()) == 1


def python(program: str, *words: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"},
    )


@pytest.mark.proves("killed")
def test_ctrl_c_while_a_command_starts_prints_nothing(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import os; os.kill(os.getpid(), 2)\n")
    done = python("from archiveprobe import cli", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_ctrl_c_when_a_command_has_ended_prints_nothing(tmp_path: Path) -> None:
    program = "import atexit, os, cli\natexit.register(os.kill, os.getpid(), 2)\ncli.main()"
    done = python(program, "list", "views", folder=tmp_path)
    assert done.returncode == -signal.SIGINT
    assert done.stdout
    assert done.stderr == ""


def test_importing_the_commands_leaves_ctrl_c_alone(tmp_path: Path) -> None:
    program = "import signal, cli; print(signal.getsignal(2) is signal.default_int_handler)"
    assert python(program, folder=tmp_path).stdout == "True\n"


CHILD = """
import os, sys, time
from archiveprobe import cli

if __name__ == "__main__":
    import multiprocessing
    multiprocessing.get_context("spawn").Process(target=print).start()
    time.sleep(600)
else:
    print(os.getpid(), flush=True)
    pow(3, 10**10)  # in C, so that no thread has its turn
"""


@pytest.mark.proves("killed")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel of Linux does it")
def test_a_process_that_imports_ends_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(CHILD)
    command = [sys.executable, tmp_path / "parent.py"]
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=here) as parent:
        assert parent.stdout is not None
        assert int(parent.stdout.readline())
        parent.kill()
        # Its output ends when the child has.
        assert parent.stdout.read() == b""


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")

    def limit(size: int) -> None:
        monkeypatch.setattr(limits.resource, "getrlimit", lambda _: (size, size))

    return limit


@pytest.mark.parametrize(
    ("size", "threads"), [(resource.RLIM_INFINITY, None), (10**10, None), (10**9, "1")]
)
def test_little_memory_gets_one_thread(limited, size: int, threads: str | None) -> None:
    limited(size)
    limits.heed_memory_limit()
    assert os.environ.get("OPENBLAS_NUM_THREADS") == threads


def test_too_little_memory_is_told_before_it_runs_out(archive: Path) -> None:
    program = (
        "import resource, sys, cli\n"
        "resource.setrlimit(resource.RLIMIT_AS, (300_000_000, 300_000_000))\n"
        "cli.main()"
    )
    done = python(program, "embed", str(archive), "--workers", "2", folder=archive)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: this process may use 300 MB of memory only (ulimit -v)")
    assert python(program, "embed", "--help", folder=archive).returncode == 0


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (MemoryError(), "error: memory ran out"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "error: memory ran out"),
        (OSError(12, "Cannot allocate memory"), "error: memory ran out"),
        (ImportError("failed to map segment"), "error: a library cannot be loaded: failed to map"),
    ],
    ids=["memory", "torch", "system", "library"],
)
def test_memory_that_runs_out_is_one_line(
    archive: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, line: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr("archiveprobe.embed.run.embed", fail)
    result = run("embed", archive)
    assert result.exit_code == 1
    assert result.stderr.startswith(line)
    assert len(result.stderr.splitlines()) == 1
