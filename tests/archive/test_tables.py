"""Lists and tables: of paths, of URLs, of the bytes of images; guessed aloud, or refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from archiveprobe.archive import store
from archiveprobe.archive.index import write_index
from archiveprobe.archive.references import Reference, UnreadableError
from archiveprobe.archive.source import Source, open_source, recorded_source
from archiveprobe.base.errors import InputError

Said = list[str]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("a.jpg", "sub/b.png", "sub/c d.webp", "0042"):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"bytes of " + name.encode())
    return tmp_path / "images"


def listed(text: Path | str, **columns: str) -> tuple[Source, list[Reference], Said]:
    said: Said = []
    source = open_source(str(text), **columns, notify=said.append)
    return source, list(source.references(notify=said.append)), said


def contents(text: Path | str, **columns: str) -> dict[str, bytes | str]:
    source, references, _ = listed(text, **columns)
    found: dict[str, bytes | str] = {}
    for reference in references:
        try:
            found[reference.id] = source.read(reference)
        except UnreadableError as fault:
            found[reference.id] = fault.status
    return found


def test_a_list_has_a_path_in_every_line(images: Path) -> None:
    file = images / "list.txt"
    file.write_text(f"a.jpg\r\nsub/c d.webp\n\n{images}/sub/b.png\nsub/../a.jpg\ngone.jpg\n0042")
    assert contents(file) == {
        "a.jpg": b"bytes of a.jpg",
        "sub/c d.webp": b"bytes of sub/c d.webp",
        f"{images}/sub/b.png": b"bytes of sub/b.png",
        "sub/../a.jpg": b"bytes of a.jpg",
        "gone.jpg": "missing_file",
        "0042": b"bytes of 0042",
    }
    assert listed(file)[2] == [f"{file}: a list of files"]


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""])
def test_a_list_may_have_a_mark_and_names_of_any_bytes(images: Path, mark: bytes) -> None:
    # The last byte has no meaning in cp1252 either.
    odd = os.fsdecode(b"\xff\xfe\x81.jpg")
    (images / odd).write_bytes(b"odd")
    file = images / "list.lst"
    file.write_bytes(mark + b"a.jpg\n" + os.fsencode(odd) + b"\n")
    assert contents(file) == {"a.jpg": b"bytes of a.jpg", r"\xff\xfe\x81.jpg": b"odd"}


def test_a_table_of_bytes_that_are_no_text_is_one_line(images: Path, fault_of) -> None:
    (images / "t.csv").write_bytes(b"file,n\na.jpg,1\n\xff\x81.jpg,2\n")
    fault_of(lambda: listed(images / "t.csv"), "t.csv")


def test_a_list_of_a_windows_shell_is_read(images: Path) -> None:
    (images / "list.txt").write_text("a.jpg\nsub/b.png\n", "utf-16")
    assert list(contents(images / "list.txt")) == ["a.jpg", "sub/b.png"]


def test_paths_may_begin_in_the_current_folder(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lists").mkdir()
    file = tmp_path / "lists" / "list.txt"
    file.write_text("a.jpg\n")
    with pytest.raises(InputError, match=r"not one of the first 1 paths .* is there, as 'a.jpg'"):
        open_source(str(file))
    monkeypatch.chdir(images)
    assert contents(file) == {"a.jpg": b"bytes of a.jpg"}
    assert listed(file)[2][0] == f"{file}: paths begin in the current folder, not in its own"


CSVS = {
    "comma": "number,file_name,note\n1,a.jpg,x\n2,sub/b.png,\n",
    "semicolon": "Bild;Datei\r\n1;a.jpg\r\n2;sub/b.png\r\n",
    "tab": "a\tb\na.jpg\t1\nsub/b.png\t2\n",
    "one column": "image\na.jpg\nsub/b.png\n",
    "excel": "sep=;\nx;y\n1;a.jpg\n2;sub/b.png\n",
    "quotes": 'x,y\n"a\nb",a.jpg\n2,"sub/b.png"\n',
}


@pytest.mark.parametrize("text", CSVS.values(), ids=CSVS)
def test_the_column_of_paths_of_a_csv_is_found_and_said(images: Path, text: str) -> None:
    file = images / "table.csv"
    file.write_text(text)
    assert contents(file) == {"a.jpg": b"bytes of a.jpg", "sub/b.png": b"bytes of sub/b.png"}
    assert "CSV, paths from the column" in listed(file)[2][0]


def test_other_forms_of_tables_are_read(images: Path) -> None:
    rows = [{"n": 1, "image": "a.jpg"}, {"n": 2, "image": "sub/b.png"}]
    (images / "t.json").write_text(json.dumps(rows))
    (images / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parquet.write_table(arrow.Table.from_pylist(rows), images / "t.parquet")
    for name in ("t.json", "t.jsonl", "t.parquet"):
        assert list(contents(images / name)) == ["a.jpg", "sub/b.png"]


def test_ids_may_come_from_another_column(images: Path) -> None:
    table = arrow.table({"key": [7, 8, 7, 9], "image": ["a.jpg", "sub/b.png", "a.jpg", None]})
    parquet.write_table(table, images / "t.parquet")
    assert contents(images / "t.parquet", id_column="key") == {
        "7": b"bytes of a.jpg",
        "8": b"bytes of sub/b.png",
        "9": "missing_file",
    }
    said: Said = []
    source = open_source(str(images / "t.parquet"))
    index = write_index(source, images / "index", 2, notify=said.append)
    ids = [reference.id for unit in index for reference in unit.references]
    assert ids == ["a.jpg", "sub/b.png", "row 4"]
    assert said == [f"{images}/t.parquet: 1 image named again, answered once: 'a.jpg'"]


def test_a_recorded_source_is_made_without_a_second_guess(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    table = tmp_path / "elsewhere" / "t.csv"
    table.write_text("x,y\nb.jpg,images/a.jpg\nc.jpg,images/sub/b.png\n")
    monkeypatch.chdir(tmp_path)
    source, references, _ = listed(table, path_column="y")
    # From here not one path of the table is there, and two columns may hold paths.
    monkeypatch.chdir("/")
    again = recorded_source(source.identity())
    assert again.identity() == source.identity()
    assert [*again.references(notify=print)] == references
    assert again.read(references[0]) == b"bytes of a.jpg"


REFUSED = {
    "no header": ("a.jpg,1\nsub/b.png,2\n", {}, "has no header, its first line is 'a.jpg', '1'"),
    "no paths": ("x,y\n1,2\n", {}, "no column holds paths of images.*--path-column"),
    "two columns": ("x,y\na.jpg,a.jpg\n", {}, "several columns may hold paths.*'x', 'y'.*--path"),
    "no row": ("image,y\n", {}, "has no row"),
    "wrong column": ("image\na.jpg\n", {"path_column": "imag"}, "did you mean 'image'"),
    "twice": ("image,image\na.jpg,a.jpg\n", {}, "stands twice"),
    "ragged": ("image,y\na.jpg,1\nsub/b.png\n", {}, "line 3: 1 cells under 2 column names"),
    "quotes": ('image,y\n"a.jpg,1\n', {}, "line 2: unexpected end"),
    "web": ("url\nhttp://a.b/c.jpg\n", {}, "addresses of the web.*download"),
    "empty": ("", {}, "is empty"),
    "binary": ("\0\1\2", {}, "no table, list or tar"),
    "no bytes": ("image,y\na.jpg,1\n", {"bytes_column": "y"}, "column 'y' holds no bytes"),
    "both": ("image,y\na.jpg,1\n", {"bytes_column": "y", "path_column": "image"}, "one of the two"),
}


@pytest.mark.proves("tables")
@pytest.mark.parametrize(("text", "columns", "message"), REFUSED.values(), ids=REFUSED)
def test_a_table_that_says_too_little_is_refused_in_one_line(
    images: Path, text: str, columns: dict[str, str], message: str
) -> None:
    (images / "t.csv").write_text(text)
    with pytest.raises(InputError, match=message) as fault:
        listed(images / "t.csv", **columns)
    assert "\n" not in str(fault.value)


def test_a_line_without_end_takes_no_memory(images: Path, memory: Callable[..., int]) -> None:
    (images / "list.txt").write_bytes(b"a.jpg\n" + b"x" * 20_000_000)

    def read() -> None:
        with pytest.raises(InputError, match="one path in every line"):
            listed(images / "list.txt")

    assert memory(read) < 6_000_000


def bytes_table(file: Path, rows: list[Any], column: Any = None, **how: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = column or arrow.binary()
    table = arrow.table(
        {"picture": arrow.array(rows, kind), "id": [f"i{at}" for at in range(len(rows))]}
    )
    parquet.write_table(table, file, **how)
    return file


@pytest.mark.proves("images")
def test_a_parquet_row_without_bytes_has_a_status(tmp_path: Path) -> None:
    file = bytes_table(tmp_path / "t.parquet", [b"1", None, b"", b"4"])
    assert contents(file) == {"i0": b"1", "i1": "missing_file", "i2": b"", "i3": b"4"}
    said = f"{file}: Parquet, images from the column 'picture', ids from 'id'"
    assert listed(file)[2] == [said]


def test_bytes_are_read_in_any_order_from_any_row_group(tmp_path: Path) -> None:
    rows = [b"%d" % at * 50 for at in range(500)]
    source, references, _ = listed(bytes_table(tmp_path / "t.parquet", rows, row_group_size=70))
    for at in [*range(0, 500, 3), 499, 0, 250, 249, 251]:
        assert source.read(references[at]) == rows[at]


def test_the_form_of_hugging_face_is_read(tmp_path: Path) -> None:
    kind = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    named = [{"bytes": b"1", "path": "a.jpg"}, {"bytes": b"2", "path": "b.jpg"}, None]
    table = arrow.table({"image": arrow.array(named[:2], kind), "label": [0, 1]})
    parquet.write_table(table, tmp_path / "t.parquet")
    assert contents(tmp_path / "t.parquet") == {"a.jpg": b"1", "b.jpg": b"2"}
    nameless = [{"bytes": b"1", "path": None}, {"bytes": None, "path": None}, None]
    for at in range(2):
        table = arrow.table({"image": arrow.array(nameless, kind), "label": [0, 1, 2]})
        (tmp_path / "data").mkdir(exist_ok=True)
        parquet.write_table(table, tmp_path / "data" / f"train-{at}-of-2.parquet")
    found = contents(tmp_path / "data")
    assert list(found)[2:4] == ["train-0-of-2.parquet/row 3", "train-1-of-2.parquet/row 1"]
    assert list(found.values()) == [b"1", "missing_file", "missing_file"] * 2


def test_two_columns_of_bytes_must_be_told_apart(tmp_path: Path) -> None:
    table = arrow.table({"mask": [b"m"], "image": [b"i"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError, match="'mask', 'image': name one with --bytes-column"):
        open_source(str(tmp_path / "t.parquet"))
    assert contents(tmp_path / "t.parquet", bytes_column="mask") == {"row 1": b"m"}


def test_bytes_that_are_no_images_do_not_hide_the_paths(images: Path) -> None:
    hashes = {"hash": [b"\0" * 8, b"\1" * 8], "image": ["a.jpg", "sub/b.png"]}
    parquet.write_table(arrow.table(hashes), images / "hashes.parquet")
    assert list(contents(images / "hashes.parquet")) == ["a.jpg", "sub/b.png"]
    thumbs = {"thumb": [None, b"\x89PNG\r\n\x1a\n"], "image": ["a.jpg", "sub/b.png"]}
    parquet.write_table(arrow.table(thumbs), images / "thumbs.parquet")
    assert list(contents(images / "thumbs.parquet")) == ["row 1", "row 2"]
    assert list(contents(images / "thumbs.parquet", path_column="image")) == ["a.jpg", "sub/b.png"]


@pytest.mark.proves("damage")
def test_damaged_bytes_in_a_parquet_file_never_stop_the_rest(tmp_path: Path) -> None:
    rows = [os.urandom(3000) for _ in range(60)]
    file = bytes_table(tmp_path / "t.parquet", rows, row_group_size=20, compression="zstd")
    source, references, _ = listed(file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2 - 3] ^= 255
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    file.write_bytes(content)
    states = []
    for reference, row in zip(references, rows, strict=True):
        try:
            states.append("ok" if source.read(reference) == row else "other")
        except UnreadableError as fault:
            states.append(fault.status)
    assert states[:20] == states[40:] == ["ok"] * 20
    file.write_bytes(content[:1000])
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        listed(file)


def test_names_in_a_table_make_nothing_wait_and_ask_no_address(images: Path) -> None:
    os.mkfifo(images / "pipe.jpg")
    (images / "loop.jpg").symlink_to("loop.jpg")
    names = [
        "a.jpg",
        "pipe.jpg",
        "loop.jpg",
        "sub",
        "x" * 5000 + ".jpg",
        "nul\0.jpg",
        "https://example.org/x.jpg",
        "s3a::https://example.org/x.jpg",
        "gopher://x/y.jpg",
    ]
    parquet.write_table(arrow.table({"path": names}), images / "t.parquet")
    assert list(contents(images / "t.parquet").values()) == [
        b"bytes of a.jpg",
        "not_a_file",
        "unreadable_file",
        "not_a_file",
        "unreadable_file",
        "unreadable_file",
        "unreadable_file",
        "missing_file",
        "unreadable_file",
    ]


def test_rows_stream(tmp_path: Path, memory: Callable[..., int]) -> None:
    paths = arrow.array([f"images/{at:09}.jpg" for at in range(20_000)])
    parquet.write_table(arrow.table({"path": paths}), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("path,x\n" + "".join(f"{path},1\n" for path in paths))
    (tmp_path / "t.txt").write_text("".join(f"{path}\n" for path in paths))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000000000.jpg").write_bytes(b"1")
    del paths
    for ending in ("parquet", "csv", "txt"):
        source = open_source(str(tmp_path / f"t.{ending}"))
        counts: list[int] = []

        def count(source: Source = source, counts: list[int] = counts) -> None:
            counts.append(sum(1 for _ in source.references(notify=print)))

        assert memory(count) < 3_000_000
        assert counts == [20_000]


def test_a_table_names_files_in_a_store(tmp_path: Path) -> None:
    import fsspec

    memory_store = fsspec.filesystem("memory")
    memory_store.pipe("/shelf/a.jpg", b"in the store")
    memory_store.pipe("/shelf/list.csv", b"path\na.jpg\nmemory://shelf/a.jpg\ngone.jpg\n")
    assert contents("memory://shelf/list.csv") == {
        "a.jpg": b"in the store",
        "memory://shelf/a.jpg": b"in the store",
        "gone.jpg": "missing_file",
    }
    assert store.protocol_of("memory://shelf/a.jpg") == "memory"
