import os
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from task import manifest
from task.errors import InputError
from task.images import FLAGS, PASSING, REJECTIONS, Observation, digest, rejected
from task.manifest import (
    Entry,
    manifest_file,
    read_manifest,
    scan,
    with_observations,
    write_manifest,
)
from task.rows import Row, locate

SEEN = Observation("ok", bytes=3, width=40, height=50, format="PNG", phash="00ff00ff00ff00ff")
OLD = 1_600_000_000  # settled long ago


@pytest.fixture
def task(make_task, tmp_path):
    return make_task(tmp_path / "task")


@pytest.fixture
def put(task):
    def put(path, content=b"abc", seconds=OLD):
        file = task.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        if seconds is not None:
            os.utime(file, (seconds, seconds))
        return Row(path, path)

    return put


@pytest.fixture
def hashed(monkeypatch):
    """The contents that were read and hashed."""
    contents = []

    def note(content):
        contents.append(content)
        return digest(content)

    monkeypatch.setattr(manifest, "digest", note)
    return contents


@pytest.fixture
def look(task, hashed):
    def look(*rows, observe=SEEN, **options):
        """Scan, record as embed does, and give the statuses and how many files were read."""
        hashed.clear()
        entries = scan(task, list(rows), **options)
        statuses = [entry.status for entry in entries]
        seen = {
            entry.digest: replace(observe, bytes=locate(task.root, entry.path).stat().st_size)
            for entry in entries
            if entry.status == "new"
        }
        write_manifest(task, with_observations(entries, seen))
        return statuses, len(hashed)

    return look


# Round trip

TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.sampled_from(
        ["a\nb", "a\rb", "a\r\nb", "a,b", 'a"b', '"', "\U0001f3da", "001", " a ", "\0"]
    ),
)
WHOLE = st.none() | st.integers(0, 2**62)
REAL = st.none() | st.floats(0, 255)
OBSERVATIONS = st.builds(
    Observation,
    status=st.sampled_from(sorted({"ok", *FLAGS, *REJECTIONS})),
    detail=st.text(st.characters(exclude_categories=["Cs"])),
    bytes=WHOLE,
    width=WHOLE,
    height=WHOLE,
    format=st.sampled_from(["", "JPEG"]),
    frames=WHOLE,
    orientation=WHOLE,
    exif=WHOLE,
    border=REAL,
    red=REAL,
    green=REAL,
    blue=REAL,
    phash=st.sampled_from(["", "0" * 16, "f" * 16]),
)
ENTRIES = st.builds(
    Entry,
    id=TEXT,
    path=TEXT,
    digest=st.sampled_from(["", digest(b"a")]),
    observed=st.none() | OBSERVATIONS,
    mtime_ns=WHOLE,
    inode=WHOLE,
)


@pytest.fixture(scope="module")
def lasting_task(make_task, tmp_path_factory):
    return make_task(tmp_path_factory.mktemp("manifest"))


@given(st.lists(ENTRIES, max_size=5))
@settings(max_examples=200, deadline=None)
def test_round_trip(lasting_task, entries):
    write_manifest(lasting_task, entries)
    assert read_manifest(lasting_task) == entries


def test_no_manifest_is_empty(task):
    assert read_manifest(task) == []
    assert manifest_file(task) == task.work / "manifest.csv"


def test_manifest_is_plain_utf8_csv(task):
    write_manifest(task, [Entry("بيت", "بيت", observed=SEEN)])
    text = manifest_file(task).read_bytes().decode("utf-8")
    assert text.splitlines()[0].startswith("id,path,digest,status,detail,bytes,width,height")
    assert len(text.splitlines()) == 2


# Damage


@pytest.fixture
def written(task):
    write_manifest(task, [Entry(name, name, digest(b"a"), SEEN, 5, 6) for name in ("a", "b")])
    return manifest_file(task)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"ok", b"fine"),
        (b",40,", b",forty,"),
        (b"id,path", b"name,path"),
        (b",50,", b',"50'),
        (b",3,", b",3,3,"),
        (b",40,50", b",40"),
        (b"00ff00ff00ff00ff", b"no hash"),
        (b"40", b"\xff"),
    ],
)
def test_damage_is_told(task, written, fault_of, old, new):
    content = written.read_bytes()
    assert old in content
    written.write_bytes(content.replace(old, new))
    fault_of(lambda: read_manifest(task), "manifest.csv", "delete it")


