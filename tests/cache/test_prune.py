import shutil

import pytest

from archiveprobe.base.errors import InputError
from archiveprobe.base.lock import Lock
from archiveprobe.cache import spec
from archiveprobe.cache.prune import prunable, prune
from archiveprobe.cache.store import Reader


@pytest.fixture
def root(folder, rows, write):
    write(folder, rows)
    shutil.copytree(folder, folder.with_name("old-0123456789abcdef"))
    return folder.parent


def names(items):
    return [item.path.name for item in items]


def test_a_cache_that_no_task_uses(root, folder, rows):
    (item,) = prunable(root, {folder.name})
    old = root / "old-0123456789abcdef"
    assert item.path == old
    assert item.bytes == sum(p.stat().st_size for p in old.rglob("*") if p.is_file())
    assert old.exists()
    assert prune([item]) == item.bytes
    assert [path.name for path in root.iterdir()] == [folder.name]
    assert Reader(folder).rows == 7
    assert prune([item]) == 0


def test_leftovers_of_a_cache_in_use(root, folder):
    shutil.rmtree(root / "old-0123456789abcdef")
    (folder / "set-aside").mkdir()
    (folder / "set-aside" / "000000-aaaaaaaa.h5").write_bytes(b"abc")
    (folder / "set-aside" / "000000-aaaaaaaa.h5.1").write_bytes(b"abc")
    (folder / "set-aside" / "notes.txt").write_text("mine")
    (folder / "shards" / ".tmp-1-a").write_bytes(b"ab")
    (folder / ".tmp-1-b").write_bytes(b"a")
    items = prunable(root, {folder.name})
    assert {item.path.name: item.bytes for item in items} == {
        "000000-aaaaaaaa.h5": 3, "000000-aaaaaaaa.h5.1": 3, ".tmp-1-a": 2, ".tmp-1-b": 1,
    }  # fmt: skip
    assert prune(items) == 9
    assert prunable(root, {folder.name}) == []
    assert (folder / "set-aside" / "notes.txt").exists()
    assert Reader(folder).read(list(Reader(folder).keys))[0].all()


def test_locked_caches_are_never_listed_nor_removed(root, folder):
    items = prunable(root, set())
    assert len(items) == 2
    with Lock(folder):
        assert names(prunable(root, set())) == ["old-0123456789abcdef"]
        with pytest.raises(InputError, match="another process"):
            prune([item for item in items if item.path == folder])
    assert Reader(folder).rows == 7


def test_what_is_not_ours_is_left_alone(root, folder, tmp_path):
    old = root / "old-0123456789abcdef"
    (old / "notes.txt").write_text("mine")
    (root / "notes").mkdir()
    (root / "plain-0123456789abcdef").mkdir()
    (root / "file-0123456789abcdef").write_text("x")
    shutil.copytree(folder, root / "renamed")
    shutil.copytree(folder, tmp_path / "elsewhere")
    (root / "link-0123456789abcdef").symlink_to(tmp_path / "elsewhere")
    items = prunable(root, {folder.name})
    assert names(items) == [old.name]
    prune(items)
    assert (old / "notes.txt").read_text() == "mine"
    assert not (old / spec.FILE).exists()
    assert prunable(root, {folder.name}) == []
    assert (tmp_path / "elsewhere" / spec.FILE).exists()


def test_a_linked_shard_folder_is_not_followed(root, folder, tmp_path):
    old = root / "old-0123456789abcdef"
    shutil.move(old / "shards", tmp_path / "shards")
    (old / "shards").symlink_to(tmp_path / "shards")
    prune(prunable(root, {folder.name}))
    assert len(list((tmp_path / "shards").iterdir())) == 3


def test_a_killed_prune_can_be_repeated(root, folder, faulty_os, working_os, dead):
    at = 0
    while items := prunable(root, {folder.name}):
        at += 1
        faulty_os(2, "dead")
        with pytest.raises(dead):
            prune(items)
        working_os()
        assert at < 20
    assert not (root / "old-0123456789abcdef" / spec.FILE).exists()


def test_no_root(tmp_path):
    assert prunable(tmp_path / "nowhere", set()) == []
