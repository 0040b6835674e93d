"""One flipped bit, anywhere in a cache: never a wrong number, and nothing that cannot be mended."""

import random

import numpy as np
import pytest

from archiveprobe.base import lock
from archiveprobe.base.errors import InputError
from archiveprobe.cache import log, spec
from archiveprobe.cache.store import Reader, Writer
from archiveprobe.cache.verify import repair, verify

FINGERPRINT = {"backbone": "tiny", "views": ["flip"]}
REQUEST = {"weights": "caf\udce9"}
FAILED = b"f" * 32
FLIPS_PER_SHARD = 20


def complete(folder, rows):
    """What embed does: everything that is missing. Returns the rows that were there."""
    with Writer.open(folder, FINGERPRINT, REQUEST) as writer:
        there = set(writer.keys)
        for key, row in rows.items():
            writer.add(key, row)
            if writer.pending == 2:
                writer.commit()
        writer.fail(FAILED, "decode", "a detail, in words")
    return there


@pytest.fixture
def flipped(tmp_path, rows):
    return lambda count: Flipped(tmp_path, dict(list(rows.items())[:count]))


class Flipped:
    """A cache with one bit flipped, again and again; what comes of each is checked."""

    def __init__(self, root, rows):
        self.folder, self.rows = root / spec.folder_name("tiny", FINGERPRINT), rows
        folder = self.folder
        complete(folder, rows)
        (folder / lock.NAME).write_text('{"pid": 12, "since": "2026-01-01T00:00:00+00:00"}')
        self.whole = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.noticed = 0

    def check(self, path, at, bit):
        self._restore()
        data = bytearray(self.whole[path])
        data[at] ^= 1 << bit
        path.write_bytes(data)
        self._read()
        deep = path.suffix == ".h5"
        report = verify(self.folder, deep)
        if report.bad_shards:
            repair(self.folder, report)
        there = complete(self.folder, self.rows)
        lost = self.rows.keys() - there
        assert lost <= self.rows_of(path), "more is computed again than the shard held"
        assert self._read() == set(self.rows)
        reader = Reader(self.folder)
        assert reader.failures == {FAILED: ("decode", "a detail, in words")}
        assert (reader.fingerprint, reader.record.request) == (FINGERPRINT, REQUEST)
        assert verify(self.folder, deep).ok

    def _restore(self):
        for path in [path for path in self.folder.rglob("*") if path.is_file()]:
            if path not in self.whole:
                path.unlink()
        for path, data in self.whole.items():
            path.write_bytes(data)

    def rows_of(self, path):
        return {key for key in self.rows if path.suffix == ".h5" and key in self.whole[path]}

    def _read(self):
        """The rows that a reader gives, all right; or it says in one line why it gives none."""
        try:
            reader = Reader(self.folder)
            _ = reader.failures
            present, got = reader.read(list(self.rows))
        except InputError as error:
            assert "\n" not in str(error)
            assert str(self.folder) in str(error)
            self.noticed += 1
            return None
        for key, there, row in zip(self.rows, present, got, strict=True):
            wanted = self.rows[key].astype(np.float16)
            assert row.tobytes() == wanted.tobytes() if there else np.isnan(row).all()
        return {key for key, there in zip(self.rows, present, strict=True) if there}


@pytest.mark.proves("damage")
@pytest.mark.parametrize(
    ("name", "count", "flips"),
    [(log.COMMITS, 3, 60), (log.FAILURES, 1, 40), (spec.FILE, 1, 80), (lock.NAME, 1, 5)],
)
def test_any_byte_of_a_text_file(flipped, name, count, flips):
    cache, chance = flipped(count), random.Random(0)
    path = cache.folder / name
    places = chance.sample(range(len(cache.whole[path])), flips)
    for at in places:
        cache.check(path, at, chance.randrange(8))
    if name in (log.COMMITS, spec.FILE):
        assert cache.noticed > len(places) * 0.8


@pytest.mark.proves("damage")
def test_bits_of_a_shard(flipped):
    cache, chance = flipped(3), random.Random(0)
    for path in sorted((cache.folder / "shards").iterdir()):
        size = len(cache.whole[path])
        places = chance.sample(range(size), FLIPS_PER_SHARD)
        stored = [cache.whole[path].index(key) for key in cache.rows_of(path)]
        for at in [*places, *stored]:
            cache.check(path, at, chance.randrange(8))
    assert cache.noticed > FLIPS_PER_SHARD
