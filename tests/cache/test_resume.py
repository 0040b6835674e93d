import hashlib
from pathlib import Path

import numpy as np
import pytest

from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import is_locked
from archiveprobe.cache import log, shard, spec
from archiveprobe.cache.store import Reader, Writer
from archiveprobe.cache.verify import verify


@pytest.fixture
def cached(folder, rows, write):
    write(folder, rows)
    return folder


def shards(folder):
    return sorted((folder / "shards").iterdir())


def complete(folder, rows, open_writer):
    """Finish the cache as embed would; returns the number of rows that had to be added."""
    with open_writer(folder) as writer:
        absent = [key for key in rows if key not in writer.keys]
        for key in absent:
            writer.add(key, rows[key])
    present, got = Reader(folder).read(list(rows))
    assert present.all()
    assert np.array_equal(got, np.stack(list(rows.values())).astype(np.float16))
    assert verify(folder, deep=True).ok
    return len(absent)


def test_nothing_to_repair_writes_nothing(cached, rows, open_writer):
    before = {path: path.stat().st_mtime_ns for path in cached.rglob("*.*")}
    with open_writer(cached) as writer:
        assert writer.notes == []
    assert before == {path: path.stat().st_mtime_ns for path in cached.rglob("*.*")}


def test_temporaries_are_dropped(cached, rows, open_writer):
    for place in (cached, cached / "shards"):
        (place / ".tmp-1-abc").write_bytes(b"half")
    assert complete(cached, rows, open_writer) == 0
    assert list(cached.rglob(".tmp-*")) == []


@pytest.mark.proves("damage")
def test_every_cut_of_the_log_is_mended(cached, rows, open_writer):
    path = cached / log.COMMITS
    whole = path.read_bytes()
    for length in range(0, len(whole), 59):
        path.write_bytes(whole[:length])
        assert complete(cached, rows, open_writer) == 0  # orphans are adopted
        assert not log.read_log(path).damaged


@pytest.mark.proves("damage")
def test_garbage_in_the_middle_of_the_log_loses_no_row(cached, rows, open_writer):
    path = cached / log.COMMITS
    data = bytearray(path.read_bytes())
    data[20] ^= 0xFF
    path.write_bytes(data)
    assert complete(cached, rows, open_writer) == 0


def test_missing_shard_is_requeued(cached, rows, open_writer):
    shards(cached)[1].unlink()
    assert complete(cached, rows, open_writer) == 3


@pytest.mark.parametrize(
    "change", [lambda data: data[:-7], lambda data: data + b"x", lambda _: b""]
)
def test_wrong_size_is_set_aside(cached, rows, open_writer, change):
    path = shards(cached)[1]
    bad = change(path.read_bytes())
    path.write_bytes(bad)
    assert complete(cached, rows, open_writer) == 3
    assert (cached / "set-aside" / path.name).read_bytes() == bad


def test_damaged_keys_are_set_aside(cached, rows, open_writer):
    path = shards(cached)[1]
    data = bytearray(path.read_bytes())
    data[data.index(list(rows)[4])] ^= 1
    path.write_bytes(data)
    assert complete(cached, rows, open_writer) == 3


def test_broken_orphan_is_set_aside(cached, rows, open_writer):
    (cached / log.COMMITS).unlink()
    path = shards(cached)[0]
    data = bytearray(path.read_bytes())
    data[data.index(next(iter(rows.values())).astype(np.float16).tobytes())] ^= 1
    path.write_bytes(data)
    with open_writer(cached) as writer:
        assert len(writer.keys) == 4
        assert any(path.name in note for note in writer.notes)
    assert complete(cached, rows, open_writer) == 3


def orphan(folder, embeddings, key=b"o" * 32, norm=None):
    n = len(embeddings)
    data = shard.build(
        np.frombuffer(key * n, np.uint8).reshape(n, 32),
        embeddings,
        shard.row_norms(embeddings) if norm is None else norm,
        np.ones((n, 2), np.bool_),
    )
    sha256 = hashlib.sha256(data).hexdigest()
    path = folder / "shards" / log.shard_name(50, sha256)
    path.write_bytes(data)
    return path


