"""Rows whose table writes another path than the file's: found, said, stored and found again."""

import csv

import pytest

from archiveprobe.task import manifest
from archiveprobe.task import scan as scan_module
from archiveprobe.task.decoding import Observation
from archiveprobe.task.manifest import (
    read_manifest,
    with_found_paths,
    with_observations,
    write_manifest,
)
from archiveprobe.task.missing_images import report_missing
from archiveprobe.task.output import output_file
from archiveprobe.task.rows import read_rows
from archiveprobe.task.scan import scan

TABLE = '[images]\ntable = "labels.csv"\n'


@pytest.fixture
def scanned(tree):
    def scanned(ids, files=(), settings=TABLE):
        """The task, its entries after `embed` has looked at them, and what was said."""
        task = tree(*files, settings=settings)
        for at, file in enumerate(files):
            (task.root / file).write_bytes(b"\xff\xd8\xff%d" % at)
        with task.table.open("w", newline="") as stream:
            csv.writer(stream).writerows([["image", "label"], *([id_, "intact"] for id_ in ids)])
        return task, *again(task)

    return scanned


def again(task):
    said = []
    entries = scan(task, read_rows(task), notify=said.append)
    report_missing(task, entries, said.append)
    seen = {entry.digest: Observation("ok") for entry in entries if entry.digest}
    write_manifest(task, with_observations(entries, seen))
    return entries, said


@pytest.fixture
def listings(monkeypatch):
    """How often the files below the root were listed."""
    calls = []
    real = scan_module.images_below
    monkeypatch.setattr(scan_module, "images_below", lambda task: calls.append(1) or real(task))
    return calls


def test_files_are_found_counted_and_said(scanned):
    ids = ["img_0012", "IMG_0013", "b.jpg", "C:\\data\\images\\a\\c.jpg", "7"]
    files = ["a/img_0012.jpg", "img_0013.jpg", "b.jpg", "a/c.jpg", "a/0007.png"]
    _, entries, said = scanned(ids, files)
    assert [entry.path for entry in entries] == files
    assert [entry.written for entry in entries] == [ids[0], ids[1], "", ids[3], ids[4]]
    assert all(entry.digest for entry in entries)
    assert said == [
        "4 of 5 rows name their file in another way, each a single one: without its extension (3), "
        "without its folder (2), by another case (1), by an absolute path (1), "
        "without zeros in front (1); the first is 'img_0012' for 'a/img_0012.jpg'"
    ]


def test_the_id_stays_what_the_table_says(scanned):
    task, entries, _ = scanned(["img_0012"], ["a/img_0012.jpg"])
    (row,) = with_found_paths(read_rows(task), read_manifest(task))
    assert (row.id, row.path, entries[0].id) == ("img_0012", "a/img_0012.jpg", "img_0012")


def test_what_is_not_a_single_file_is_missing_with_a_reason(scanned):
    ids = ["good", "twin", "a.jpg", "A", "Photo", "photo.png", "gone"]
    files = ["good.jpg", "x/twin.jpg", "y/twin.jpg", "a.jpg", "PHOTO.PNG"]
    _, entries, said = scanned(ids, files)
    assert [entry.status for entry in entries] == [
        *("new", "missing_file", "new", "missing_file", "missing_file", "missing_file"),
        "missing_file",
    ]
    assert [entry.observed.detail for entry in entries if entry.observed] == [
        "ambiguous: 2 files may be meant: 'x/twin.jpg', 'y/twin.jpg'",
        "ambiguous: another row names 'a.jpg'",
        "ambiguous: 2 rows may mean 'PHOTO.PNG'",
        "ambiguous: 2 rows may mean 'PHOTO.PNG'",
        "",
    ]
    assert said[1].startswith(
        "4 of 7 rows name no single file, so they have no image: 'twin' (2 files may be meant: "
        "'x/twin.jpg', 'y/twin.jpg'), 'A' (another row names 'a.jpg'), "
    )
    assert said[1].endswith(" and 1 more: write the paths below images.root")
    assert said[2] == "1 of 7 images missing: the first is 'gone'"


def test_rows_with_the_same_path_are_said(tree):
    task = tree("1.jpg", settings=TABLE + 'path = "file"\n')
    task.table.write_text("image,file,label\na,1.jpg,\nb,1.jpg,\nc,2.jpg,\n")
    entries, said = again(task)
    assert [entry.path for entry in entries] == ["1.jpg", "1.jpg", "2.jpg"]
    assert said[0] == "1 of 3 rows have the file of another row: 'b' has that of 'a'"


