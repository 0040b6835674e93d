import numpy as np
import pytest

from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock
from archiveprobe.cache import log, spec
from archiveprobe.cache.store import Reader
from archiveprobe.cache.verify import repair, verify


@pytest.fixture
def cached(folder, rows, write):
    write(folder, rows)
    return folder


def shards(folder):
    return sorted((folder / "shards").iterdir())


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_cache(cached, deep):
    report = verify(cached, deep)
    assert (report.ok, report.shards, report.rows, report.bad) == (True, 3, 7, [])


@pytest.mark.parametrize("deep", [False, True])
def test_missing_and_cut_shards(cached, deep):
    shards(cached)[2].unlink()
    shards(cached)[0].write_bytes(b"cut")
    report = verify(cached, deep)
    assert [line.split(": ")[1] for line in report.bad][1] == "missing"
    assert len(report.bad_shards) == 2
    assert all("\n" not in line for line in report.bad)


def test_damaged_log_and_record(cached):
    path = cached / log.COMMITS
    path.write_bytes(b"garbage\n" + path.read_bytes())
    assert verify(cached, deep=False).bad == ["commits.jsonl: line 1 is damaged"]
    (cached / spec.FILE).write_text("{}")
    assert "damaged" in verify(cached, deep=False).bad[0]
    assert not verify(cached / "nowhere", deep=True).ok


def test_a_key_in_two_shards(cached):
    entries = log.read_log(cached / log.COMMITS).entries
    again = entries[0]._replace(file="000009" + entries[0].file[6:])
    (cached / "shards" / again.file).write_bytes(shards(cached)[0].read_bytes())
    with (cached / log.COMMITS).open("ab") as file:
        file.write(log.format_commit(again))
    assert verify(cached, deep=False).ok
    assert verify(cached, deep=True).bad == [f"{again.file}: a key is in another shard too"]


def test_a_sound_shard_of_other_rows_is_found_deep(cached, rows, write, tmp_path):
    write(tmp_path / "other", {key: row + 1 for key, row in rows.items()})
    path = shards(cached)[0]
    path.write_bytes(shards(tmp_path / "other")[0].read_bytes())
    assert verify(cached, deep=False).ok
    assert verify(cached, deep=True).bad == [f"{path.name}: its SHA-256 is not the log's"]


def test_a_bad_shard_is_set_aside_and_its_rows_computed_again(cached, rows, open_writer):
    path = shards(cached)[1]
    data = bytearray(path.read_bytes())
    data[data.index(list(rows.values())[3].astype(np.float16).tobytes())] ^= 1
    path.write_bytes(data)
    report = verify(cached, deep=True)
    with Lock(cached), pytest.raises(InputError, match="another process"):
        repair(cached, report)
    assert repair(cached, report) == [path.name]
    assert (cached / "set-aside" / path.name).read_bytes() == data
    again = "set aside before; embed computes again what was in it: 3 rows"
    assert verify(cached, deep=True).bad == [f"{path.name}: {again}"]
    with pytest.raises(InputError, match=r"3 rows .* lost the embedding .*embed TASK`, which comp"):
        Reader(cached)
    with open_writer(cached) as writer:
        absent = set(rows) - writer.keys
        assert absent == set(list(rows)[3:6])
        for key in absent:
            writer.add(key, rows[key])
    assert verify(cached, deep=True).ok
    assert np.array_equal(
        Reader(cached).read(list(rows))[1], np.stack(list(rows.values())).astype(np.float16)
    )
