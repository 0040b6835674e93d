import os
import unicodedata

import pytest

from archiveprobe.base.reading import digest_of
from archiveprobe.task import manifest
from archiveprobe.task import scan as scan_module
from archiveprobe.task.decoding import PASSING, REJECTIONS, Observation, digest, rejected
from archiveprobe.task.manifest import (
    Entry,
    read_manifest,
    read_manifest_with_digest,
    with_observations,
    write_manifest,
)
from archiveprobe.task.rows import Row, locate
from archiveprobe.task.scan import scan

SEEN = Observation("ok", bytes=3, width=40, height=50, format="PNG", phash="00ff00ff00ff00ff")
OLD = 1_600_000_000  # settled long ago


@pytest.fixture
def task(make_task, tmp_path):
    return make_task(tmp_path / "task")


@pytest.fixture
def hashed(monkeypatch):
    """The files that were read and hashed."""
    files = []

    def note(file, limit):
        hashed = digest_of(file, limit)
        files.append(file)
        return hashed

    monkeypatch.setattr(scan_module, "digest_of", note)
    return files


@pytest.fixture
def look(task, hashed):
    def look(*rows, observe=SEEN, **options):
        """Scan, record as embed does, and give the statuses and how many files were read."""
        hashed.clear()
        entries = scan(task, list(rows), **options)
        statuses = [entry.status for entry in entries]
        seen = {
            entry.digest: observe._replace(bytes=locate(task.root, entry.path).stat().st_size)
            for entry in entries
            if entry.status == "new"
        }
        write_manifest(task, with_observations(entries, seen))
        return statuses, len(hashed)

    return look


def test_another_decoder_does_not_count(task, put, look, monkeypatch):
    row = put("a")
    look(row)
    monkeypatch.setattr(manifest, "DECODER", "pillow-99.0/policy-1")
    (entry,), _ = read_manifest_with_digest(task, decoder=manifest.DECODER)
    assert (entry.observed, entry.digest) == (None, digest(b"abc"))
    # What it saw is still what the figures are about, on a machine with another Pillow.
    assert read_manifest(task)[0].status == "ok"
    assert look(row) == (["new"], 1)
    assert look(row) == (["ok"], 0)


def test_decoder_names_pillow_and_the_policy():
    assert manifest.DECODER.startswith("pillow-")
    assert manifest.DECODER.endswith(f"policy-{manifest.POLICY['version']}")


# Rows and entries


def test_entries_follow_the_rows(task, put):
    rows = [put(name, name.encode()) for name in ("c", "a", "b")] + [Row("x", "x"), Row("y", "a")]
    entries = scan(task, rows)
    assert [(entry.id, entry.path) for entry in entries] == [(row.id, row.path) for row in rows]
    assert [entry.status for entry in entries] == ["new", "new", "new", "missing_file", "new"]
    assert entries[4].digest == entries[1].digest == digest(b"a")
    assert not entries[0].usable
    assert scan(task, []) == []


def test_progress_counts_every_row(task, put):
    calls = []
    scan(task, [put("a"), put("b"), Row("x", "x")], on_hashed=lambda: calls.append(1))
    assert len(calls) == 3


# The hint


def test_unchanged_file_is_not_read_again(put, look):
    rows = put("a", b"1"), put("b", b"2")
    assert look(*rows) == (["new", "new"], 2)
    assert look(*rows) == (["ok", "ok"], 0)
    assert look(*rows, rehash=True) == (["ok", "ok"], 2)


def test_changed_files_are_read_again(task, put, look):
    row = put("a", b"abc")
    look(row)
    put("a", b"abcd")
    assert look(row) == (["new"], 1)
    put("a", b"abce", seconds=OLD + 1)
    assert look(row) == (["new"], 1)
    os.utime(task.root / "a", (OLD, OLD))
    assert look(row) == (["ok"], 1)
    (task.root / "b").write_bytes(b"abcf")
    os.utime(task.root / "b", (OLD, OLD))
    (task.root / "b").rename(task.root / "a")  # size and time as before, another inode
    assert look(row) == (["new"], 1)
    assert look(row) == (["ok"], 0)


@pytest.mark.proves("numbers")
def test_rehash_finds_what_the_hint_cannot(task, put, look):
    row = put("a", b"abc")
    look(row)
    with (task.root / "a").open("r+b") as stream:
        stream.write(b"xyz")
    os.utime(task.root / "a", (OLD, OLD))
    assert look(row) == (["ok"], 0)
    assert look(row, rehash=True) == (["new"], 1)


@pytest.mark.proves("numbers")
def test_young_file_gets_no_hint(task, put, look):
    row = put("a", seconds=None)
    look(row)
    assert [(entry.mtime_ns, entry.inode) for entry in read_manifest(task)] == [(None, None)]
    assert look(row) == (["ok"], 1)
    os.utime(task.root / "a", (OLD, OLD))
    assert look(row) == (["ok"], 1)
    assert look(row) == (["ok"], 0)


def test_renamed_file_keeps_what_was_seen(task, put, look):
    look(put("a"))
    (task.root / "a").rename(task.root / "b")
    assert look(Row("b", "b")) == (["ok"], 1)
    assert look(Row("other id", "b")) == (["ok"], 0)
    assert [entry.id for entry in read_manifest(task)] == ["other id"]


def test_copy_needs_no_second_look(put, look):
    look(put("a"))
    assert look(put("a"), put("b")) == (["ok", "ok"], 1)


@pytest.mark.parametrize("status", sorted(PASSING))
def test_passing_statuses_are_tried_again(put, look, status):
    row = put("a")
    look(row, observe=rejected(status))
    assert look(row)[0] == ["new"]


@pytest.mark.parametrize("status", sorted(REJECTIONS - PASSING))
def test_lasting_statuses_stay(put, look, status):
    row = put("a")
    look(row, observe=rejected(status))
    assert look(row) == ([status], 0)


def test_file_that_comes_back(put, look, task):
    row = put("a")
    (task.root / "a").unlink()
    assert look(row) == (["missing_file"], 0)
    put("a")
    assert look(row) == (["new"], 1)


def test_both_normal_forms_use_the_hint(put, look):
    put(unicodedata.normalize("NFD", "café"))
    row = Row("café", unicodedata.normalize("NFC", "café"))
    assert look(row) == (["new"], 1)
    assert look(row) == (["ok"], 0)


def test_observations_are_laid_over_by_digest():
    entries = [Entry("a", "a", "1"), Entry("b", "b", "2", rejected("corrupt")), Entry("c", "c")]
    laid = with_observations(entries, {"1": SEEN, "2": SEEN, "3": SEEN})
    assert [entry.observed for entry in laid] == [SEEN, SEEN, None]
    assert with_observations(entries, {}) == entries
