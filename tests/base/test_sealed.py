"""Sealed files: whatever happens to one of their bytes is found before anything is parsed."""

import json
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiveprobe.base.errors import InputError
from archiveprobe.base.reading import read_ordinary
from archiveprobe.base.sealed import read_sealed, seal, unseal, write_sealed

RECORD = {"id": "house.jpg", "status": ["ok", None, 1.5]}


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "work" / "snapshot.json"
    write_sealed(file, RECORD)
    return file


def test_comes_back_as_it_was_and_is_plain_json(path):
    assert read_sealed(path) == RECORD
    plain = json.loads(path.read_text("utf-8"))
    assert len(plain.pop("sha256")) == 64
    assert plain == RECORD


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
RECORDS = st.dictionaries(
    st.text().filter(lambda key: key != "sha256"), JSON, min_size=1, max_size=3
)


@given(RECORDS)
def test_any_record_comes_back(record):
    assert unseal(seal(record)) == record


def test_halves_of_characters_come_back():
    record = {"name": "\ud800 \udcff é", "\udc80": 1}
    assert unseal(seal(record)) == record
    assert json.loads(seal(record))["name"] == record["name"]


@pytest.mark.parametrize("record", [{}, {"sha256": "mine"}])
def test_a_record_that_the_seal_would_garble_is_refused(record):
    with pytest.raises(ValueError, match="keys of its own"):
        seal(record)


def damaged(sealed):
    """Every flipped bit, every cut at either end, every byte too many at either end or within."""
    for at in range(len(sealed)):
        for bit in range(8):
            yield sealed[:at] + bytes([sealed[at] ^ 1 << bit]) + sealed[at + 1 :]
        yield sealed[:at]
        yield sealed[at + 1 :]
        yield sealed[:at] + sealed[at + 1 :]
    for byte in map(bytes, zip(range(256), strict=True)):
        yield sealed + byte
        yield byte + sealed
        yield sealed[:74] + byte + sealed[74:]


@pytest.mark.proves("damage")
def test_every_damage_to_one_byte_is_found():
    sealed = seal(RECORD)
    for changed in damaged(sealed):
        if changed != sealed:
            with pytest.raises(ValueError, match="changed"):
                unseal(changed)


@given(RECORDS, st.binary(max_size=300))
def test_nothing_else_is_taken_for_a_sealed_file(record, foreign):
    sealed = seal(record)
    for changed in (foreign, sealed + foreign, foreign + sealed, json.dumps(record).encode()):
        if changed != sealed:
            with pytest.raises(ValueError, match="changed"):
                unseal(changed)


def test_a_damaged_file_is_one_line_with_its_remedy(path):
    content = bytearray(path.read_bytes())
    content[90] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"snapshot\.json is damaged .*: run embed again$"):
        read_sealed(path, remedy="run embed again")


def test_no_file_is_none(tmp_path):
    assert read_sealed(tmp_path / "none") is None
    assert read_sealed(tmp_path / "no" / "folder") is None


@pytest.mark.proves("damage")
@pytest.mark.timeout(60)
def test_what_is_no_ordinary_file_is_refused_at_once(path):
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match=r"ordinary file.*move it away"):
        read_sealed(path)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(InputError, match=r"cannot read.*move it away"):
        read_sealed(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"(ordinary file|directory).*move it away"):
        read_sealed(path)


def test_a_file_without_measure_is_refused_unread(path):
    os.truncate(path, 1 << 40)
    with pytest.raises(InputError, match=r"\d bytes"):
        read_sealed(path)
    with pytest.raises(OSError, match=r"\D10( bytes)?"):
        read_ordinary(path, 10)


def test_a_reader_sees_the_old_content_or_the_new(path):
    """Files are replaced whole, so readers beside a writer never meet half a file."""
    contents = [{"letters": letter * 50_000} for letter in "abc"]
    write_sealed(path, contents[0])
    done = threading.Event()

    def write():
        for turn in range(60):
            write_sealed(path, contents[turn % 3])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        assert read_sealed(path) in contents
    writer.join()
