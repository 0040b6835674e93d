import errno
import os
from pathlib import Path

import h5py
import pytest

from archiveprobe.base import files
from archiveprobe.base.errors import InputError


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "new" / "deep" / "file"
    files.write_whole(path, b"old")
    assert path.read_bytes() == b"old"
    files.write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert [*path.parent.iterdir()] == [path]


def calls_of(faulty_os, working_os, action):
    faulty = faulty_os(-1, "once")
    action()
    working_os()
    return faulty.calls


@pytest.mark.parametrize("mode", ["once", "full"])
def test_failed_write_leaves_old_or_new_and_no_temporary(tmp_path, faulty_os, working_os, mode):
    path = tmp_path / "file"
    path.write_bytes(b"older")
    calls = calls_of(faulty_os, working_os, lambda: files.write_whole(path, b"old" * 9))
    assert calls >= 5  # open, write, fsync, replace, and the folder's open and fsync
    for at in range(1, calls + 1):
        faulty_os(at, mode)
        with pytest.raises(OSError, match="No space"):
            files.write_whole(path, b"new")
        working_os()
        assert path.read_bytes() in (b"old" * 9, b"new")
        assert [*tmp_path.iterdir()] == [path]
        files.write_whole(path, b"old" * 9)


def test_failed_append_keeps_the_old_length(tmp_path, faulty_os, working_os):
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    calls = calls_of(faulty_os, working_os, lambda: files.append_durable(path, b"two\n"))
    for at in range(1, calls + 1):
        faulty_os(at, "once")
        with pytest.raises(OSError, match="No space"):
            files.append_durable(path, b"three\n")
        working_os()
        assert path.read_bytes() == b"one\ntwo\n"


def test_append_is_not_swallowed_by_a_torn_line(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"one\nto")
    files.append_durable(path, b"two\n")
    assert path.read_bytes() == b"one\nto\ntwo\n"


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    files.write_whole(tmp_path / "file", b"0123456789")
    files.append_durable(tmp_path / "file", b"ab\n")
    assert (tmp_path / "file").read_bytes() == b"0123456789\nab\n"


def test_a_disk_that_takes_nothing_does_not_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", lambda *_: 0)
    with pytest.raises(OSError):
        files.write_whole(tmp_path / "file", b"x")


@pytest.mark.parametrize(
    ("number", "advice"), [(28, "free some space"), (30, "writable"), (5, "check")]
)
def test_explained_says_what_to_do(number, advice):
    with pytest.raises(InputError, match=f"cannot write X: .*{advice}"), files.explained("write X"):
        raise OSError(number, os.strerror(number))


def test_explained_says_what_hdf5_says_in_the_words_of_the_system(tmp_path):
    with (
        pytest.raises(InputError, match=r"^cannot write it: No such file or directory; [^()]*$"),
        files.explained("write it"),
    ):
        h5py.File(tmp_path / "none" / "all.h5", "w")


@pytest.mark.parametrize("given", [(), ("source.csv",)])
def test_a_fault_of_the_disk_names_the_file_that_was_to_be_written(tmp_path, given):
    path = tmp_path / "all.json"
    with pytest.raises(OSError, match="No space left") as caught, files.replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device", *given)
    assert caught.value.filename == (given[0] if given else str(path))


def test_a_fault_of_the_disk_does_not_name_a_temporary(tmp_path):
    path = tmp_path / "all.json"
    with pytest.raises(FileNotFoundError) as caught, files.replacing(path):
        pass
    assert caught.value.filename == str(path)


def test_folders(tmp_path):
    folder = tmp_path / "a" / "b"
    files.make_folder(folder)
    files.make_folder(folder)
    assert not files.remove_folder(tmp_path / "a")
    assert files.remove_folder(folder)
    assert files.remove_folder(folder)
    assert not folder.exists()


def test_no_write_lists_the_whole_folder(tmp_path, monkeypatch):
    """Else a folder of a million files, written one by one, takes hours."""
    (tmp_path / "one").touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", None)
        files.write_whole(tmp_path / "two", b"2")
        assert not files.remove_folder(tmp_path)


def test_interrupt_leaves_the_old_file_and_no_temporary(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            files.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.proves("power")
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
    files.write_whole(tmp_path / "new" / "deep" / "file", b"content")
    *folders, temporary, rename, folder = steps
    assert folders[-2:] == [tmp_path.name, "new"]
    assert temporary.startswith(".tmp-")
    assert (rename, folder) == ("rename", "deep")
