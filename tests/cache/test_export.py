import json
import os

import h5py
import numpy as np
import pytest

from archiveprobe.base.errors import InputError
from archiveprobe.cache import spec
from archiveprobe.cache.export import export
from archiveprobe.cache.store import Reader, Writer
from archiveprobe.cache.verify import repair, verify


@pytest.fixture
def reader(folder, rows, write):
    write(folder, rows)
    return Reader(folder)


def columns(n):
    return {
        "id": [f"صورة-{i}.png" for i in range(n)],
        "label": ["destruction"] * n,
        "split": ["train"] * n,
        "status": ["ok"] * n,
    }


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
def test_one_file_in_the_order_of_the_table(tmp_path, reader, rows, block_bytes):
    keys = [*reversed(rows), None, b"?" * 32, next(iter(rows))]
    path = tmp_path / "out.h5"
    export(path, columns(10), keys, {"timm:tiny": reader}, block_bytes=block_bytes)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["out.h5"]
    with h5py.File(path) as file:
        assert set(file) == {"id", "label", "split", "status", "embeddings"}
        assert list(file["id"].asstr()) == columns(10)["id"]
        assert h5py.check_string_dtype(file["id"].dtype) == ("utf-8", None)
        dataset = file["embeddings/timm-tiny"]
        got = dataset[...]
        assert (got.dtype, got.shape) == (np.float16, (10, 2, 3))
        assert dataset.attrs["backbone"] == "timm:tiny"
        assert dataset.attrs["fingerprint"] == spec.fingerprint_digest(reader.fingerprint)
        assert json.loads(dataset.attrs["views"]) == ["center", "flip"]
    for key, row in zip(keys, got, strict=True):
        if key in rows:
            assert np.array_equal(row, rows[key].astype(np.float16))
        else:
            assert np.isnan(row).all()


def test_an_empty_table(tmp_path, reader):
    export(tmp_path / "out.h5", columns(0), [], {"b": reader})
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["embeddings/b"].shape == (0, 2, 3)
        assert file["id"].shape == (0,)


def test_names_that_utf8_cannot_hold(tmp_path, reader):
    export(tmp_path / "out.h5", {"id": ["a\0b", "\udce9"]}, [None, None], {"b": reader})
    with h5py.File(tmp_path / "out.h5") as file:
        assert list(file["id"].asstr()) == ["a\\x00b", "\\udce9"]


def test_an_existing_file_is_kept_unless_told(tmp_path, reader):
    path = tmp_path / "out.h5"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        export(path, columns(1), [None], {"b": reader})
    assert path.read_text() == "mine"
    export(path, columns(1), [None], {"b": reader}, overwrite=True)
    assert h5py.is_hdf5(path)


def test_refusals(tmp_path, reader):
    path = tmp_path / "out.h5"
    with pytest.raises(InputError, match="'id' has 2 values for 1 rows"):
        export(path, columns(2), [None], {"b": reader})
    with pytest.raises(InputError, match="two files"):
        export(path, columns(1), [None], {"a:b": reader, "a/b": reader})
    Writer.open(tmp_path / "empty", {}, {}).close()
    with pytest.raises(InputError, match="no rows yet"):
        export(path, columns(1), [None], {"b": Reader(tmp_path / "empty")})
    with pytest.raises(InputError, match="cannot write"):
        export(tmp_path / "nowhere" / "out.h5", columns(1), [None], {"b": reader})
    assert not path.exists()


def full(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("mode", ["once", "full"])
def test_a_full_disk_at_any_call_leaves_nothing(
    tmp_path, reader, rows, faulty_os, working_os, mode, monkeypatch
):
    path = tmp_path / "out" / "out.h5"
    path.parent.mkdir()

    def run():
        export(path, columns(7), list(rows), {"b": reader}, overwrite=True)

    faulty = faulty_os(-1, "once")
    run()
    calls, whole = faulty.calls, path.read_bytes()
    assert calls == 5  # open, fsync, replace, and the folder's open and fsync
    for at in range(calls + 1):
        path.unlink()
        with monkeypatch.context() as patch, pytest.raises(InputError, match="free some space"):
            if at == 0:
                patch.setattr(os, "posix_fallocate", full)
            else:
                faulty_os(at, mode)
            run()
        working_os()
        if path.exists():  # only the last fsync, of the folder, came too late
            assert path.read_bytes() == whole
        assert [p for p in path.parent.iterdir() if p != path] == []
        run()


def test_a_damaged_cache_leaves_nothing_and_says_the_way_out(tmp_path, reader, rows, write):
    """A user took what each message advises, and must not go in circles."""
    folder = reader.folder
    path = reader.folder / "shards" / reader.commits[0].file
    data = bytearray(path.read_bytes())
    data[data.index(next(iter(rows.values())).astype(np.float16).tobytes())] ^= 1
    path.write_bytes(data)
    out = tmp_path / "out.h5"
    with pytest.raises(InputError, match=r"cache verify TASK --deep`, .* `archiveprobe embed TASK"):
        export(out, columns(7), list(rows), {"b": reader})
    assert [p for p in tmp_path.iterdir() if p.is_file()] == []

    repair(folder, verify(folder, deep=True))
    with pytest.raises(InputError, match="lost the embedding") as caught:
        Reader(folder)
    message = str(caught.value)
    assert message.startswith(f"3 rows of the cache {folder} lost the embedding ({path.name} was ")
    assert "`archiveprobe embed TASK`, which computes" in message
    assert "verify" not in message

    write(folder, rows)
    export(out, columns(7), list(rows), {"b": Reader(folder)})
    with h5py.File(out) as file:
        assert not np.isnan(file["embeddings/b"][...]).any()


def test_several_lost_shards_are_counted(reader):
    for path in sorted((reader.folder / "shards").iterdir())[1:]:
        path.unlink()
    with pytest.raises(InputError, match=r"4 rows .* \(.*/000001-.*is missing and 1 more like it"):
        Reader(reader.folder)
