"""The power goes after any call: every state that may be left opens, and holds what was promised.

Only what fsync has confirmed is sure to be there; see powerloss.py for what may become of the
rest.
"""

import random
import shutil
from functools import partial

import numpy as np
import pytest
from powerloss import Dead, RecordingOs, lay, states

from archiveprobe.base import files, lock
from archiveprobe.base.errors import InputError
from archiveprobe.cache import key_index, spec
from archiveprobe.cache.carry import carry_over
from archiveprobe.cache.compact import compact
from archiveprobe.cache.log import Failure
from archiveprobe.cache.store import Reader, Writer
from archiveprobe.cache.verify import repair, verify

FINGERPRINT = {"backbone": "tiny", "views": ["center", "flip"]}
CARRIED = {**FINGERPRINT, "versions": "2"}
OLD, NEW = {"asked": "old"}, {"asked": "new"}
FAILED = b"f" * 32
DRAWS = 3
PER_SHARD = 2


def place(root, fingerprint=FINGERPRINT):
    return root / "work" / "cache" / spec.folder_name("tiny", fingerprint)


@pytest.fixture
def rows(rows):
    """Three shards: two by a commit, one on closing."""
    return dict(list(rows.items())[:5])


@pytest.fixture
def root(tmp_path):
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.fixture
def recorded(root, monkeypatch):
    """Record `lives`, one after the other; all but the last may die. Returns the record."""

    def recorded(*lives, **sabotage):
        record = RecordingOs(root, **sabotage)
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", record)
            patch.setattr(lock, "os", record)
            for life in lives:
                try:
                    life(record)
                except Dead:
                    record.revive()
        return record

    return recorded


def embed(rows, record, share=None):
    """One run of embed, which promises what its commits have confirmed."""
    with Writer.open(place(record.root), FINGERPRINT, OLD, share=share) as writer:
        if FAILED not in writer.failures:
            writer.fail(FAILED, "decode", "detail")
        record.promise(writer.keys)
        for key, row in rows.items():
            writer.add(key, row)
            if writer.pending == PER_SHARD:
                writer.commit()
                record.promise(writer.keys)
    record.promise(rows)


class Checker:
    """Finds what is wrong with a state: complaints, none when all is well."""

    def __init__(self, rows, tmp_path, fingerprint=FINGERPRINT):
        self.rows, self.fingerprint, self.tmp_path = rows, fingerprint, tmp_path
        self.seen = {}

    def complaints(self, record, operations=None, draws=DRAWS, seed=0):
        """What is wrong after each number of `operations`, by default after every one."""
        chance = random.Random(seed)
        for number in operations or range(len(record.operations) + 1):
            promised = record.promised(number)
            for tree in states(record, number, draws, chance):
                if complaint := self._complaint(tree, promised):
                    yield f"after operation {number}: {complaint}"

    def _complaint(self, tree, promised):
        # What LOCK says is for people, and differs from run to run.
        state = frozenset(item for item in tree.items() if item[0].name != lock.NAME)
        if state not in self.seen:
            root = self.tmp_path / f"state-{len(self.seen)}"
            lay(tree, root)
            try:
                self.seen[state] = self._kept(place(root, self.fingerprint))
            except (AssertionError, InputError) as error:
                self.seen[state] = f"{type(error).__name__} {error}"
        kept = self.seen[state]
        if isinstance(kept, str):
            return kept
        return None if promised <= kept else "a promised row is lost"

    def _kept(self, folder):
        """The rows that a state still holds, after it was mended and gone on with."""
        visible = self._visible(folder)
        with Writer.open(folder, self.fingerprint, NEW) as writer:
            kept = set(writer.keys)
            assert kept <= set(self.rows), "a row that nobody wrote"
            for key, row in self.rows.items():
                writer.add(key, row)
            writer.fail(FAILED, "decode", "detail")
        assert not list(folder.parent.rglob(".tmp-*")), "a temporary is left"
        reader = Reader(folder)
        self._check_rows(reader, set(self.rows))
        assert reader.failures == {FAILED: Failure("decode", "detail")}
        assert verify(folder, deep=True).ok
        return kept if visible is None else kept & visible

    def _visible(self, folder):
        """The rows that a reader finds at once; None where it asks for mending first."""
        try:
            reader = Reader(folder)
            self._check_rows(reader, set(reader.keys))
            return set(reader.keys)
        except InputError:
            report = verify(folder, deep=True)
            if report.bad_shards:
                repair(folder, report)
            return None

    def _check_rows(self, reader, wanted):
        keys = sorted(wanted)
        assert set(reader.keys) == wanted
        if keys:
            present, got = reader.read(keys)
            stored = np.stack([self.rows[key] for key in keys]).astype(np.float16)
            assert present.all(), "a row is not there"
            assert got.tobytes() == stored.tobytes(), "a wrong number"


