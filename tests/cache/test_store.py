import json
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.cache import log, shard
from archiveprobe.cache.spec import CacheRecord
from archiveprobe.cache.store import Reader, Writer

KEY = b"k" * 32


def opened(folder, fingerprint=None, **options):
    return Writer.open(folder, fingerprint or {"a": 1}, {"r": 1}, **options)


def stored(rows):
    return np.stack(list(rows.values())).astype(np.float16)


def test_rows_come_back_in_the_order_asked_for(folder, rows, write):
    write(folder, rows)
    reader = Reader(folder)
    assert (reader.rows, len(reader.commits), reader.row_shape) == (7, 3, (2, 3))
    assert set(reader.keys) == set(rows)
    names = sorted(rows, reverse=True)
    asked = [names[0], None, *names, b"?" * 32, names[3], names[3]]
    present, got = reader.read(asked)
    assert got.dtype == np.float16
    for key, there, row in zip(asked, present, got, strict=True):
        assert there == (key in rows)
        assert np.array_equal(row, rows[key].astype(np.float16)) if there else np.isnan(row).all()


def test_any_order_over_several_shards(folder):
    rng = np.random.default_rng(0)
    rows = {rng.bytes(32): rng.standard_normal((1, 70)).astype(np.float32) for _ in range(400)}
    with opened(folder, commit_bytes=30_000) as writer:
        for key, row in rows.items():
            assert writer.add(key, row) is None
    reader = Reader(folder)
    assert len(reader.commits) == 2
    keys, wanted = list(rows), stored(rows)
    for choice in (range(400), range(399, -1, -1), rng.integers(0, 400, 500), [17], []):
        present, got = reader.read([keys[i] for i in choice])
        assert present.all()
        assert np.array_equal(got, wanted[np.array(choice, int)])


@pytest.mark.parametrize(("keeps", "proofs"), [(False, 7), (True, 3)])
def test_neighbouring_rows_prove_their_shard_once(
    folder, rows, write, monkeypatch, keeps, proofs
) -> None:
    write(folder, rows)
    reader, proved = Reader(folder, keep_shard=keeps), []

    def read_proved(path, sha256):
        proved.append(path)
        return real(path, sha256)

    real = shard.read_proved
    monkeypatch.setattr(shard, "read_proved", read_proved)
    got = np.concatenate([reader.read([key])[1] for key in rows])
    assert np.array_equal(got, stored(rows)) and len(proved) == proofs