def test_whole_orphan_is_adopted(cached, open_writer):
    path = orphan(cached, np.ones((1, 2, 3), np.float16))
    with open_writer(cached) as writer:
        assert b"o" * 32 in writer.keys
        assert any("adopted" in note for note in writer.notes)
    assert Reader(cached).commits[-1].file == path.name


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: orphan(folder, np.zeros((1, 2, 3), np.float16)),
        lambda folder: orphan(folder, np.full((1, 2, 3), np.nan, np.float16)),
        lambda folder: orphan(folder, np.ones((1, 2, 3), np.float16), norm=np.ones((1, 2), "f4")),
        lambda folder: orphan(folder, np.ones((2, 2, 3), np.float16)),
        lambda folder: orphan(folder, np.ones((1, 2, 4), np.float16)),
        lambda folder: orphan(folder, np.ones((1, 2, 3), np.float16), key=bytes([1]) * 32),
        lambda folder: orphan(folder, np.ones((1, 2, 3), np.float16)).rename(
            folder / "shards" / "000050-00000000.h5"
        ),
    ],
    ids=["zero", "nan", "norm", "key twice", "shape", "known key", "name"],
)
def test_orphans_that_prove_nothing_are_set_aside(cached, rows, open_writer, make):
    path = make(cached)
    assert complete(cached, rows, open_writer) == 0
    assert not path.exists()
    assert (cached / "set-aside" / path.name).exists()


def test_names_are_never_used_twice(cached, rows, open_writer):
    first = shards(cached)[2]
    first.write_bytes(b"")
    complete(cached, rows, open_writer)
    assert shards(cached)[2].name.startswith("000003-")
    shards(cached)[2].write_bytes(b"")
    complete(cached, rows, open_writer)
    assert shards(cached)[2].name.startswith("000004-")
    assert len(list((cached / "set-aside").iterdir())) == 2


def test_foreign_files_stay(cached, rows, open_writer):
    (cached / "shards" / "notes.txt").write_text("mine")
    assert complete(cached, rows, open_writer) == 0
    assert (cached / "shards" / "notes.txt").read_text() == "mine"


def test_link_in_place_of_a_shard_is_set_aside(cached, rows, open_writer, tmp_path):
    path = shards(cached)[0]
    path.rename(tmp_path / "real")
    path.symlink_to(tmp_path / "real")
    assert complete(cached, rows, open_writer) == 3
    assert (tmp_path / "real").exists()


def test_torn_failures_do_not_swallow_the_next(cached, open_writer):
    (cached / log.FAILURES).write_bytes(b'{"image": "00')
    with open_writer(cached) as writer:
        writer.fail(b"f" * 32, "decode", "detail")
    assert Reader(cached).failures == {b"f" * 32: ("decode", "detail")}


@pytest.fixture
def named(tmp_path, rows, write, fingerprint):
    """A cache whose folder name says which fingerprint it belongs to."""
    folder = tmp_path / spec.folder_name("tiny", fingerprint)
    write(folder, rows)
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize("harm", [cut, Path.unlink])
def test_a_lost_record_is_written_anew_and_costs_no_row(named, rows, open_writer, harm):
    whole = (named / spec.FILE).read_bytes()
    harm(named / spec.FILE)
    with open_writer(named) as writer:
        assert writer.keys == set(rows)
        [note] = writer.notes
        assert note.startswith("fingerprint.json was written again")
    assert (named / spec.FILE).read_bytes() == whole
    assert complete(named, rows, open_writer) == 0


def test_a_lost_record_takes_the_row_shape_from_a_whole_shard(named, rows, open_writer):
    (named / spec.FILE).unlink()
    (named / log.COMMITS).unlink()
    cut(shards(named)[0])
    assert complete(named, rows, open_writer) == 3


@pytest.mark.parametrize("harm", [cut, Path.unlink])
def test_without_a_record_nothing_is_believed_of_another_fingerprint(named, fingerprint, harm):
    harm(named / spec.FILE)
    before = shards(named)
    with pytest.raises(InputError, match=r"move the folder .* away"):
        Writer.open(named, fingerprint | {"precision": "bf16"}, {})
    assert shards(named) == before
    assert not is_locked(named)
