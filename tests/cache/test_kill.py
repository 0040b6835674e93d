"""SIGKILL at fifty random moments of a writer."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from archiveprobe.base.errors import InputError
from archiveprobe.cache.store import Reader, Writer
from archiveprobe.cache.verify import verify

KILLS, IN_A_ROW = 50, 5
ROWS, PER_SHARD = 18, 3
FINGERPRINT = {"backbone": "tiny"}
# One process with everything loaded forks a writer for every line it reads, so that a life costs
# milliseconds. A writer says what it does: "c" when it computes a row, "d" when its commit is done.
NURSERY = f"""
import os, sys
from pathlib import Path
import numpy as np
from archiveprobe.cache.store import Writer
import archiveprobe.cache.shard

def live(folder):
    os.write(1, b"s 0\\n")
    room = {PER_SHARD} * 6 * 2 - 1
    with Writer.open(folder, {FINGERPRINT}, {{}}, commit_bytes=room) as writer:
        for i in range({ROWS}):
            key = i.to_bytes(32, "big")
            if key in writer.keys:
                continue
            os.write(1, b"c %d\\n" % i)
            writer.add(key, np.full((2, 3), i + 1, np.float32))
            if not writer.pending:
                os.write(1, b"d %d\\n" % i)
    os.write(1, b"d %d\\n" % i)

os.fsync = lambda _: None  # What a killed process has written stays, synced or not.
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        live(Path(line.rstrip("\\n")))
        os._exit(0)
    os.write(1, b"p %d\\n" % child)
    status = os.waitpid(child, 0)[1]
    os.write(1, b"e %d\\n" % status)
"""


class Nursery:
    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def live(self, folder, seconds=None):
        """One life of a writer, killed `seconds` after it began: what it computed, what it was
        promised, how long it lived, and whether the kill ended it."""
        self._process.stdin.write(f"{folder}\n")
        computed, promised, open_rows, heard = [], set(), set(), {}
        while not {"p", "s"} <= heard.keys():
            word, number = self._process.stdout.readline().split()
            heard[word] = int(number)
        started = time.perf_counter()
        if seconds is not None:
            time.sleep(seconds)
            with contextlib.suppress(ProcessLookupError):
                os.kill(heard["p"], signal.SIGKILL)
        while True:
            word, number = self._process.stdout.readline().split()
            if word == "e":
                killed = os.WIFSIGNALED(int(number))
                return computed, promised, time.perf_counter() - started, killed
            if word == "c":
                computed.append(int(number))
                open_rows.add(int(number))
            else:
                promised |= open_rows
                open_rows.clear()

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)


@pytest.fixture
def nursery():
    nursery = Nursery()
    yield nursery
    nursery.close()


def key(number):
    return number.to_bytes(32, "big")


def held(folder):
    """The rows of the cache after it was opened for writing, which leaves no temporary."""
    with Writer.open(folder, FINGERPRINT, {}) as writer:
        numbers = {int.from_bytes(one, "big") for one in writer.keys}
    assert list(folder.rglob(".tmp-*")) == []
    return numbers


def visible(folder):
    """The rows that a reader finds before anybody mends anything."""
    try:
        return {int.from_bytes(one, "big") for one in Reader(folder).keys}
    except InputError:
        assert not (folder / "commits.jsonl").exists()
        return set()


def check_end(folder):
    reader = Reader(folder)
    present, got = reader.read([key(number) for number in range(ROWS)])
    assert present.all()
    assert np.array_equal(got, np.full((ROWS, 2, 3), np.arange(1, ROWS + 1)[:, None, None]))
    assert len(reader.keys) == ROWS
    assert verify(folder, deep=True).ok


@pytest.mark.proves("killed")
def test_a_killed_writer_loses_no_promised_row(nursery, tmp_path):
    """Nor does it leave a temporary, nor more than one shard's rows to compute again."""
    nursery.live(tmp_path / "first")  # Takes longer than the others.
    computed, promised, _, _ = nursery.live(tmp_path / "whole")
    assert computed == sorted(promised) == list(range(ROWS))
    check_end(tmp_path / "whole")
    chance, kills, repeats, begun = random.Random(0), 0, 0, 0
    while kills < KILLS:
        folder = tmp_path / f"{begun}"
        begun += 1
        assert begun < 10 * KILLS
        safe, before = set(), []
        # Measured anew, since a life takes as long as other work lets it.
        *_, lifetime, _ = nursery.live(tmp_path / f"{begun}-whole")
        for _ in range(IN_A_ROW):
            computed, promised, _, killed = nursery.live(folder, chance.uniform(0, lifetime))
            again = set(before) & set(computed)
            assert not again & safe
            assert len(again) <= PER_SHARD
            repeats += len(again)
            if not killed:
                break
            kills += 1
            safe |= promised
            assert safe <= visible(folder)
            assert safe <= held(folder)
            before = computed
        nursery.live(folder)
        check_end(folder)
    assert repeats > 0