def test_found_files_are_listed_once(scanned, listings):
    task, first, _ = scanned(["img1", "IMG2.JPG"], ["a/img1.jpg", "img2.jpg"])
    assert len(listings) == 1
    entries, said = again(task)
    assert len(listings) == 1
    assert [entry.path for entry in entries] == [entry.path for entry in first]
    assert [entry.written for entry in entries] == ["img1", "IMG2.JPG"]
    assert said[0].startswith("2 of 2 rows")


def test_a_table_of_exact_paths_lists_nothing(scanned, listings):
    scanned(["a.jpg", "b.jpg"], ["a.jpg", "b.jpg"])
    assert listings == []


def test_a_file_that_moved_is_found_again(scanned, listings):
    task, *_ = scanned(["img1", "b.jpg"], ["a/img1.jpg", "b.jpg"])
    (task.root / "a").rename(task.root / "c")
    entries, _ = again(task)
    assert (entries[0].path, len(listings)) == ("c/img1.jpg", 2)


def test_an_exact_path_that_comes_later_wins(scanned):
    task, *_ = scanned(["img1", "b.jpg"], ["a/img1.jpg", "b.jpg"])
    (task.root / "img1").write_bytes(b"\xff\xd8\xffnew")
    entries, _ = again(task)
    assert (entries[0].path, entries[0].written) == ("img1", "")


def test_a_row_that_comes_later_and_names_the_file_itself_wins(scanned):
    task, *_ = scanned(["img1", "b.jpg"], ["a/img1.jpg", "b.jpg"])
    with task.table.open("a") as stream:
        stream.write("a/img1.jpg,\n")
    entries, _ = again(task)
    assert [(entry.path, entry.status) for entry in entries] == [
        ("img1", "missing_file"),
        ("b.jpg", "ok"),
        ("a/img1.jpg", "ok"),
    ]
    assert "another row names 'a/img1.jpg'" in entries[0].observed.detail


def test_links_that_lead_out_or_nowhere_stay_what_they_are(scanned):
    task, *_ = scanned(["out.jpg", "dead.jpg", "b.jpg"], ["x/out.jpg", "x/dead.jpg", "b.jpg"])
    (task.root / "out.jpg").symlink_to("/etc/hostname")
    (task.root / "dead.jpg").symlink_to("nowhere")
    entries, _ = again(task)
    assert [entry.status for entry in entries] == ["outside_root", "missing_file", "ok"]


def test_absolute_and_upward_paths_below_the_root(scanned, tmp_path):
    ids = [f"{tmp_path}/images/a.jpg", "../images/b.jpg", "x/../c.jpg", "/etc/hostname"]
    _, entries, _ = scanned(ids, ["a.jpg", "b.jpg", "c.jpg", "x/d.jpg"])
    assert [entry.path for entry in entries] == ["a.jpg", "b.jpg", "c.jpg", "/etc/hostname"]
    assert entries[3].status == "outside_root"


def test_manifests_of_earlier_versions_are_read(scanned, monkeypatch):
    task, *_ = scanned(["a.jpg", "b.jpg"], ["a.jpg", "b.jpg"])
    now = read_manifest(task)
    columns = manifest._COLUMNS
    before = manifest.manifest_file(task).read_bytes()
    lines = before.decode().splitlines()
    plain = [line.rpartition(",")[0] for line in [lines[0].rpartition(",")[0], *lines[1:]]]
    assert columns[-1] == "written"
    text = "".join(f"{line}\r\n" for line in plain)
    seal = manifest.sha256(text.encode()).hexdigest()
    sealed = text.replace("\r\n", f",sha256={seal}\r\n", 1)
    manifest.manifest_file(task).write_bytes(sealed.encode())
    assert read_manifest(task) == now


def test_no_output_over_a_found_image(scanned, fault_of):
    """Also where the images are not, as on a laptop."""
    task, *_ = scanned(["film", "b.jpg"], ["a/film.jpg", "b.jpg"])
    (task.root / "a" / "film.jpg").unlink()
    words = ("the image 'film' of the task",)
    fault_of(lambda: output_file(task, task.root / "a" / "film.jpg"), *words)