def test_cut_anywhere_is_told_or_ends_at_a_line(task, written, fault_of):
    content = written.read_bytes()
    whole = read_manifest(task)
    told = 0
    for cut in range(len(content)):
        written.write_bytes(content[:cut])
        try:
            entries = read_manifest(task)
        except InputError:
            fault_of(lambda: read_manifest(task), "manifest.csv")
            told += 1
        else:
            # Where only the decoder's name is cut, what it saw does not count.
            last = [replace(entry, observed=None) for entry in whole[: len(entries)]][-1:]
            assert entries in (whole[: len(entries)], whole[: len(entries) - 1] + last)
    assert told > len(content) - 100


def test_another_decoder_does_not_count(task, put, look, monkeypatch):
    row = put("a")
    look(row)
    monkeypatch.setattr(manifest, "DECODER", "pillow-99.0/policy-1")
    (entry,) = read_manifest(task)
    assert (entry.observed, entry.digest) == (None, digest(b"abc"))
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


def status_of(task, path):
    (entry,) = scan(task, [Row("r", path)])
    assert (entry.digest == "") == (entry.status != "new")
    return entry.status


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("no", "missing_file"),
        ("no/such/file", "missing_file"),
        ("file/below", "missing_file"),
        ("../secret", "outside_root"),
        ("folder/../../secret", "outside_root"),
        ("folder/../file", "outside_root"),
        ("/etc/passwd", "outside_root"),
        ("folder", "not_a_file"),
        ("", "outside_root"),
        (".", "outside_root"),
        ("nul\0", "unreadable_file"),
        ("n" * 300, "unreadable_file"),
        ("file", "new"),
        ("./file", "new"),
        ("folder//inner", "new"),
    ],
)
def test_statuses_of_paths(task, put, path, status):
    put("file")
    put("folder/inner")
    put("../secret")
    assert status_of(task, path) == status


@pytest.mark.parametrize(
    ("name", "target", "status"),
    [
        ("link", "folder/inner", "new"),
        ("link", "../secret", "outside_root"),
        ("link", "/etc/hostname", "outside_root"),
        ("link", "gone", "missing_file"),
        ("link", "../gone", "outside_root"),
        ("link", "link", "unreadable_file"),
        ("link", "folder", "not_a_file"),
        ("link", "..", "outside_root"),
    ],
)
def test_links_to_files(task, put, name, target, status):
    put("folder/inner")
    put("../secret")
    (task.root / name).symlink_to(target)
    assert status_of(task, name) == status


@pytest.mark.parametrize(
    ("target", "status"),
    [("folder", "new"), ("../other", "outside_root"), ("loop", "unreadable_file")],
)
def test_links_to_folders(task, put, target, status):
    put("folder/inner")
    put("../other/inner")
    (task.root / "loop").symlink_to(target)
    assert status_of(task, "loop/inner") == status


def test_root_may_be_a_link(task, put, tmp_path):
    row = put("a")
    task.root.rename(tmp_path / "far")
    task.root.symlink_to(tmp_path / "far")
    assert scan(task, [row])[0].digest == digest(b"abc")


def test_special_file(task):
    os.mkfifo(task.root / "pipe")
    assert status_of(task, "pipe") == "not_a_file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(task, put):
    put("a")
    (task.root / "a").chmod(0)
    assert status_of(task, "a") == "unreadable_file"


def test_disk_error(task, put, monkeypatch):
    row, other = put("a"), put("b")
    real = type(task.root).read_bytes

    def read_bytes(file):
        if file.name == "a":
            raise OSError(5, "Input/output error")
        return real(file)

    monkeypatch.setattr(type(task.root), "read_bytes", read_bytes)
    entries = scan(task, [row, other])
    assert [entry.status for entry in entries] == ["unreadable_file", "new"]
    assert "Input/output error" in entries[0].observed.detail


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


def test_rehash_finds_what_the_hint_cannot(task, put, look):
    row = put("a", b"abc")
    look(row)
    with (task.root / "a").open("r+b") as stream:
        stream.write(b"xyz")
    os.utime(task.root / "a", (OLD, OLD))
    assert look(row) == (["ok"], 0)
    assert look(row, rehash=True) == (["new"], 1)


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