ROWS = st.dictionaries(
    st.binary(min_size=32, max_size=32),
    arrays.arrays(
        np.float32, (2, 3), elements=st.floats(-60000, 60000, width=16).filter(lambda x: x != 0)
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=10, deadline=None)
@given(ROWS, st.data())
def test_order_and_shards_change_nothing(rows, draw):
    with tempfile.TemporaryDirectory() as place:
        read = []
        for number in range(2):
            order = draw.draw(st.permutations(list(rows)))
            breaks = draw.draw(st.sets(st.integers(0, len(rows))))
            with opened(Path(place) / str(number)) as writer:
                for i, key in enumerate(order):
                    if i in breaks:
                        writer.commit()
                    assert writer.add(key, rows[key]) is None
            read.append(Reader(Path(place) / str(number)).read(list(rows))[1])
    assert np.array_equal(read[0], stored(rows))
    assert np.array_equal(read[1], stored(rows))


@pytest.mark.proves("writers")
def test_a_second_writer_is_refused_naming_the_first(folder):
    with opened(folder), pytest.raises(InputError, match=r"pid \d+ on host .* since"):
        opened(folder)
    with opened(folder):
        pass


def test_another_fingerprint_is_refused_naming_the_field(folder):
    opened(folder, {"a": {"b": 1}}).close()
    with pytest.raises(InputError, match=r"another a\.b \(1, now 2\)"):
        opened(folder, {"a": {"b": 2}})
    opened(folder, {"a": {"b": 1}}).close()


def test_the_request_follows_the_last_run(folder):
    opened(folder).close()
    Writer.open(folder, {"a": 1}, {"r": 2}).close()
    assert CacheRecord.read(folder).request == {"r": 2}


def test_row_shape_is_declared_with_the_first_row(folder):
    with opened(folder) as writer:
        assert writer.row_shape is None
        writer.add(KEY, np.ones((2, 3)))
        with pytest.raises(InputError, match=r"\(3, 2\).*\(2, 3\)"):
            writer.add(b"o" * 32, np.ones((3, 2)))
    assert CacheRecord.read(folder).row_shape == (2, 3)
    with opened(folder) as writer:
        assert writer.row_shape == (2, 3)


@pytest.mark.parametrize("shape", [(), (0, 3)])
def test_rows_without_numbers_are_refused(folder, shape):
    with opened(folder) as writer, pytest.raises(InputError, match="row shape"):
        writer.add(KEY, np.ones(shape))


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (np.nan, "non_finite"),
        (np.inf, "non_finite"),
        (65520, "non_finite"),
        (1e-9, "zero"),
        (0, "zero"),
    ],
)
def test_bad_rows_become_failures_after_the_cast(folder, value, status):
    row = np.ones((2, 3), np.float32)
    row[1] = value
    with opened(folder) as writer:
        assert writer.add(KEY, row) == status
        assert KEY not in writer.keys
        assert writer.failures[KEY].status == status
    assert Reader(folder).failures[KEY].status == status
    assert Reader(folder).rows == 0


def test_a_known_key_is_ignored_and_a_buffer_may_be_reused(folder):
    row = np.ones((1, 2), np.float32)
    with opened(folder) as writer:
        writer.add(KEY, row)
        row[:] = 5
        assert writer.add(KEY, row) is None
        writer.commit()
        writer.add(KEY, row)
        assert writer.pending == 0
    assert Reader(folder).read([KEY])[1].tolist() == [[[1, 1]]]


def test_a_key_is_32_bytes(folder):
    with opened(folder) as writer:
        for call in (
            lambda: writer.add(b"k", np.ones((1, 1))),
            lambda: writer.fail(b"k", "s", "d"),
        ):
            with pytest.raises(InputError, match="key"):
                call()


def test_failures_last_until_a_row_comes(folder):
    with opened(folder) as writer:
        writer.fail(KEY, "decode", "one")
        writer.fail(KEY, "missing", "two")
        writer.fail(b"o" * 32, "decode", "other")
    assert Reader(folder).failures == {KEY: ("missing", "two"), b"o" * 32: ("decode", "other")}
    with opened(folder) as writer:
        assert writer.failures == Reader(folder).failures
        before = (folder / log.FAILURES).stat().st_size
        writer.fail(KEY, "missing", "two")
        writer.commit()
        assert (folder / log.FAILURES).stat().st_size == before
        writer.add(KEY, np.ones((1, 1)))
        writer.fail(KEY, "late", "ignored")
        assert KEY not in writer.failures
    assert set(Reader(folder).failures) == {b"o" * 32}


def test_nothing_is_written_without_the_lock(folder):
    with opened(folder) as writer:
        pass
    writer.close()
    writer.add(KEY, np.ones((1, 1)))
    with pytest.raises(InputError, match="closed"):
        writer.commit()
    assert Reader(folder).rows == 0


def test_commits_come_by_size(folder):
    with opened(folder, commit_bytes=24) as writer:
        for i, expected in enumerate([0, 0, 0, 4, 4]):
            writer.add(bytes([i]) * 32, np.ones((2, 2)))
            assert Reader(folder).rows == expected


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_leaving_by_an_exception_commits(folder, error):
    with pytest.raises(error), opened(folder) as writer:
        writer.add(KEY, np.ones((1, 1)))
        raise error
    assert set(Reader(folder).keys) == {KEY}
    opened(folder).close()


