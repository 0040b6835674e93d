"""Several writers of one cache, each with a log of its own, and shards that others have written."""

import shutil

import numpy as np
import pytest

from archiveprobe.base.errors import InputError
from archiveprobe.cache import log
from archiveprobe.cache.carry import carry_over
from archiveprobe.cache.prune import prunable, prune
from archiveprobe.cache.shard_rows import ShardRows
from archiveprobe.cache.spec import CacheRecord
from archiveprobe.cache.store import Reader
from archiveprobe.cache.verify import repair, verify


def put(writer, rows, keys):
    for key in keys:
        writer.add(key, rows[key])


def check(folder, rows):
    reader = Reader(folder)
    present, got = reader.read(list(rows))
    assert present.all()
    assert np.array_equal(got, np.stack(list(rows.values())).astype(np.float16))
    assert reader.rows == len(reader.keys) == len(rows)
    assert verify(folder, deep=True).ok


@pytest.fixture
def shared(folder, rows, open_writer):
    """Seven rows: two by a plain writer, three by a share, and the rest by another; one twice."""
    keys = list(rows)
    with open_writer(folder) as writer:
        put(writer, rows, keys[:2])
    with open_writer(folder, share="1of2") as first, open_writer(folder, share="2of2") as second:
        assert first.keys == second.keys == set(keys[:2])
        put(first, rows, keys[:5])
        put(second, rows, keys[4:])
        second.fail(b"f" * 32, "decode", "detail")
    return folder


def test_writers_side_by_side_and_a_reader_of_all(shared, rows):
    check(shared, rows)
    assert [len(log.read_log(shared / f"commits{end}.jsonl").entries) for end in
            ("", "-1of2", "-2of2")] == [1, 1, 1]  # fmt: skip
    assert Reader(shared).failures == {b"f" * 32: ("decode", "detail")}
    assert verify(shared, deep=False).rows == 8


def test_a_later_writer_knows_what_all_have(shared, rows, open_writer):
    for share in (None, "2of2", "3of9"):
        with open_writer(shared, share=share) as writer:
            assert writer.keys == set(rows)
            assert set(writer.failures) == {b"f" * 32}
            assert writer.notes == []


@pytest.mark.proves("writers")
def test_one_share_twice_and_a_writer_of_all_beside_it_are_refused(folder, open_writer):
    with open_writer(folder, share="2of4"), open_writer(folder, share="3of4"):
        for share in ("2of4", None):
            with pytest.raises(InputError, match=r"another process writes .*pid \d+ on") as caught:
                open_writer(folder, share=share)
            assert "\n" not in str(caught.value)
        assert prunable(folder.parent, set()) == []
    with open_writer(folder), pytest.raises(InputError, match=r"another process .*pid \d+ on"):
        open_writer(folder, share="2of4")
    open_writer(folder, share="2of4").close()


@pytest.mark.parametrize("share", ["", "2", "0of4", "../4", "2of4/", "1of2\n"])
def test_what_is_no_share(folder, open_writer, share):
    with pytest.raises(InputError, match="is not a share"):
        open_writer(folder, share=share)


def test_shares_agree_on_the_row_shape(folder, open_writer):
    with open_writer(folder, share="1of2") as first, open_writer(folder, share="2of2") as second:
        first.add(b"a" * 32, np.ones((2, 3)))
        first.commit()
        second.add(b"b" * 32, np.ones((2, 4)))
        with pytest.raises(InputError, match=r"shape \(2, 4\), the cache's rows have \(2, 3\)"):
            second.commit()
        second._rows.clear()  # Else closing tries once more.
    assert CacheRecord.read(folder).row_shape == (2, 3)
    assert verify(folder, deep=True).ok


def test_a_killed_share_is_mended_by_itself_or_by_the_writer_of_all(shared, rows, open_writer):
    for share in ("2of2", None):
        place = shared / "shards" / "2of2"
        (place / ".tmp-1-a").write_bytes(b"half")
        (shared / "commits-2of2.jsonl").write_bytes(b"torn")
        with open_writer(shared, share="1of2") as other:
            assert other.notes == []
            assert other.keys == set(list(rows)[:5])
        with open_writer(shared, share=share) as writer:
            assert [note.split(" ")[0] for note in writer.notes] == [
                next(iter(sorted(place.iterdir()))).relative_to(shared / "shards").as_posix(),
                "commits-2of2.jsonl",
            ]
            assert writer.keys == set(rows)
        assert list(shared.rglob(".tmp-*")) == []
        check(shared, rows)


