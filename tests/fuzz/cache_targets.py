"""What the cache finds on disk: its log, its record, its shards, its lock; and weights files."""

import hashlib
import json
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import seeds
from hdf5 import resealed
from law import one_line, told
from snapshots import current_cache, write_snapshot

from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock
from archiveprobe.cache import log
from archiveprobe.cache.prune import prunable
from archiveprobe.cache.spec import (
    FILE,
    find_caches,
    fingerprint_digest,
    folder_name,
    match_request,
)
from archiveprobe.cache.store import Reader, Writer
from archiveprobe.cache.verify import verify
from archiveprobe.embed.export import export_task
from archiveprobe.embed.inventory import list_caches
from archiveprobe.embed.models import misfit, read_state, tensor_digest
from archiveprobe.task.config import load_task


def lay(folder: Path, files: Mapping[str, bytes] = MappingProxyType({})) -> Path:
    """A house in `folder` with a fresh cache, in which `files` stand beside the usual ones."""
    if not (folder / "task.toml").exists():
        seeds.build_house(folder)
    root = folder / "work" / "cache"
    shutil.rmtree(root, ignore_errors=True)
    for path, content in (seeds.cache_files() | files).items():
        file = root / seeds.CACHE / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return root / seeds.CACHE


def _use(folder: Path) -> None:
    """Read, verify, and resume the cache in `folder`: every row as it was, or a told fault."""
    rows = seeds.rows()
    with told():
        _assert_rows_of(folder)
    for deep in (False, True):
        for line in verify(folder, deep).bad:
            one_line(line)
    with told():
        with Writer.open(folder, seeds.FINGERPRINT, seeds.request_of_house()) as writer:
            for note in writer.notes:
                one_line(note)
            for key, row in rows.items():
                writer.add(key, row)
        present = _assert_rows_of(folder)
        assert present.all()


def _assert_rows_of(folder: Path) -> np.ndarray:
    """Read every row: those that are present have their own numbers."""
    rows = seeds.rows()
    reader = Reader(folder)
    _ = reader.failures
    present, got = reader.read(list(rows))
    for is_there, row, expected in zip(present, got, rows.values(), strict=True):
        assert row.tobytes() == expected.tobytes() if is_there else np.isnan(row).all()
    return present


def commits(data: bytes, folder: Path) -> None:
    """The log, as it is and with every line's CRC made true: no row but the true one."""
    for content in dict.fromkeys((data, _with_true_crc(data))):
        with seeds.small_chunks():
            _use(lay(folder, {log.COMMITS: content}))


def _with_true_crc(data: bytes) -> bytes:
    lines = re.findall(rb"\{.*\}", data)
    return b"".join(b"%08x %s\n" % (zlib.crc32(line), line) for line in lines)


def failures(data: bytes, folder: Path) -> None:
    """The failures: damaged lines are passed over, and no row is a failure."""
    with seeds.small_chunks():
        cache = lay(folder, {log.FAILURES: data})
        reader = Reader(cache)
        assert not reader.failures.keys() & reader.keys
        with Writer.open(cache, seeds.FINGERPRINT, seeds.request_of_house()) as writer:
            assert not writer.failures.keys() & writer.keys
            writer.fail(b"g" * 32, "zero", "detail")
        assert b"g" * 32 in Reader(cache).failures


def record(data: bytes, folder: Path) -> None:
    """fingerprint.json, as it is and with a true digest: found, refused or passed over."""
    for content, name in dict.fromkeys(((data, seeds.CACHE), _with_true_digest(data))):
        with seeds.small_chunks():
            cache = lay(folder, {FILE: content})
            if name != seeds.CACHE:
                cache = cache.rename(cache.with_name(name))
            _look_for(folder)
            _use(cache)


def _with_true_digest(data: bytes) -> tuple[bytes, str]:
    """The record as a stranger would sign it, and the folder name that belongs to it."""
    try:
        content = json.loads(data)
        digest = fingerprint_digest(content["fingerprint"])
        if content["sha256"] == digest:
            return data, seeds.CACHE
        content["sha256"] = digest
        content.pop("crc32", None)
        return json.dumps(content).encode(), folder_name("hog", content["fingerprint"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return data, seeds.CACHE


def _look_for(folder: Path) -> None:
    """Everything that searches the caches of a task."""
    task = load_task(folder)
    root = task.work / "cache"
    found = find_caches(root, "hog")
    for record in match_request(root, "hog", seeds.request_of_house()):
        assert record in found
    with told():
        write_snapshot(task)
        current_cache(task, "hog")
    with told():
        list_caches(task)
    with told():
        export_task(task, folder / "all.h5", overwrite=True, partial=True)
    with told():
        prunable(root, ())


def shard(data: bytes, folder: Path) -> None:
    """A shard under its old line, under a line of its own, and without one."""
    logged = [(path, seeds.cache_files()[path]) for path in seeds.shards()[: seeds.LOGGED]]
    at, (path, old) = min(enumerate(logged), key=lambda one: abs(len(one[1][1]) - len(data)))
    with seeds.small_chunks():
        _use(lay(folder, {path: data[: len(old)].ljust(len(old), b"\0")}))
        forged = resealed(data)
        name, line = _line_for(forged, rows=(5, 1)[at])
        lines = seeds.cache_files()[log.COMMITS].splitlines(keepends=True)
        del lines[at]
        for content in (b"".join([line, *lines]), b"".join(lines)):
            _use_forged(lay(folder, {log.COMMITS: content, f"shards/{name}": forged}))


def _line_for(data: bytes, rows: int) -> tuple[str, bytes]:
    sha256 = hashlib.sha256(data).hexdigest()
    name = log.shard_name(0, sha256)
    return name, log.format_commit(log.Commit(name, rows, max(len(data), rows), sha256))


def _use_forged(folder: Path) -> None:
    """Rows that somebody else has written may hold any numbers; nothing else may happen."""
    keys = list(seeds.rows())
    with told():
        reader = Reader(folder)
        reader.read([*keys, *reader.keys])
    for line in verify(folder, deep=True).bad:
        one_line(line)
    with told(), Writer.open(folder, seeds.FINGERPRINT, seeds.request_of_house()) as writer:
        for note in writer.notes:
            one_line(note)
    with told():
        reader = Reader(folder)
        reader.read([*keys, *reader.keys])


def holder(data: bytes, folder: Path) -> None:
    """LOCK, while another process holds it: refused in one line, whatever stands in it."""
    with Lock(folder):
        (folder / "LOCK").write_bytes(data)
        try:
            Lock(folder).acquire()
        except InputError as fault:
            one_line(str(fault))
        else:
            raise AssertionError("two hold one lock")


def safetensors(data: bytes, folder: Path) -> None:
    """A .safetensors file of weights."""
    _weights(data, folder / "weights.safetensors")


def torch_file(data: bytes, folder: Path) -> None:
    """A torch file of weights: never more than tensors, and those can be loaded."""
    _weights(data, folder / "weights.pt")


def _weights(data: bytes, file: Path) -> None:
    import torch

    file.write_bytes(data)
    with told():
        state = read_state(file)
        tensor_digest(state)
        module = torch.nn.Module()
        module.a = torch.nn.Linear(3, 2)
        if not misfit(module, state):
            module.load_state_dict(state, strict=True)
