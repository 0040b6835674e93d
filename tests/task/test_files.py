import os
from pathlib import Path

import pytest

from archiveprobe.task.files import write_whole


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "new" / "deep" / "file"
    write_whole(path, b"old")
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert [*path.parent.iterdir()] == [path]


def refuse(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("owner", "name"), [(os, "fsync"), (os, "replace"), (os, "open"), (os, "write")]
)
def test_failure_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch, owner, name):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, refuse)
        with pytest.raises(OSError, match="No space"):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_interrupt_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_disk_that_takes_a_few_bytes_at_a_time(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, rest: write(descriptor, rest[:3]))
    write_whole(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_durable_on_return(tmp_path, monkeypatch):
    """Bytes reach the disk before the name changes, new folders and the name before the return."""
    steps = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(descriptor):
        steps.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        fsync(descriptor)

    def note_replace(source, target):
        steps.append("rename")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    write_whole(tmp_path / "new" / "deep" / "file", b"content")
    *folders, temporary, rename, folder = steps
    assert folders[-2:] == [tmp_path.name, "new"]
    assert temporary.startswith(".tmp-")
    assert (rename, folder) == ("rename", "deep")
