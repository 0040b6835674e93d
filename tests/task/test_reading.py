"""Ordinary files only, up to a limit, and a large one in a bounded amount of memory."""

import hashlib
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from archiveprobe.base import reading
from archiveprobe.base.reading import TooManyBytesError, digest_of, read_ordinary
from archiveprobe.task import manifest
from archiveprobe.task.config import load_task
from archiveprobe.task.folds import ensure_folds, folds_file
from archiveprobe.task.manifest import manifest_file, read_manifest
from archiveprobe.task.rows import Row, read_rows
from archiveprobe.task.scan import scan

READERS: list[Callable[[Path, int], object]] = [read_ordinary, digest_of]


@pytest.mark.parametrize("size", [0, 1, 99, 100, 3_000_000])
def test_what_is_read_is_what_is_there(tmp_path, size) -> None:
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert read_ordinary(tmp_path / "file", 3_000_000) == content
    assert digest_of(tmp_path / "file", 3_000_000) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("read", READERS)
def test_more_than_the_limit_is_refused(tmp_path, read) -> None:
    (tmp_path / "file").write_bytes(b"x" * 101)
    with pytest.raises(TooManyBytesError, match="101 bytes, limit 100") as caught:
        read(tmp_path / "file", 100)
    assert caught.value.size == 101


@pytest.mark.parametrize("read", READERS)
def test_a_file_that_grows_while_it_is_read_ends_at_the_limit(tmp_path, monkeypatch, read) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 50)
    real = os.read

    def growing(descriptor: int, count: int) -> bytes:
        content = real(descriptor, min(count, 10))
        with file.open("ab") as stream:
            stream.write(b"y" * 20)
        return content

    monkeypatch.setattr(reading.os, "read", growing)
    with pytest.raises(TooManyBytesError, match="limit 100"):
        read(file, 100)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "no ordinary file"),
        (lambda path: path.symlink_to("/dev/zero"), "no ordinary file"),
        (Path.mkdir, "Is a directory"),
        (lambda path: path.symlink_to(path), "Too many levels"),
        (lambda _: None, "No such file"),
    ],
    ids=["pipe", "device", "folder", "loop", "missing"],
)
def test_what_is_no_ordinary_file_is_refused_at_once(tmp_path, read, make, reason) -> None:
    make(tmp_path / "odd")
    with pytest.raises(OSError, match=reason):
        read(tmp_path / "odd", 100)


@pytest.mark.proves("hostile")
def test_a_large_file_is_hashed_in_little_memory(tmp_path) -> None:
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(50_000_000)
    tracemalloc.start()
    digest_of(tmp_path / "large", 100_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.proves("hostile")
def test_an_image_of_too_many_bytes_is_not_read(make_task, tmp_path, monkeypatch) -> None:
    task = make_task(tmp_path)
    with (task.root / "film.jpg").open("wb") as stream:
        stream.truncate(reading.IMAGE_BYTES + 1)
    calls: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(reading.os, "read", lambda *_: calls.append(1) or b"")
        (entry,) = scan(task, [Row("film.jpg", "film.jpg")])
    assert (entry.status, entry.digest, calls) == ("too_many_bytes", "", [])
    assert entry.observed.bytes == reading.IMAGE_BYTES + 1
    assert "limit 268435456" in entry.observed.detail
    manifest.write_manifest(task, [entry])
    assert read_manifest(task) == [entry]


@pytest.mark.proves("hostile")
@pytest.mark.parametrize("name", ["task.toml", "labels.csv", "corrections.csv"])
def test_a_pipe_in_place_of_what_the_user_wrote(make_task, tmp_path, fault_of, name) -> None:
    settings = '[images]\ntable = "labels.csv"\n'
    head = 'name = "t"\nlabels = ["a", "b"]\ncorrections = "corrections.csv"\n'
    tables = {"labels": "image,label\nx,a\n", "corrections": "id,label\n"}
    make_task(tmp_path, settings, head=head, **tables)
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    fault_of(lambda: read_rows(load_task(tmp_path)), name, "no ordinary file")


@pytest.mark.proves("hostile")
@pytest.mark.parametrize("place", [manifest_file, folds_file])
def test_a_pipe_in_place_of_what_a_run_wrote(make_task, tmp_path, fault_of, place) -> None:
    task = make_task(tmp_path, labels="image,label\nx,intact\n")
    place(task).parent.mkdir()
    os.mkfifo(place(task))
    read = read_manifest if place is manifest_file else lambda task: ensure_folds(task, [], [])
    fault_of(lambda: read(task), place(task).name, "no ordinary file")
