"""The clock goes backwards, or far ahead: commits still come, and no row is lost."""

import datetime
import os
import time

import numpy as np
import pytest

from archiveprobe.base import lock
from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock
from archiveprobe.cache import store
from archiveprobe.cache.store import Reader
from archiveprobe.cache.verify import verify

HOUR = 3600.0


@pytest.mark.proves("disk")
def test_a_clock_that_goes_back_puts_no_commit_off(folder, open_writer, monkeypatch):
    now = [50 * HOUR]
    monkeypatch.setattr(store.time, "monotonic", lambda: now[0])
    with open_writer(folder, commit_seconds=60) as writer:
        for step, expected in ((0, 0), (30, 0), (-HOUR, 3), (30, 3), (59, 3), (1, 6), (9, 6)):
            now[0] += step
            writer.add(bytes([len(writer.keys)]) * 32, np.ones((2, 3)))
            assert Reader(folder).rows == expected
    assert Reader(folder).rows == 7


@pytest.mark.proves("disk")
@pytest.mark.parametrize("step", [-1.0, -HOUR, 1e9])
def test_a_clock_that_jumps_at_every_look(folder, rows, open_writer, monkeypatch, step):
    now = [1e6]

    def jumping():
        now[0] += step
        return now[0]

    for name in ("monotonic", "time"):
        monkeypatch.setattr(time, name, jumping)
    with open_writer(folder) as writer:
        for number, (key, row) in enumerate(rows.items(), start=1):
            writer.add(key, row)
            # The first look begins to wait, the second one finds that nothing can be relied on.
            assert Reader(folder).rows == number // 2 * 2
    assert set(Reader(folder).keys) == set(rows)
    assert verify(folder, deep=True).ok


@pytest.mark.proves("disk")
def test_files_from_the_future_are_read_and_mended(folder, rows, write, open_writer):
    write(folder, rows)
    (folder / ".tmp-1-a").write_bytes(b"half")
    for path in folder.rglob("*"):
        os.utime(path, (time.time() + 1e6, time.time() + 1e6))
    with open_writer(folder) as writer:
        assert writer.keys == set(rows)
    assert not (folder / ".tmp-1-a").exists()
    assert verify(folder, deep=True).ok


def test_a_holder_that_began_in_the_future_is_named_and_blocks_nobody_later(tmp_path, monkeypatch):
    class Ahead(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2999, 1, 1, tzinfo=tz)

    monkeypatch.setattr(lock, "datetime", Ahead)
    with Lock(tmp_path):
        monkeypatch.undo()
        with pytest.raises(InputError, match="since 2999-01-01T00:00:00"):
            Lock(tmp_path).acquire()
    with Lock(tmp_path):
        pass
