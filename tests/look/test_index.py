"""The index gives back what was collected, in parts, and proves itself before it is used."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from drawn_collection import HOSTILE, drawn_collection

from archiveprobe.base import files
from archiveprobe.look.collect.collection import Collection, little_endian
from archiveprobe.look.server import index as look_index
from archiveprobe.look.server.index import Index, find_index, write_index

KEY, OTHER = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def collection():
    return drawn_collection(700, views=3, labels=("intact", "damaged", "destroyed"))


@pytest.fixture(scope="module")
def index(collection, tmp_path_factory):
    return Index(write_index(tmp_path_factory.mktemp("look"), KEY, collection))


def test_columns_come_back_to_the_last_bit(index, collection) -> None:
    assert index.meta["columns"] == collection.types
    for name, column in collection.columns.items():
        assert b"".join(index.pieces(name)) == little_endian(column)
        assert index.size(name) == column.nbytes
    assert not index.size("none") and not list(index.pieces("none"))


def test_a_long_column_comes_in_pieces(tmp_path, monkeypatch, collection) -> None:
    monkeypatch.setattr(look_index, "_PIECE", 1000)
    index = Index(write_index(tmp_path, KEY, collection))
    pieces = list(index.pieces("p:0"))
    assert max(map(len, pieces)) == 1000
    assert b"".join(pieces) == little_endian(collection.columns["p:0"])


def test_words_come_back_in_the_order_asked(index, collection) -> None:
    asked = [699, 7, 47, 0, 7]
    found = [json.loads(record) for record in index.records(asked)]
    assert found == [collection.rows[position] for position in asked]
    assert index.row(287) == collection.rows[287]
    with pytest.raises(KeyError):
        index.records([700])


def test_every_id_leads_to_its_row_however_hostile(index, collection) -> None:
    ids = [row["id"] for row in collection.rows]
    assert all(any(name in id_ for id_ in ids) for name in HOSTILE)
    assert index.positions([*ids, "none", "'; DROP TABLE rows"]) == {
        id_: at for at, id_ in enumerate(ids)
    }


def _plain_search(collection, text):
    return [
        any(text.lower() in row[name].lower() for name in ("id", "path", "text"))
        for row in collection.rows
    ]


@pytest.mark.parametrize(
    "text",
    ["PHOTO", "photo-00000", "<script>", "%", "_", "'", '"', "شارع", "\u202e", "\n", "street after",
     "Rain", "x" * 10_000, "nowhere", "", "\udcff", "jpgtelegram", "\x00", "&AMP;"],
)  # fmt: skip
@pytest.mark.parametrize("rows_in_block", [10_000, 7])
def test_search_finds_what_comparing_every_row_finds(
    collection, tmp_path, monkeypatch, text, rows_in_block
) -> None:
    monkeypatch.setattr(look_index, "_ROWS_IN_BLOCK", rows_in_block)
    index = Index(write_index(tmp_path, KEY, collection))
    assert index.find(text).astype(bool).tolist() == _plain_search(collection, text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("trümmer", [0, 1]),
        ("TRU\u0308MMER", [0, 1]),
        ("strasse", [2, 3]),
        ("STRAẞE", [2, 3]),
        ("οδοσ", [4]),
        ("tru", []),
    ],
)
def test_search_takes_forms_of_unicode_and_cases_as_alike(tmp_path, text, found) -> None:
    drawn = drawn_collection(5)
    ids = ["Trümmer 1", "Tru\u0308mmer 2", "Straße_1", "STRASSE", "ΟΔΟΣ ΟΔΟΣΕΙΣ"]
    rows = [{**row, "id": id_} for row, id_ in zip(drawn.rows, ids, strict=True)]
    collection = Collection(drawn.meta, drawn.columns, rows)
    index = Index(write_index(tmp_path, KEY, collection))
    assert np.flatnonzero(index.find(text)).tolist() == found


def test_threads_read_at_the_same_time(index, collection) -> None:
    wrong = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for position in rng.integers(0, 700, 50).tolist():
            if index.row(position) != collection.rows[position]:
                wrong.append(position)
            if index.find("PHOTO").sum() != sum(_plain_search(collection, "photo")):
                wrong.append("photo")

    threads = [threading.Thread(target=read, args=[seed]) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_index_is_found_for_its_own_state_only(tmp_path) -> None:
    collection = drawn_collection(20)
    assert find_index(tmp_path, KEY) is None
    file = write_index(tmp_path, KEY, collection)
    assert find_index(tmp_path, KEY) == file
    assert find_index(tmp_path, OTHER) is None


def test_a_new_index_replaces_the_old_one_under_its_reader(tmp_path) -> None:
    before = Index(write_index(tmp_path, KEY, drawn_collection(20)))
    file = write_index(tmp_path, OTHER, drawn_collection(30))
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "index.json", file])
    assert len(before) == 20 and json.loads(before.records([19])[0])["id"]
    before.close()


@pytest.mark.parametrize("place", [0, 100, -1])
def test_a_flipped_bit_is_found(tmp_path, place) -> None:
    file = write_index(tmp_path, KEY, drawn_collection(20))
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    assert find_index(tmp_path, KEY) is None


def test_a_damaged_record_or_a_cut_file_is_no_index(tmp_path) -> None:
    file = write_index(tmp_path, KEY, drawn_collection(20))
    record = tmp_path / "index.json"
    kept = record.read_bytes()
    record.write_bytes(kept.replace(b'"form": 3', b'"form": 2'))
    assert find_index(tmp_path, KEY) is None
    record.write_bytes(kept)
    os.truncate(file, file.stat().st_size // 2)
    assert find_index(tmp_path, KEY) is None
    file.unlink()
    assert find_index(tmp_path, KEY) is None


def test_a_full_disk_leaves_the_old_index(tmp_path, monkeypatch, fault_of) -> None:
    file = write_index(tmp_path, KEY, drawn_collection(20))
    before = sorted(tmp_path.iterdir())

    def refuse(path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "fsync", refuse)
    fault_of(lambda: write_index(tmp_path, OTHER, drawn_collection(20)), "No space", "free some")
    assert sorted(tmp_path.iterdir()) == before
    monkeypatch.undo()
    assert find_index(tmp_path, KEY) == file


def test_what_sqlite_cannot_write_is_said_in_one_line(tmp_path, monkeypatch, fault_of) -> None:
    script = look_index._TABLES
    monkeypatch.setattr(look_index, "_TABLES", f"PRAGMA max_page_count = 3; {script}")
    fault_of(lambda: write_index(tmp_path, KEY, drawn_collection(200)), "full", "free some space")
    assert [path.name for path in tmp_path.iterdir()] == []


_KILLED = """
import os, sys
from pathlib import Path
from drawn_collection import drawn_collection
from archiveprobe.look.server import index
def end(*_):
    os.kill(os.getpid(), 9)
setattr(index, sys.argv[2], end)
index.write_index(Path(sys.argv[1]), "b" * 64, drawn_collection(50))
"""


@pytest.mark.parametrize("moment", ["_blocks", "digest_of", "write_sealed", "discard"])
def test_a_killed_writer_leaves_a_folder_that_the_next_one_cleans(tmp_path, moment) -> None:
    write_index(tmp_path, KEY, drawn_collection(20))
    done = subprocess.run([sys.executable, "-c", _KILLED, tmp_path, moment], env=_paths())
    assert done.returncode == -9
    assert (find_index(tmp_path, OTHER) is None) == (moment != "discard")
    file = write_index(tmp_path, OTHER, drawn_collection(30))
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "index.json", file])
    assert find_index(tmp_path, OTHER) == file


def _paths() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
