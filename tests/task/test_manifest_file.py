"""The manifest as a file: what is written is read again, and damage is told."""

import csv
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snapshots import sealed_anew

from archiveprobe.base.errors import InputError
from archiveprobe.task.decoding import FLAGS, REJECTIONS, Observation, digest
from archiveprobe.task.manifest import Entry, manifest_file, read_manifest, write_manifest

SEEN = Observation("ok", bytes=3, width=40, height=50, format="PNG", phash="00ff00ff00ff00ff")


@pytest.fixture
def task(make_task, tmp_path):
    return make_task(tmp_path / "task")


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
    written=TEXT | st.just(""),
)


@pytest.fixture(scope="module")
def lasting_task(make_task, tmp_path_factory):
    return make_task(tmp_path_factory.mktemp("manifest"))


@given(st.lists(ENTRIES, max_size=5))
@settings(max_examples=50, deadline=None)
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
def test_what_no_manifest_holds_is_told_even_under_a_true_digest(task, written, fault_of, old, new):
    content = written.read_bytes()
    assert old in content
    written.write_bytes(sealed_anew(content.replace(old, new)))
    fault_of(lambda: read_manifest(task), "manifest.csv", "run `archiveprobe embed`")


@pytest.mark.proves("damage")
def test_flipped_bytes_and_cuts_are_found(task, written, fault_of):
    content = written.read_bytes()
    assert sealed_anew(content) == content
    for at in random.Random(0).sample(range(len(content)), 80):
        flipped = bytes([*content[:at], content[at] ^ 1, *content[at + 1 :]])
        for damaged in (flipped, content[:at]):
            written.write_bytes(damaged)
            with pytest.raises(InputError, match=r"manifest\.csv is damaged or was edited"):
                read_manifest(task)
    written.write_bytes(content + b"\r\n")
    fault_of(lambda: read_manifest(task), "manifest.csv")


def test_a_plain_reader_of_tables_reads_it(task, written):
    with written.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    assert [(line["id"], line["status"], line["width"]) for line in lines] == [
        ("a", "ok", "40"),
        ("b", "ok", "40"),
    ]