@pytest.fixture
def checker(rows, tmp_path):
    return partial(Checker, rows, tmp_path)


@pytest.mark.proves("power")
def test_a_new_cache_and_its_commits(rows, recorded, checker):
    record = recorded(partial(embed, rows))
    check = checker()
    assert list(check.complaints(record)) == []
    assert len(record.operations) > 50
    assert len(check.seen) > 40


@pytest.mark.proves("power")
def test_a_repair(root, rows, recorded, checker):
    embed(rows, RecordingOs(root))
    folder = place(root)
    first, second, third = sorted((folder / "shards").iterdir())
    (folder / ".tmp-1-a").write_bytes(b"half")
    (folder / "commits.jsonl").write_bytes(
        b"".join((folder / "commits.jsonl").read_bytes().splitlines(keepends=True)[:2]) + b"torn"
    )
    data = bytearray(first.read_bytes())
    data[data.index(next(iter(rows.values())).astype(np.float16).tobytes())] ^= 1
    first.write_bytes(data)
    report = verify(folder, deep=True)
    assert report.bad_shards == [first.name]
    assert second.exists()
    assert third.exists()  # It is not in the torn log, hence adopted.

    def set_aside(record):
        record.promise(list(rows)[2:4])
        repair(folder, report)

    record = recorded(set_aside, partial(embed, rows))
    assert list(checker().complaints(record)) == []
    assert len(record.operations) > 20


def test_a_carrying_over(root, rows, recorded, checker):
    embed(rows, RecordingOs(root))

    def carry(record):
        carry_over(place(root), "tiny", CARRIED, NEW)
        record.promise(rows)

    record = recorded(carry)
    assert list(checker(CARRIED).complaints(record)) == []


@pytest.mark.proves("power")
def test_a_share_and_its_index(rows, recorded, checker, monkeypatch):
    """Opened again by the writer of all; every shard makes a new piece of the index."""
    monkeypatch.setattr(key_index, "RECENT_SHARDS", 1)
    record = recorded(partial(embed, rows, share="1of2"))
    moments = range(0, len(record.operations) + 1, 2)
    check = checker()
    assert list(check.complaints(record, moments, draws=1)) == []
    assert len(check.seen) > 40


@pytest.mark.proves("power")
def test_a_compaction(root, rows, recorded, checker, monkeypatch):
    monkeypatch.setattr(key_index, "RECENT_SHARDS", 1)
    disk = RecordingOs(root)
    embed(dict(list(rows.items())[:3]), disk)
    embed(rows, disk, share="1of2")

    def compaction(record):
        record.promise(rows)
        compact(place(record.root))

    record = recorded(compaction)
    moments = range(0, len(record.operations) + 1, 3)
    assert list(checker().complaints(record, moments, draws=1)) == []
    assert len(record.operations) > 40


@pytest.mark.proves("power")
def test_killed_first_and_the_power_gone_later(root, rows, recorded, checker):
    """What a killed run had not synced, the next one takes over, and must make durable."""
    life, check = partial(embed, rows), checker()
    for dies_at in range(len(recorded(life).operations)):
        shutil.rmtree(root / "work")
        record = recorded(life, life, dies_at=dies_at)
        end = len(record.operations)
        moments = [random.Random(dies_at).randint(dies_at, end), end]
        assert list(check.complaints(record, moments)) == []


@pytest.mark.proves("power")
@pytest.mark.parametrize("sabotage", ["file", "folder"])
def test_a_forgotten_fsync_is_noticed(rows, recorded, checker, sabotage):
    record = recorded(partial(embed, rows), forget=[sabotage])
    assert any("promised row is lost" in line for line in checker().complaints(record))
