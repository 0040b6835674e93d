"""Every path of a table leads to an entry, whatever lies there."""

import os

import pytest

from archiveprobe.task import scan as scan_module
from archiveprobe.task.decoding import digest
from archiveprobe.task.rows import Row
from archiveprobe.task.scan import scan


@pytest.fixture
def task(make_task, tmp_path):
    return make_task(tmp_path / "task")


def status_of(task, path):
    (entry,) = scan(task, [Row("r", path)])
    assert (entry.digest == "") == (entry.status != "new")
    return entry.status


@pytest.mark.proves("images")
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("no", "missing_file"),
        ("no/such/file", "missing_file"),
        ("file/below", "missing_file"),
        ("../secret", "outside_root"),
        ("folder/../../secret", "outside_root"),
        ("folder/../file", "outside_root"),
        ("/etc/passwd", "outside_root"),
        ("folder", "not_a_file"),
        ("", "not_a_file"),
        (".", "not_a_file"),
        ("nul\0", "unreadable_file"),
        ("n" * 300, "unreadable_file"),
        ("file", "new"),
        ("./file", "new"),
        ("folder//inner", "new"),
    ],
)
def test_statuses_of_paths(task, put, path, status):
    put("file")
    put("folder/inner")
    put("../secret")
    assert status_of(task, path) == status


@pytest.mark.proves("images")
@pytest.mark.parametrize(
    ("name", "target", "status"),
    [
        ("link", "folder/inner", "new"),
        ("link", "../secret", "outside_root"),
        ("link", "/etc/hostname", "outside_root"),
        ("link", "gone", "missing_file"),
        ("link", "../gone", "outside_root"),
        ("link", "link", "unreadable_file"),
        ("link", "folder", "not_a_file"),
        ("link", "..", "outside_root"),
    ],
)
def test_links_to_files(task, put, name, target, status):
    put("folder/inner")
    put("../secret")
    (task.root / name).symlink_to(target)
    assert status_of(task, name) == status


@pytest.mark.parametrize(
    ("target", "status"),
    [("folder", "new"), ("../other", "outside_root"), ("loop", "unreadable_file")],
)
def test_links_to_folders(task, put, target, status):
    put("folder/inner")
    put("../other/inner")
    (task.root / "loop").symlink_to(target)
    assert status_of(task, "loop/inner") == status


def test_root_may_be_a_link(task, put, tmp_path):
    row = put("a")
    task.root.rename(tmp_path / "far")
    task.root.symlink_to(tmp_path / "far")
    assert scan(task, [row])[0].digest == digest(b"abc")


def test_special_file(task):
    os.mkfifo(task.root / "pipe")
    assert status_of(task, "pipe") == "not_a_file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission(task, put):
    put("a")
    (task.root / "a").chmod(0)
    assert status_of(task, "a") == "unreadable_file"


def test_detail_of_a_fault_names_no_path(task, put, monkeypatch):
    """A manifest may be handed on, and is the same wherever the task lies."""
    row = put("a")

    def refuse(file, _):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(scan_module, "digest_of", refuse)
    (task.root / "loop").symlink_to("loop")
    details = [entry.observed.detail for entry in scan(task, [row, Row("loop", "loop")])]
    assert details == ["Permission denied", "links in a loop"]


def test_disk_error(task, put, monkeypatch):
    row, other = put("a"), put("b")
    real = scan_module.digest_of

    def failing(file, limit):
        if file.endswith("/a"):
            raise OSError(5, "Input/output error")
        return real(file, limit)

    monkeypatch.setattr(scan_module, "digest_of", failing)
    entries = scan(task, [row, other])
    assert [entry.status for entry in entries] == ["unreadable_file", "new"]
    assert "Input/output error" in entries[0].observed.detail
