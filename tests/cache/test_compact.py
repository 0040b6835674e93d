"""Small shards become few large ones; killed anywhere in between, nothing is lost or doubled."""

import numpy as np
import pytest

from archiveprobe.base import files, lock
from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock
from archiveprobe.cache import key_index, log
from archiveprobe.cache.compact import compact
from archiveprobe.cache.store import Reader
from archiveprobe.cache.verify import verify


@pytest.fixture(autouse=True)
def indexed(monkeypatch):
    monkeypatch.setattr(key_index, "RECENT_SHARDS", 2)


def make(folder, rows, open_writer):
    """A plain log of three shards, two shares, and a key that a share has a second time."""
    keys = list(rows)

    def put(writer, part):
        for key in part:
            writer.add(key, rows[key])
            writer.commit()

    with open_writer(folder) as writer:
        put(writer, keys[:3])
    with open_writer(folder, share="1of2") as first, open_writer(folder, share="2of2") as second:
        put(first, keys[3:5])
        put(second, keys[4:])
        second.fail(b"f" * 32, "decode", "detail")


@pytest.fixture
def cached(folder, rows, open_writer):
    make(folder, rows, open_writer)
    return folder


def check(folder, rows):
    reader = Reader(folder)
    present, got = reader.read(list(rows))
    assert present.all()
    assert np.array_equal(got, np.stack(list(rows.values())).astype(np.float16))
    assert reader.rows == len(rows)
    assert set(reader.failures) == {b"f" * 32}
    assert verify(folder, deep=True).ok


def check_compact(folder, rows, shards=None):
    check(folder, rows)
    assert verify(folder, deep=True).rows == len(rows)
    assert sorted(path.name for path in folder.glob("*.jsonl")) == [log.COMMITS, log.FAILURES]
    names = [commit.file for commit in Reader(folder).commits]
    assert sorted(path.name for path in (folder / "shards").iterdir()) == sorted(names)
    assert len(names) == (shards or len(names))
    assert not (folder / "set-aside").exists()
    assert list(folder.rglob(".tmp-*")) == []


def test_all_rows_in_one_shard(cached, rows, open_writer):
    assert Reader(cached).rows == 7
    assert verify(cached, deep=False).rows == 8
    done = compact(cached)
    assert (done.before, done.after, done.notes) == (8, 1, [])
    check_compact(cached, rows, 1)
    before = {path: path.read_bytes() for path in cached.rglob("*") if path.is_file()}
    again = compact(cached)
    assert (again.before, again.after) == (1, 1)
    assert before == {path: path.read_bytes() for path in cached.rglob("*") if path.is_file()}
    with open_writer(cached) as writer:
        assert writer.keys == set(rows)
        assert writer.notes == []


def test_shards_keep_below_the_size(cached, rows):
    most = max(commit.bytes for commit in Reader(cached).commits) + 9
    compact(cached, most)
    check_compact(cached, rows, 7)
    assert compact(cached, most).after == 7
    compact(cached, 2 * most)
    check_compact(cached, rows)
    assert most < max(commit.bytes for commit in Reader(cached).commits) <= 2 * most


def test_a_writer_beside_it_is_refused(cached, open_writer):
    with open_writer(cached, share="1of2"), pytest.raises(InputError, match="another process"):
        compact(cached)
    with Lock(cached), pytest.raises(InputError, match="another process"):
        compact(cached)


def test_readers_that_are_open_go_on(cached, rows):
    opened, half_read = Reader(cached), Reader(cached)
    assert half_read.keys == set(rows)
    compact(cached)
    for reader in (opened, half_read):
        present, got = reader.read(list(rows))
        assert present.all()
        assert np.array_equal(got, np.stack(list(rows.values())).astype(np.float16))
    opened = Reader(cached)
    (path,) = (cached / "shards").iterdir()
    path.unlink()
    with pytest.raises(InputError, match="lost the embedding"):
        opened.read(list(rows))


def test_a_damaged_shard_stops_it_and_loses_nothing_else(cached, rows):
    path = cached / "shards" / Reader(cached).commits[1].file
    data = bytearray(path.read_bytes())
    data[data.index(list(rows.values())[1].astype(np.float16).tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=path.name):
        compact(cached)
    assert verify(cached, deep=True).bad_shards == [path.name]


@pytest.mark.proves("killed")
@pytest.mark.parametrize("mode", ["dead", "full"])
def test_killed_at_any_call(tmp_path, rows, open_writer, faulty_os, working_os, dead, mode):
    """By a kill, or by a disk that is full from then on."""
    folder = tmp_path / "count" / "tiny-0123456789abcdef"
    make(folder, rows, open_writer)
    size = 4 * max(commit.bytes for commit in Reader(folder).commits)
    # A dead process gives its locks back; here it lives on.
    modules = (files,) if mode == "dead" else (files, lock)
    faulty = faulty_os(-1, "once", modules=modules)
    compact(folder, size)
    working_os()
    assert faulty.calls > 60
    stopped = 0
    for at in range(1, faulty.calls + 1, 3 if mode == "dead" else 7):
        folder = tmp_path / f"{at}" / "tiny-0123456789abcdef"
        make(folder, rows, open_writer)
        faulty_os(at, mode, modules=modules)
        try:
            compact(folder, size)
        except (dead, InputError):
            stopped += 1
        working_os()
        check(folder, rows)
        if at % 2:
            with open_writer(folder) as writer:
                assert writer.keys == set(rows)
            check(folder, rows)
        compact(folder, size)
        check_compact(folder, rows)
    assert stopped > 8


@pytest.mark.proves("killed")
def test_a_reader_at_any_moment_sees_all_rows(cached, rows, monkeypatch):
    """Whatever compaction has done so far, opened before or after."""
    before, seen = Reader(cached), []

    class Watched:
        def __getattr__(self, name):
            import os

            real = getattr(os, name)
            if name not in ("replace", "unlink", "open"):
                return real

            def call(*arguments, **options):
                done = real(*arguments, **options)
                for reader in (before, Reader(cached)):
                    assert reader.read(list(rows))[0].all()
                seen.append(name)
                return done

            return call

    monkeypatch.setattr(files, "os", Watched())
    compact(cached)
    monkeypatch.undo()
    assert len(seen) > 30
    check_compact(cached, rows, 1)
    assert log.read_log(cached / log.COMMITS).entries == Reader(cached).commits
