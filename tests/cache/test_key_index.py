"""The keys of a cache are found without reading shards, and the index is never believed blindly."""

import hashlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiveprobe.base.errors import InputError
from archiveprobe.cache import key_index, log, shard
from archiveprobe.cache.key_index import KeyIndex
from archiveprobe.cache.key_piece import key_array
from archiveprobe.cache.log import Commit
from archiveprobe.cache.store import Reader
from archiveprobe.cache.verify import repair, verify


@pytest.fixture
def many():
    """Forty rows under keys with zeros at their ends, which numpy drops from scalars."""
    chance = random.Random(3)
    keys = [bytes([i % 3, i]) + chance.randbytes(29) + b"\0" for i in range(40)]
    return {key: np.full((1, 3), at + 1, np.float32) for at, key in enumerate(keys)}


@pytest.fixture
def indexed(monkeypatch, folder, many, write):
    """A cache of twenty shards, of which nearly all are in pieces of an index."""
    monkeypatch.setattr(key_index, "RECENT_SHARDS", 3)
    write(folder, many, per_shard=2)
    return folder


def pieces(folder):
    return sorted((folder / "index").rglob("*.keys"))


@pytest.fixture
def shards_read(monkeypatch):
    """Count the shards whose keys are read."""
    read, real = [], shard.read_keys

    def counted(path, *arguments):
        read.append(path)
        return real(path, *arguments)

    monkeypatch.setattr(shard, "read_keys", counted)
    return read


def check(folder, rows):
    reader = Reader(folder)
    assert reader.keys == set(rows)
    assert sorted(reader.keys) == sorted(rows)
    present, got = reader.read([*rows, b"?" * 32, None])
    assert present.tolist() == [True] * len(rows) + [False] * 2
    assert np.array_equal(got[: len(rows)], np.stack(list(rows.values())))
    assert verify(folder, deep=True).ok


@pytest.mark.proves("scale")
def test_keys_are_found_without_reading_shards(indexed, many, open_writer, shards_read):
    assert len(pieces(indexed)) <= 3
    reader = Reader(indexed)
    assert reader.keys.holds([*many, b"?" * 32]).tolist() == [True] * 40 + [False]
    assert all(key in reader.keys for key in many)
    assert b"?" * 32 not in reader.keys
    assert {*many, b"?" * 32} - reader.keys == {b"?" * 32}
    assert {*many, b"?" * 32} & reader.keys == many.keys()
    assert len(shards_read) < 3
    shards_read.clear()
    with open_writer(indexed) as writer:
        assert writer.notes == []
        assert writer.keys == set(many)
    assert len(shards_read) < 3
    check(indexed, many)


def test_rows_of_earlier_runs_are_stored_once(indexed, many, open_writer):
    key = next(iter(many))
    with open_writer(indexed) as writer:
        writer.add(key, many[key] + 1)
        writer.add(b"n" * 32, np.ones((1, 3)))
        writer.fail(key, "late", "it has a row")
        assert len(writer.keys) == 41
    assert Reader(indexed).failures == {}
    check(indexed, many | {b"n" * 32: np.ones((1, 3))})
    with open_writer(indexed) as writer:
        writer.add(key, many[key])
    assert verify(indexed, deep=True).rows == 41


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.proves("damage")
@pytest.mark.parametrize(
    "harm",
    [
        flip,
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.rename(path.with_name(f"{'0' * 64}.keys")),
        lambda path: (path.rename(path.with_suffix(".old")), path.symlink_to("elsewhere")),
    ],
)
def test_a_piece_that_does_not_prove_itself_is_made_again(indexed, many, open_writer, harm):
    before = pieces(indexed)
    harm(before[0])
    check(indexed, many)
    with open_writer(indexed) as writer:
        assert writer.keys == set(many)
        assert writer.notes == []
    check(indexed, many)


def test_a_cache_without_an_index(indexed, many, open_writer, shards_read):
    for path in pieces(indexed):
        path.unlink()
    check(indexed, many)
    open_writer(indexed).close()
    shards_read.clear()
    check(indexed, many)
    assert len(shards_read) < 10


