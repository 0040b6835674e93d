"""Processes that Ctrl-C leaves alone, and that end with the one that started them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from archiveprobe.embed import processes

ORPHAN = """
import os, sys
from multiprocessing import get_context
from archiveprobe.embed.processes import end_with_parent

def wait(pipe):
    end_with_parent()
    print(os.getpid(), flush=True)
    pipe.recv()

if __name__ == "__main__":
    mine, other = get_context("spawn").Pipe()
    for _ in range(2):
        get_context("spawn").Process(target=wait, args=(other,)).start()
    mine.recv()
"""


def test_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "orphan.py").write_text(ORPHAN)
    command = [sys.executable, tmp_path / "orphan.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        children = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
        # Its output ends when the last of them has.
        assert parent.stdout.read() == b""
    assert len(set(children)) == 2


@pytest.mark.proves("killed")
@pytest.mark.parametrize("number", processes.STOPS, ids=lambda number: number.name)
@pytest.mark.parametrize("later", [processes.interrupt_later, processes.stops_later])
def test_an_interrupt_waits_for_the_end_of_the_block(number, later) -> None:
    before = signal.signal(number, signal.default_int_handler)
    try:
        done = []
        with pytest.raises(KeyboardInterrupt), later():
            os.kill(os.getpid(), number)
            done += [sum(1 for _ in range(1000))]
            child = f"import signal; print(int({int(number)} in signal.pthread_sigmask(0, [])))"
            asked = subprocess.run([sys.executable, "-c", child], capture_output=True, check=True)
            done.append(int(asked.stdout))
        assert done == [1000, 1]
        assert signal.getsignal(number) is signal.default_int_handler
        assert number not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.signal(number, before)
