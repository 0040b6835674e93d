"""A fault at every single call that changes the disk, and a kill at random moments."""

import contextlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from cache.errors import CacheError
from cache.store import Reader
from cache.verify import verify

FAILED = b"f" * 32


def session(folder, rows, open_writer, done):
    """One run of embed; `done` receives the keys that a commit acknowledged."""
    with open_writer(folder) as writer:
        writer.fail(FAILED, "decode", "detail")
        for number, (key, row) in enumerate(rows.items()):
            writer.add(key, row)
            if number % 3 == 2:
                writer.commit()
                done |= writer.keys
    done |= set(rows)


def calls_of_a_session(folder, rows, open_writer, faulty_os, working_os):
    faulty = faulty_os(-1, "once")
    session(folder, rows, open_writer, set())
    working_os()
    return faulty.calls


@pytest.mark.parametrize("mode", ["once", "full", "dead"])
def test_a_fault_at_any_call_loses_no_acknowledged_row(
    tmp_path, rows, open_writer, faulty_os, working_os, dead, mode
):
    calls = calls_of_a_session(tmp_path / "count", rows, open_writer, faulty_os, working_os)
    assert calls > 40
    raised = 0
    for at in range(1, calls + 1):
        folder, done = tmp_path / f"{at}", set()
        faulty_os(at, mode)
        try:
            session(folder, rows, open_writer, done)
        except (CacheError, dead) as error:
            raised += 1
            assert isinstance(error, dead) == (mode == "dead")
            assert "\n" not in str(error)
        working_os()
        if done:
            assert done <= set(Reader(folder).keys)
        if mode == "once" and folder.exists():
            assert list(folder.rglob(".tmp-*")) == []
        again = set()
        session(folder, rows, open_writer, again)
        present, got = Reader(folder).read(list(rows))
        assert present.all()
        assert np.array_equal(got, np.stack(list(rows.values())).astype(np.float16))
        assert set(Reader(folder).failures) == {FAILED}
        assert verify(folder, deep=True).ok
        assert list(folder.rglob(".tmp-*")) == []
    assert raised > calls / 2


def test_a_fault_at_any_call_of_a_repair(
    tmp_path, rows, open_writer, write, faulty_os, working_os, dead
):
    def damaged(folder):
        write(folder, rows, per_shard=2)
        first, second, third, _ = sorted((folder / "shards").iterdir())
        first.write_bytes(b"cut")
        second.unlink()
        log = folder / "commits.jsonl"
        log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]) + b"torn")
        (folder / ".tmp-1-a").write_bytes(b"x")
        assert third.exists()

    damaged(tmp_path / "count")
    faulty = faulty_os(-1, "once")
    open_writer(tmp_path / "count").close()
    working_os()
    assert faulty.calls > 10
    for mode in ("full", "dead"):
        for at in range(1, faulty.calls + 1):
            folder = tmp_path / f"{mode}{at}"
            damaged(folder)
            faulty_os(at, mode)
            with contextlib.suppress(CacheError, dead):
                open_writer(folder).close()
            working_os()
            with open_writer(folder) as writer:
                assert writer.keys == set(list(rows)[4:])
            assert verify(folder, deep=True).ok


CHILD = """
import sys
from pathlib import Path
import numpy as np
from cache.store import Writer
with Writer.open(Path(sys.argv[1]), {"backbone": "tiny"}, {}, commit_bytes=20) as writer:
    for i in range(200):
        key = i.to_bytes(32, "big")
        if key not in writer.keys:
            writer.add(key, np.full((2, 3), i + 1, np.float32))
            writer.commit()
        print(i, flush=True)
"""


def killed_run(folder, moment):
    """Start the child, kill it some time after it acknowledged `moment` rows; what it said."""
    command = [sys.executable, "-c", CHILD, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        said = [child.stdout.readline() for _ in range(moment)]
        time.sleep(random.random() * 0.004)
        child.send_signal(signal.SIGKILL)
        said += child.stdout.readlines()
    return {int(line).to_bytes(32, "big") for line in said if line.endswith(b"\n")}


def test_a_killed_writer_loses_no_acknowledged_row(folder):
    moment = 0
    for _ in range(10):
        moment = min(190, moment + random.randint(1, 20))
        said = killed_run(folder, moment)
        assert len(said) >= moment
        assert said <= set(Reader(folder).keys)
    subprocess.run([sys.executable, "-c", CHILD, folder], capture_output=True, check=True)
    keys = [i.to_bytes(32, "big") for i in range(200)]
    present, got = Reader(folder).read(keys)
    assert present.all()
    assert np.array_equal(got[:, 0, 0], np.arange(1, 201))
    assert len(Reader(folder).keys) == 200
    assert verify(folder, deep=True).ok