def test_shards_that_have_gone_are_left_out(indexed, many, open_writer):
    paths = sorted((indexed / "shards").glob("*.h5"))
    paths[4].unlink()
    paths[7].write_bytes(b"cut")
    lost = [*list(many)[8:10], *list(many)[14:16]]
    with open_writer(indexed) as writer:
        assert writer.keys == many.keys() - set(lost)
        for key in lost:
            writer.add(key, many[key])
    check(indexed, many)
    assert verify(indexed, deep=True).rows == 40


def test_a_damaged_shard_that_the_index_covers_is_found_on_reading(indexed, many, open_writer):
    path = sorted((indexed / "shards").glob("*.h5"))[0]
    flip(path)
    with pytest.raises(InputError, match=r"its SHA-256 is not the log's; run .*--deep"):
        Reader(indexed).read(list(many))
    report = verify(indexed, deep=True)
    assert report.bad_shards == [path.name]
    repair(indexed, report)
    with open_writer(indexed) as writer:
        for key, row in many.items():
            writer.add(key, row)
    check(indexed, many)


def forge(folder, change):
    """Sign a changed piece, as a stranger could."""
    path = max(pieces(folder), key=lambda path: path.stat().st_size)
    data = change(path.read_bytes())
    path.unlink()
    path.with_name(f"{hashlib.sha256(data).hexdigest()}.keys").write_bytes(data)


@pytest.mark.proves("hostile")
@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-4] + b"\xff" * 4,
        lambda data: data[data.index(b"\n\n") + 1 :],
        lambda data: data.replace(b"\n\n", b"\n \n"),
        lambda data: b"\n\n" + data,
        lambda data: bytes(100),
    ],
)
def test_a_hostile_piece_is_no_piece(indexed, many, change):
    forge(indexed, change)
    check(indexed, many)


@pytest.mark.proves("hostile")
def test_a_piece_that_names_other_shards_gives_no_wrong_number(indexed, many):
    def swap(data):
        start = data.index(b"\n\n") + 2
        count = (len(data) - start) // 36
        numbers = np.frombuffer(data, "<u4", count, start + 32 * count)
        return data[: start + 32 * count] + numbers[::-1].tobytes()

    forge(indexed, swap)
    with pytest.raises(InputError, match="remove the folder index") as caught:
        Reader(indexed).read(list(many))
    assert "\n" not in str(caught.value)
    assert not verify(indexed, deep=True).ok


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.binary(min_size=32, max_size=32), max_size=6), max_size=9), st.data())
def test_an_index_is_a_dictionary(tmp_path_factory, lists, data):
    place = tmp_path_factory.mktemp("index") / "index"
    wanted = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_index, "RECENT_ROWS", 4)
        index = KeyIndex(place, [], keep=data.draw(st.booleans()))
        for keys in lists:
            new = [key for key in dict.fromkeys(keys) if key not in wanted]
            if new:
                number = len(index.commits)
                wanted |= dict.fromkeys(new, number)
                name = log.shard_name(number, "a" * 64)
                index.add(Commit(name, len(new), 999, "a" * 64), new)
        asked = [*wanted, b"\0" * 32, b"\xff" * 32]
        expected = [*wanted.values(), *(wanted.get(key, -1) for key in asked[-2:])]
        assert index.find(asked, key_array(asked)).tolist() == expected
        assert sorted(index) == sorted(wanted)


@pytest.mark.proves("scale")
def test_pieces_stay_few(tmp_path, monkeypatch):
    monkeypatch.setattr(key_index, "RECENT_ROWS", 4)
    index = KeyIndex(tmp_path / "index", [], keep=True)
    most = 0
    for number in range(300):
        commit = Commit(log.shard_name(number, "a" * 64), 4, 999, "a" * 64)
        index.add(commit, [random.Random(4 * number + i).randbytes(32) for i in range(4)])
        most = max(most, len(list((tmp_path / "index").iterdir())))
    assert most <= 6
    assert len(index) == len(list(index)) == 1200
