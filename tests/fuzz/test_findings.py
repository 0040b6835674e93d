"""What the fuzzers have found, one test each: every one of these failed before it was mended."""

import json

import cache_targets
import numpy as np
import pytest
import seeds
import task_targets
from snapshots import sealed_anew

from archiveprobe.base.errors import InputError
from archiveprobe.cache import log, shard
from archiveprobe.cache.shard import ShardError
from archiveprobe.cache.spec import FILE, CacheRecord, match_request
from archiveprobe.cache.store import Reader, Writer
from archiveprobe.cache.verify import verify
from archiveprobe.task.config import load_task
from archiveprobe.task.folds import ensure_folds
from archiveprobe.task.manifest import Entry, manifest_file, read_manifest, write_manifest
from archiveprobe.task.rows import read_rows

# task.toml


def load(folder, *lines):
    (folder / "task.toml").write_text("\n".join(['name = "t"', *lines]), "utf-8")
    return load_task(folder)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400", "0x" + "f" * 17, "9" * 20])
def test_an_argument_that_no_record_can_hold(tmp_path, fault_of, value):
    own = ["[backbone.own]", 'library = "timm"', 'name = "x"', f"arguments = {{ a = {value} }}"]
    fault_of(lambda: load(tmp_path, *own), "backbone.own.arguments.a", "64 bits")


@pytest.mark.parametrize("key", ["folds.seed", "folds.count", "positive"])
def test_a_number_too_long_to_be_shown(tmp_path, fault_of, key):
    fault_of(lambda: load(tmp_path, f"{key} = 0x{'f' * 4000}"), f"'{key}'", "thousands of digits")


PATHS = ["images.root", "images.table", "corrections", "submission.template"]


@pytest.mark.parametrize("key", PATHS)
def test_a_path_with_a_nul(tmp_path, fault_of, key):
    fault_of(lambda: load(tmp_path, f'{key} = "a\\u0000b"'), key, "NUL")


def test_a_root_longer_than_any_name(tmp_path, fault_of):
    task = load(tmp_path, f'images.root = "{"n" * 300}"')
    fault_of(lambda: read_rows(task), "no folder", "images.root")


# Tables and products


def test_a_long_id_can_be_read_again(tmp_path):
    task = task_targets.house(tmp_path)
    entries = [Entry("x" * 200_000, "a.png")]
    write_manifest(task, entries)
    assert read_manifest(task) == entries


def test_a_long_group_can_be_read_again(tmp_path):
    task = task_targets.house(tmp_path)
    lines = [[*row[:4], "scene" * 40_000 if row[4] == "s1" else row[4]] for row in seeds.ROWS]
    (tmp_path / "labels.csv").write_bytes(seeds.as_csv([seeds.COLUMNS, *lines]))
    rows = read_rows(task)
    first = ensure_folds(task, rows, seeds.entries()).placed
    assert ensure_folds(task, rows, seeds.entries()).placed == first


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (seeds.entries()[0].digest, seeds.entries()[0].digest[1:]),
        (seeds.entries()[0].digest, "no digest"),
        ("00ff" * 4, "f" * 17),
        ("00ff" * 4, "-1"),
        (",255.0,", ",nan,"),
    ],
)
def test_a_manifest_that_could_not_be_used(tmp_path, fault_of, old, new):
    task = task_targets.house(tmp_path)
    text = seeds.products()["manifest.csv"].decode()
    assert old in text
    manifest_file(task).write_bytes(sealed_anew(text.replace(old, new).encode()))
    fault_of(lambda: read_manifest(task), "manifest.csv", "run `archiveprobe embed`")


# Shards


@pytest.fixture
def wide_cache(tmp_path):
    """A cache of one shard of four rows with a chunk of 1 MiB each; folder, rows, shard."""
    rows = {bytes([i]) * 32: np.full((1, 1 << 19), i + 1.0, np.float16) for i in range(4)}
    rows[bytes([0]) * 32][0, 5:] = 0
    with Writer.open(tmp_path / "cache", {}, {}) as writer:
        for key, row in rows.items():
            writer.add(key, row)
    (path,) = (tmp_path / "cache" / "shards").iterdir()
    return tmp_path / "cache", rows, path


def places_of(content, rows):
    """Where each row's numbers start in a shard's bytes."""
    return [content.index(row.tobytes()[:4096]) for row in rows.values()]


def refused_by_reader_and_deep_verify(folder, rows):
    with pytest.raises(ShardError, match="SHA-256"):
        Reader(folder).read(list(rows))
    assert not verify(folder, deep=True).ok


@pytest.mark.proves("damage")
def test_chunks_that_changed_places(wide_cache):
    """Each chunk brings its checksum along, so HDF5 itself notices nothing."""
    folder, rows, path = wide_cache
    content = path.read_bytes()
    second, third = places_of(content, rows)[1:3]
    size = (1 << 20) + 4
    one, other = content[second : second + size], content[third : third + size]
    path.write_bytes(
        content.replace(one, b"?" * size).replace(other, one).replace(b"?" * size, other)
    )
    with shard.open_checked(path, (1, 1 << 19), 4) as file:
        assert file["embeddings"][1, 0, 0] == 3
    refused_by_reader_and_deep_verify(folder, rows)


@pytest.mark.proves("damage")
def test_zeros_that_became_ones(wide_cache):
    """A Fletcher checksum does not tell 0x0000 from 0xFFFF, which erased flash memory gives."""
    folder, rows, path = wide_cache
    content = bytearray(path.read_bytes())
    at = places_of(bytes(content), rows)[0] + 512
    content[at : at + 512] = b"\xff" * 512
    path.write_bytes(content)
    with shard.open_checked(path, (1, 1 << 19), 4) as file:
        assert np.isnan(file["embeddings"][0]).any()
    refused_by_reader_and_deep_verify(folder, rows)


# fingerprint.json


def changed_record(folder, **fields):
    with seeds.small_chunks():
        cache = cache_targets.lay(folder)
    content = json.loads((cache / FILE).read_bytes()) | fields
    content.pop("crc32", None)
    (cache / FILE).write_text(json.dumps(content), "utf-8")
    return cache


@pytest.mark.parametrize("odd", ["\ud800", {"\udfff": 1}])
def test_a_request_with_half_a_character(tmp_path, odd):
    cache = changed_record(tmp_path, request={"asked": odd})
    assert match_request(cache.parent, "hog", seeds.request_of_house()) == []
    # Names of files that are not UTF-8 hold such halves, so the cache itself is sound.
    assert CacheRecord.read(cache).request == {"asked": odd}


def test_a_request_nested_too_deeply_for_comparing(tmp_path):
    cache = changed_record(tmp_path)
    text = (cache / FILE).read_text("utf-8")
    for depth in (200, 900, 980, 5000):
        deep = '{"asked": ' * depth + "1" + "}" * depth
        start = text.index('"request": ') + len('"request": ')
        end = text.index(', "row_shape"')
        (cache / FILE).write_text(text[:start] + deep + text[end:], "utf-8")
        assert match_request(cache.parent, "hog", seeds.request_of_house()) == []


@pytest.mark.parametrize("row_shape", [[], 0, [1 << 40, 1 << 40], [2, 1 << 62], [1 << 70]])
def test_a_row_shape_that_no_row_has(tmp_path, row_shape):
    cache = changed_record(tmp_path, row_shape=row_shape)
    (cache / log.COMMITS).unlink()
    with pytest.raises(InputError):
        Reader(cache).read([None, b"k" * 32])
