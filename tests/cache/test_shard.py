import io
import re

import h5py
import numpy as np
import pytest

from archiveprobe.base.errors import InputError
from archiveprobe.cache import shard
from archiveprobe.cache.shard import ShardError

ROW_SHAPE = (2, 3)
N = 4


@pytest.fixture
def parts():
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((N, *ROW_SHAPE)).astype(np.float16)
    return {
        "key": np.arange(N * 32, dtype=np.uint8).reshape(N, 32),
        "embeddings": embeddings,
        "norm": shard.row_norms(embeddings),
        "view_ok": np.ones((N, 2), np.bool_),
    }


def test_round_trip_and_equal_rows_give_equal_bytes(parts, tmp_path):
    data = shard.build(*parts.values())
    assert shard.build(*parts.values()) == data
    (tmp_path / "s.h5").write_bytes(data)
    for source in (data, tmp_path / "s.h5"):
        for name, got in shard.read(source, ROW_SHAPE, N)._asdict().items():
            assert got.dtype == parts[name].dtype
            assert np.array_equal(got, parts[name])
    assert shard.read_keys(tmp_path / "s.h5", ROW_SHAPE, N) == [k.tobytes() for k in parts["key"]]


def test_rows_of_a_view_only(parts):
    scalar = parts["embeddings"][:, :, 0]
    data = shard.build(parts["key"], scalar, np.abs(scalar).astype(np.float32), parts["view_ok"])
    assert np.array_equal(shard.read(data, (2,)).embeddings, scalar)


@pytest.mark.parametrize(
    ("row_shape", "rows"), [((2, 4), N), ((3, 3), N), ((2,), N), (ROW_SHAPE, 3)]
)
def test_other_shape_than_declared(parts, row_shape, rows):
    with pytest.raises(ShardError, match="not"):
        shard.read(shard.build(*parts.values()), row_shape, rows)


def plain(file, name, data):
    file.create_dataset(name, data=data, chunks=data.shape, fletcher32=True, maxshape=data.shape)


def external_link(file, name, data, other):
    file[name] = h5py.ExternalLink(str(other), f"/{name}")


def soft_link(file, name, data, other):
    file[name] = h5py.SoftLink("/elsewhere")


def group(file, name, data, other):
    file.create_group(name)


def virtual(file, name, data, other):
    layout = h5py.VirtualLayout(data.shape, data.dtype)
    layout[...] = h5py.VirtualSource(str(other), name, data.shape)
    file.create_virtual_dataset(name, layout)


def external_storage(file, name, data, other):
    file.create_dataset(name, data.shape, data.dtype, external=[(str(other), 0, data.nbytes)])


def contiguous(file, name, data, other):
    file.create_dataset(name, data=data)


def no_checksum(file, name, data, other):
    file.create_dataset(name, data=data, chunks=data.shape)


def compressed(file, name, data, other):
    file.create_dataset(name, data=data, chunks=data.shape, fletcher32=True, compression="gzip")


def user_filter(file, name, data, other):
    # A number without a plug-in; marked optional, so that HDF5 writes it without one.
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk(data.shape)
    settings.set_filter(32099, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple(data.shape)
    kind = h5py.h5t.py_create(data.dtype)
    h5py.h5d.create(file.id, name.encode(), kind, space, settings)


def huge(file, name, data, other):
    shape = (1 << 40, *data.shape[1:])
    file.create_dataset(name, shape, data.dtype, chunks=data.shape, fletcher32=True)


def growable(file, name, data, other):
    file.create_dataset(
        name, data=data, chunks=data.shape, fletcher32=True, maxshape=(None, *data.shape[1:])
    )


def unwritten(file, name, data, other):
    file.create_dataset(name, data.shape, data.dtype, chunks=data.shape, fletcher32=True)


def huge_chunks(file, name, data, other):
    file.create_dataset(name, data=data[:1], chunks=(1, *data.shape[1:]), fletcher32=True)


def wider(file, name, data, other):
    plain(file, name, data.astype(np.float64))


def strings(file, name, data, other):
    plain(file, name, data.astype("S9"))


def missing(file, name, data, other):
    pass


def companion(file, name, data, other):
    plain(file, name, data)
    file["more"] = h5py.ExternalLink(str(other), "/")


HOSTILE = {
    external_link: "link to elsewhere",
    soft_link: "link to elsewhere",
    group: "not a dataset",
    virtual: "not chunked",
    external_storage: "in another file",
    contiguous: "not chunked",
    no_checksum: "other filters",
    compressed: "other filters",
    user_filter: "other filters",
    huge: "is (float16|uint8|float32|bool)",
    growable: "is (float16|uint8|float32|bool)",
    unwritten: "more bytes than the file holds",
    huge_chunks: "",
    wider: "is float64",
    strings: "is ",
    missing: "unexpected members",
    companion: "unexpected members",
}


def crafted(parts, hostile, member, other):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=shard.LIBVER) as file:
        file.attrs.create("version", 1, dtype="<u4")
        for name, data in parts.items():
            if name == member:
                hostile(file, name, data, other)
            else:
                plain(file, name, data)
    return buffer.getvalue()


