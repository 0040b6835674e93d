"""Parquet, Lance and bare arrays hold the same rows as HDF5, in the order of the table."""

import builtins
import errno
import json
import os

import numpy as np
import pytest

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.cache.export import export
from archiveprobe.cache.store import Reader

IDS = ["صورة.png", "a\0b", "caf\udce9", "d", "e"]
STORED = ["صورة.png", "a\\x00b", "caf\\udce9", "d", "e"]


@pytest.fixture
def reader(folder, rows, write):
    write(folder, rows)
    return Reader(folder)


@pytest.fixture
def keys(rows):
    first, second, *_, last = rows
    return [last, None, first, b"?" * 32, second]


@pytest.fixture
def expected(reader, keys):
    return reader.read(keys)[1]


@pytest.fixture(params=[1, 1 << 20])
def exported(request, tmp_path, keys, reader):
    """Export in blocks of a row, and all at once."""

    def exported(name, **options):
        path = tmp_path / name
        columns = {"id": IDS, "status": ["ok"] * 5}
        readers = {"timm:tiny.v1": reader}
        export(path, columns, keys, readers, block_bytes=request.param, **options)
        assert list(tmp_path.rglob(".tmp-*")) == []
        return path

    return exported


def test_parquet(exported, expected, reader):
    import pyarrow.parquet as pq

    table = pq.read_table(exported("all.parquet"))
    assert table["id"].to_pylist() == STORED
    facts = table.schema.field("embeddings/timm-tiny_v1").metadata
    assert json.loads(facts[b"shape"]) == [2, 3]
    assert facts[b"fingerprint"].decode() == reader.record.digest
    column = table["embeddings/timm-tiny_v1"].combine_chunks()
    # As docs/caches.md says.
    got = np.frombuffer(b"".join(column.to_pylist()), "<f2").reshape(5, 2, 3)
    assert got.tobytes() == expected.tobytes()
    assert table.num_rows == 5


def test_lance(exported, expected):
    lance = pytest.importorskip("lance")
    dataset = lance.dataset(str(exported("all.lance")))
    assert dataset.version == 1
    table = dataset.to_table()
    assert table["id"].to_pylist() == STORED
    got = np.array(table["embeddings/timm-tiny_v1"].to_pylist(), np.float16).reshape(5, 2, 3)
    assert np.array_equal(got, expected, equal_nan=True)


def test_a_bare_array(exported, expected, tmp_path):
    path = exported("all.npy")
    array = np.load(path, mmap_mode="r")
    assert array.dtype == "<f2"
    assert array.tobytes() == expected.tobytes()
    lines = (tmp_path / "all.csv").read_text().splitlines()
    assert lines == ["id,status", *(f"{id_},ok" for id_ in STORED)]


def test_the_form_that_is_named_wins(exported):
    assert exported("all.bin", form="npy").read_bytes().startswith(b"\x93NUMPY")
    assert exported("other.bin").read_bytes().startswith(b"\x89HDF")


@pytest.mark.parametrize("name", ["all.parquet", "all.lance", "all.npy"])
def test_nothing_is_replaced_unasked(exported, name, tmp_path):
    path = exported(name)
    with pytest.raises(InputError, match="exists already"):
        exported(name)
    if path.is_dir():
        with pytest.raises(InputError, match="remove this folder first"):
            exported(name, overwrite=True)
    else:
        exported(name, overwrite=True)
    (tmp_path / "table.csv").write_text("mine")
    with pytest.raises(InputError, match=r"table\.csv exists already"):
        exported("table.npy")


def test_an_array_holds_one_backbone(tmp_path, reader, keys):
    with pytest.raises(InputError, match="--backbone"):
        export(tmp_path / "all.npy", {"id": IDS}, keys, {"a": reader, "b": reader})
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_lance_is_an_extra(tmp_path, reader, keys, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "lance":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'archiveprobe\[lance\]'"):
        export(tmp_path / "all.lance", {"id": IDS}, keys, {"a": reader})


@pytest.mark.parametrize("name", ["all.parquet", "all.npy", "all.lance"])
def test_a_full_disk_leaves_no_half_file(tmp_path, reader, keys, monkeypatch, name):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for call in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(files.os, call, full)
            with pytest.raises(InputError, match="free some space"):
                export(tmp_path / name, {"id": IDS}, keys, {"a": reader})
        assert not (tmp_path / name).exists()
        assert list(tmp_path.rglob(".tmp-*")) == []