def test_the_first_error_wins_over_a_failing_commit(folder, faulty_os, working_os):
    with pytest.raises(KeyboardInterrupt) as caught, opened(folder) as writer:
        writer.add(KEY, np.ones((1, 1)))
        faulty_os(1, "full")
        raise KeyboardInterrupt
    assert any("free some space" in note for note in caught.value.__notes__)
    working_os()
    opened(folder).close()


def test_a_commit_that_cannot_be_logged_leaves_no_orphan(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    with opened(folder) as writer:
        writer.add(KEY, np.ones((1, 1)))
        with monkeypatch.context() as patch, pytest.raises(InputError, match="free some space"):
            patch.setattr(files, "append_durable", full)
            writer.commit()
        assert list((folder / "shards").iterdir()) == []
        assert writer.pending == 1
        writer.add(b"o" * 32, np.ones((1, 1)))
    with opened(folder) as writer:
        assert writer.notes == []
        assert writer.keys == {KEY, b"o" * 32}


def test_the_reader_writes_nothing(folder, rows, write, faulty_os):
    write(folder, rows)
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    folder.chmod(0o555)
    faulty = faulty_os(1, "dead")
    reader = Reader(folder)
    reader.read(list(reader.keys))
    assert faulty.calls == 0
    assert before == sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    folder.chmod(0o755)


def test_an_empty_cache(folder):
    opened(folder).close()
    reader = Reader(folder)
    assert (reader.rows, reader.size, len(reader.keys), reader.row_shape) == (0, 0, 0, None)
    with pytest.raises(InputError, match="no rows yet"):
        reader.read([KEY])
    replace(reader.record, row_shape=(1, 2)).write()
    assert np.isnan(Reader(folder).read([KEY])[1]).all()


def shard_of(folder, number=1):
    return sorted((folder / "shards").iterdir())[number]


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])]
)
def test_missing_and_cut_shards_are_named(folder, rows, write, damage):
    write(folder, rows)
    path = shard_of(folder)
    damage(path)
    with pytest.raises(InputError, match="archiveprobe embed TASK") as caught:
        Reader(folder)
    assert str(path) in str(caught.value)


def test_a_damaged_line_inside_the_log_is_not_passed_over(folder, rows, write):
    write(folder, rows)
    path = folder / log.COMMITS
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="line 1 is damaged"):
        Reader(folder)


def test_a_torn_last_line_is_no_commit(folder, rows, write):
    write(folder, rows)
    path = folder / log.COMMITS
    path.write_bytes(path.read_bytes()[:-1])
    assert Reader(folder).rows == 6


def test_a_key_in_two_shards_is_refused(folder, rows, write):
    write(folder, rows)
    data = shard_of(folder).read_bytes()
    entry = log.read_log(folder / log.COMMITS).entries[1]
    again = entry._replace(file="000009" + entry.file[6:])
    (folder / "shards" / again.file).write_bytes(data)
    files.append_durable(folder / log.COMMITS, log.format_commit(again))
    with pytest.raises(InputError, match="twice"):
        _ = Reader(folder).keys


def test_shards_hold_what_the_design_says(folder, rows, write):
    write(folder, rows, per_shard=7)
    entry = json.loads((folder / log.COMMITS).read_bytes()[9:])
    with h5py.File(shard_of(folder, 0)) as file:
        assert {name: (d.shape, d.dtype.name) for name, d in file.items()} == {
            "key": ((7, 32), "uint8"),
            "embeddings": ((7, 2, 3), "float16"),
            "norm": ((7, 2), "float32"),
            "view_ok": ((7, 2), "bool"),
        }
        exact = np.linalg.norm(np.stack(list(rows.values())), axis=-1)
        assert np.allclose(file["norm"], exact, rtol=1e-6)
    assert entry["file"] == f"000000-{entry['sha256'][:8]}.h5" == shard_of(folder, 0).name
    assert b"pickle" not in shard_of(folder, 0).read_bytes()