def test_the_crafting_of_this_test_makes_good_shards(parts):
    data = crafted(parts, plain, None, None)
    assert np.array_equal(shard.read(data, ROW_SHAPE, N).embeddings, parts["embeddings"])


@pytest.mark.proves("hostile")
@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.__name__)
def test_hostile_shards_are_refused_before_a_read(parts, hostile, tmp_path, monkeypatch):
    other = tmp_path / "other.h5"
    other.write_bytes(shard.build(*parts.values()))
    path = tmp_path / "s.h5"

    def no_read(*_):
        raise AssertionError("data was read")

    for member in parts:
        path.write_bytes(crafted(parts, hostile, member, other))
        for row_shape, rows in ((ROW_SHAPE, N), (ROW_SHAPE, None), (None, None)):
            with monkeypatch.context() as patch, pytest.raises(ShardError) as caught:
                patch.setattr(h5py.Dataset, "__getitem__", no_read)
                shard.read(path, row_shape, rows)
            assert str(path) in str(caught.value)
            assert "archiveprobe embed TASK" in str(caught.value)
            if (member, rows) == ("embeddings", N):
                assert re.search(HOSTILE[hostile], str(caught.value))
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"x" * 4096, b"\x89HDF\r\n\x1a\n" + bytes(900)])
def test_no_hdf5(data):
    with pytest.raises(ShardError):
        shard.read(data, ROW_SHAPE, N)


def test_version_is_looked_at(parts):
    buffer = io.BytesIO(shard.build(*parts.values()))
    with h5py.File(buffer, "r+", libver=shard.LIBVER) as file:
        file.attrs.modify("version", np.uint32(2))
    with pytest.raises(ShardError, match="version"):
        shard.read(buffer.getvalue(), ROW_SHAPE, N)


def test_every_truncation_is_refused(parts):
    data = shard.build(*parts.values())
    for length in range(0, len(data), 397):
        with pytest.raises(ShardError):
            shard.read(data[:length], ROW_SHAPE, N)


@pytest.mark.proves("damage")
def test_a_flipped_bit_never_changes_a_number(parts):
    data = bytearray(shard.build(*parts.values()))
    rng = np.random.default_rng(1)
    refused = 0
    for at in rng.choice(len(data), 150, replace=False):
        bit = 1 << int(rng.integers(8))
        data[at] ^= bit
        try:
            got = shard.read(bytes(data), ROW_SHAPE, N)
        except ShardError:
            refused += 1
        else:
            assert all(np.array_equal(got._asdict()[name], parts[name]) for name in parts)
        data[at] ^= bit
    assert refused > 0


def test_link_in_place_of_a_shard(parts, tmp_path):
    (tmp_path / "real").write_bytes(shard.build(*parts.values()))
    (tmp_path / "s.h5").symlink_to(tmp_path / "real")
    with pytest.raises(ShardError, match="plain file"):
        shard.read(tmp_path / "s.h5", ROW_SHAPE, N)


def test_a_file_that_may_not_be_read_is_not_called_damaged(parts, tmp_path, monkeypatch):
    path = tmp_path / "s.h5"
    path.write_bytes(shard.build(*parts.values()))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(InputError, match="Permission denied") as caught:
        shard.read(path, ROW_SHAPE, N)
    assert not isinstance(caught.value, ShardError)


def test_faults_of_rows(parts):
    def fault(**changed):
        return shard.fault(shard.Shard(**(parts | changed)))

    def spoilt(name, value):
        array = parts[name].copy()
        array[1, 0] = value
        return fault(**{name: array})

    assert fault() is None
    assert spoilt("view_ok", False) == "a view is marked as not ok"
    assert spoilt("embeddings", np.inf) == "an embedding is not finite"
    assert "norm" in spoilt("embeddings", 0)
    assert "norm" in spoilt("norm", np.nan)
    assert "norm" in spoilt("norm", parts["norm"][1, 0] * 1.01)
    zeros = np.zeros_like(parts["embeddings"])
    assert "zero" in fault(embeddings=zeros, norm=np.zeros_like(parts["norm"]))
    twice = parts["key"].copy()
    twice[0] = twice[1]
    assert fault(key=twice) == "a key occurs twice"


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e4])
def test_the_cast_to_float16_is_within_the_norms_tolerance(parts, scale):
    exact = np.random.default_rng(2).standard_normal((N, 2, 3)) * scale
    rows = parts | {"embeddings": exact.astype(np.float16), "norm": shard.row_norms(exact)}
    assert shard.fault(shard.Shard(**rows)) is None