def test_a_damaged_shard_of_a_share(shared, rows, open_writer):
    (path,) = (shared / "shards" / "2of2").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"2of2/.* bytes instead of"):
        Reader(shared)
    with open_writer(shared, share="1of2") as writer:
        assert writer.keys == set(list(rows)[:5])
    report = verify(shared, deep=False)
    assert repair(shared, report) == report.bad_shards == [f"2of2/{path.name}"]
    with pytest.raises(InputError, match=r"lost the embedding .* set aside"):
        Reader(shared)
    with open_writer(shared) as writer:
        assert writer.keys == set(list(rows)[:5])
        put(writer, rows, rows)
    check(shared, rows)
    (item,) = prunable(shared.parent, {shared.name})
    assert item.path == shared / "set-aside" / "2of2" / path.name
    prune([item])
    assert prunable(shared.parent, {shared.name}) == []


def test_a_key_twice_in_one_log_is_damage(shared):
    (path,) = (shared / "shards" / "2of2").iterdir()
    entry = log.read_log(shared / "commits-2of2.jsonl").entries[0]
    again = entry._replace(file=f"2of2/000009-{path.name[7:]}")
    shutil.copy(path, shared / "shards" / again.file)
    with (shared / "commits-2of2.jsonl").open("ab") as file:
        file.write(log.format_commit(again))
    with pytest.raises(InputError, match="twice"):
        _ = Reader(shared).keys
    assert verify(shared, deep=True).bad == [f"{again.file}: a key is in another shard too"]


def test_a_line_that_names_a_shard_of_another_log_is_bad():
    line = log.format_commit(log.Commit(f"2of4/000000-{'a' * 8}.h5", 1, 9, "a" * 64))
    assert len(log.parse_log(line, "2of4").entries) == 1
    for share in (None, "3of4"):
        assert log.parse_log(line, share).bad_lines == [1]


def test_caches_of_shares_are_carried_over_and_pruned(shared, rows, fingerprint):
    carry_over(shared, "tiny", fingerprint | {"versions": "2"}, {})
    (other,) = (folder for folder in shared.parent.iterdir() if folder != shared)
    check(other, rows)
    prune(prunable(shared.parent, {shared.name}))
    assert list(shared.parent.iterdir()) == [shared]
    check(shared, rows)


@pytest.fixture
def shard_of():
    """Write a shard as another process would."""

    def shard_of(folder, rows, keys, number=17):
        shard_rows = ShardRows()
        for key in keys:
            assert shard_rows.add(key, rows[key]) is None
        return shard_rows.write(folder, number)

    return shard_of


@pytest.mark.parametrize("share", [None, "1of2"])
def test_shards_of_other_processes_are_adopted(folder, rows, open_writer, shard_of, share):
    keys = list(rows)
    with open_writer(folder, share=share) as writer:
        writer.fail(keys[0], "late", "a node was lost")
        writer.add(keys[6], rows[keys[6]])
        for number, part in enumerate((keys[:3], keys[3:6])):
            commit = shard_of(folder, rows, part, number)
            if share:
                commit = ShardRows.write(_rows(rows, part), folder, number, share)
            writer.adopt(commit)
            writer.adopt(commit)
        assert writer.keys == set(rows)
        assert keys[0] not in writer.failures
    check(folder, rows)
    assert CacheRecord.read(folder).row_shape == (2, 3)


def _rows(rows, keys):
    shard_rows = ShardRows()
    for key in keys:
        shard_rows.add(key, rows[key])
    return shard_rows


def test_a_shard_whose_writer_was_killed_is_adopted_on_opening(folder, rows, open_writer, shard_of):
    first, *others = rows
    with open_writer(folder) as writer:
        put(writer, rows, [first])
        writer.commit()
        shard_of(folder, rows, others)
    with open_writer(folder) as writer:
        assert writer.keys == set(rows)
    check(folder, rows)


def test_a_unit_that_was_done_twice_counts_once(folder, rows, open_writer, shard_of):
    with open_writer(folder) as writer:
        writer.adopt(shard_of(folder, rows, rows, 1))
        writer.adopt(shard_of(folder, rows, rows, 2))
        assert any("set aside" in note for note in writer.notes)
    check(folder, rows)


def test_what_cannot_be_adopted_is_refused(folder, rows, open_writer, shard_of):
    with open_writer(folder) as writer:
        writer.add(b"k" * 32, np.ones((2, 4)))
        commit = shard_of(folder, rows, rows)
        for wrong, reason in (
            (commit._replace(bytes=commit.bytes - 1), "bytes instead of"),
            (commit._replace(file=f"000001-{'0' * 8}.h5"), "None bytes"),
            (commit, r"not float16\(7, 2, 4\)"),
        ):
            with pytest.raises(InputError, match=reason):
                writer.adopt(wrong)
    with pytest.raises(InputError, match="closed"):
        writer.adopt(commit)
    assert Reader(folder).rows == 1
