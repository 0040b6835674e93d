"""One table in a zip is read as if it were unpacked; anything else is left to the user."""

import io
import zipfile

import pytest

from archiveprobe.task.tables.table import read_table

CSV = b"id,label\n1,a\n"


def packed(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.fixture
def read(tmp_path):
    def read(content: bytes):
        (tmp_path / "a.zip").write_bytes(content)
        return read_table(tmp_path / "a.zip")

    return read


@pytest.mark.parametrize(
    "more", [{}, {"__MACOSX/._a.csv": b"x"}, {"readme.md": b"x"}, {"a/": b""}, {".b.csv": b""}]
)
def test_the_only_table_is_read(read, more) -> None:
    table = read(packed(**{"deep/a.csv": CSV, **more}))
    assert table.rows == ({"id": "1", "label": "a"},)
    assert not table.remarks


def test_lines_of_json_in_a_zip(read) -> None:
    assert read(packed(**{"a.jsonl": b'{"id": "1"}\n'})).rows == ({"id": "1"},)


@pytest.mark.parametrize(
    "content",
    [packed(), packed(**{"a.csv": CSV, "b.csv": CSV}), packed(**{"a.csv": packed(b=CSV)})],
    ids=["empty", "two", "a zip in it"],
)
def test_what_holds_no_table_is_refused(read, fault_of, content) -> None:
    fault_of(lambda: read(content), "a.zip", "no table: unpack it")


@pytest.mark.proves("hostile")
def test_damaged_and_large_zips_are_refused(read, fault_of, monkeypatch) -> None:
    whole = packed(**{"a.csv": CSV * 99})
    fault_of(lambda: read(whole[:40]), "a.zip", "damaged or cut")
    at = whole.index(b"a.csv") + 20
    broken = whole[:at] + b"\xff\xff" + whole[at + 2 :]
    fault_of(lambda: read(broken), "a.zip", "cannot be unpacked")
    locked = bytearray(whole)
    for mark, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        locked[locked.index(mark) + flags] |= 1
    fault_of(lambda: read(bytes(locked)), "a.zip", "cannot be unpacked", "encrypted")
    monkeypatch.setattr("archiveprobe.task.tables.table_zip.TABLE_BYTES", 100)
    fault_of(lambda: read(whole), "more than 100 bytes")
