"""A fault at every single call that concerns the disk: whole sessions, repairs, and reading."""

import contextlib
import errno
import io
import os

import numpy as np
import pytest

from archiveprobe.base import files, lock
from archiveprobe.base.errors import InputError
from archiveprobe.cache.store import Reader
from archiveprobe.cache.verify import verify

FAILED = b"f" * 32
ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EIO: "check the disk",
    errno.EROFS: "make it writable",
    errno.EACCES: "make it writable",
}


@pytest.fixture(autouse=True)
def no_empty_folder(tmp_path):
    (tmp_path / "beside").touch()  # An empty folder would be synced, by the first session only.


@pytest.fixture
def few(rows):
    return dict(list(rows.items())[:4])


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


def check_end(folder, rows):
    """The content of a run that nothing disturbed, and nothing beside it."""
    reader = Reader(folder)
    present, got = reader.read(list(rows))
    assert present.all()
    assert np.array_equal(got, np.stack(list(rows.values())).astype(np.float16))
    assert set(reader.failures) == {FAILED}
    assert verify(folder, deep=True).ok
    assert list(folder.rglob(".tmp-*")) == []


@pytest.mark.proves("disk")
@pytest.mark.parametrize(
    ("mode", "number", "step"),
    [
        ("once", errno.ENOSPC, 1),
        ("full", errno.ENOSPC, 2),
        ("once", errno.EIO, 3),
        ("gone", errno.EIO, 3),
        ("once", errno.EACCES, 4),
        ("gone", errno.EROFS, 4),
    ],
)
def test_an_error_at_any_call_loses_no_acknowledged_row(
    tmp_path, few, open_writer, faulty_os, working_os, mode, number, step
):
    faulty = faulty_os(-1, "once", number, (files, lock))
    session(tmp_path / "count", few, open_writer, set())
    working_os()
    assert faulty.calls > 40
    raised, tried = 0, range(1, faulty.calls + 1, step)
    for at in tried:
        folder, done = tmp_path / f"{at}", set()
        faulty_os(at, mode, number, (files, lock))
        try:
            session(folder, few, open_writer, done)
        except InputError as error:
            raised += 1
            message = str(error)
            assert "\n" not in message
            assert str(folder) in message
            assert ADVICE[number] in message
        working_os()
        assert not lock.is_locked(folder)
        if done:
            assert done <= set(Reader(folder).keys)
        if mode == "once" and folder.exists():
            assert list(folder.rglob(".tmp-*")) == []
        session(folder, few, open_writer, set())
        check_end(folder, few)
    assert raised > len(tried) / 2


@pytest.mark.proves("disk")
def test_a_process_that_dies_at_any_call_loses_no_acknowledged_row(
    tmp_path, few, open_writer, faulty_os, working_os, dead
):
    faulty = faulty_os(-1, "once")
    session(tmp_path / "count", few, open_writer, set())
    working_os()
    for at in range(1, faulty.calls + 1):
        folder, done = tmp_path / f"{at}", set()
        faulty_os(at, "dead")
        with pytest.raises(dead):
            session(folder, few, open_writer, done)
        working_os()
        if done:
            assert done <= set(Reader(folder).keys)
        session(folder, few, open_writer, set())
        check_end(folder, few)


def damage(folder, rows, write):
    """A cut shard, a missing one, a torn log, and a temporary; the first four rows are lost."""
    write(folder, rows, per_shard=2)
    first, second, third, _ = sorted((folder / "shards").iterdir())
    first.write_bytes(b"cut")
    second.unlink()
    log = folder / "commits.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:2]) + b"torn")
    (folder / ".tmp-1-a").write_bytes(b"x")
    assert third.exists()


@pytest.mark.proves("disk")
@pytest.mark.parametrize(
    ("mode", "number"), [("full", errno.ENOSPC), ("gone", errno.EIO), ("dead", errno.ENOSPC)]
)
def test_a_fault_at_any_call_of_a_repair(
    tmp_path, rows, open_writer, write, faulty_os, working_os, dead, mode, number
):
    damage(tmp_path / "count", rows, write)
    faulty = faulty_os(-1, "once", number)
    open_writer(tmp_path / "count").close()
    working_os()
    assert faulty.calls > 10
    for at in range(1, faulty.calls + 1, 2):
        folder = tmp_path / f"{at}"
        damage(folder, rows, write)
        faulty_os(at, mode, number)
        with contextlib.suppress(InputError, dead):
            open_writer(folder).close()
        working_os()
        with open_writer(folder) as writer:
            assert writer.keys == set(list(rows)[4:])
        assert verify(folder, deep=True).ok


class FaultyReads:
    """Looking at or reading what lies below `folder` fails at call number `at`."""

    CALLS = ((os, "stat"), (os, "listdir"), (os, "scandir"), (io, "open"))

    def __init__(self, folder, at):
        self.folder, self.at, self.calls = str(folder), at, 0

    def install(self, patch):
        for module, name in self.CALLS:
            patch.setattr(module, name, self._faulty(getattr(module, name)))

    def _faulty(self, real):
        def call(path, *arguments, **options):
            if not isinstance(path, int) and os.fspath(path).startswith(self.folder):
                self.calls += 1
                if self.calls == self.at:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(path, *arguments, **options)

        return call


@pytest.mark.proves("disk")
def test_a_read_that_fails_is_one_line_and_loses_nothing(
    tmp_path, rows, open_writer, write, monkeypatch
):
    def use(folder):
        """What comes of reading, repairing, reading again and checking: the complaints."""
        said = []
        for action in (lambda: Reader(folder).keys, lambda: open_writer(folder).close()) * 2:
            try:
                action()
            except InputError as error:
                said.append(str(error))
        return said + verify(folder, deep=True).bad

    at, complaints = 0, 0
    while True:
        at += 3
        folder = tmp_path / f"{at}"
        damage(folder, rows, write)
        with monkeypatch.context() as patch:
            faulty = FaultyReads(folder, at)
            faulty.install(patch)
            said = use(folder)
        assert not any("\n" in line for line in said)
        complaints += any("Input/output error" in line for line in said)
        with open_writer(folder) as writer:
            assert writer.keys == set(list(rows)[4:])
        if faulty.calls < at:
            break
    assert complaints > at / 3 / 2
