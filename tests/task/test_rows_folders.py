"""One folder per label: which files become rows, under which names."""

import os
import unicodedata

import pytest

from archiveprobe.task.rows import locate, read_rows
from archiveprobe.task.scan import scan

TABLE = '[images]\ntable = "labels.csv"\n'
FOLDERS = '[images]\nroot = "."\n'


def test_folder_per_label(tree):
    task = tree("intact/b.jpg", "destroyed/deep/er/a.png", "unlabelled/c.gif", "flat.jpg", "noext")
    assert [(row.id, row.path, row.label, row.split) for row in read_rows(task)] == [
        ("destroyed/deep/er/a.png",) * 2 + ("destroyed", None),
        ("flat.jpg",) * 2 + (None, None),
        ("intact/b.jpg",) * 2 + ("intact", None),
        ("noext",) * 2 + (None, None),
        ("unlabelled/c.gif",) * 2 + (None, None),
    ]


def test_split_folders(tree):
    task = tree(
        "train/intact/a.jpg",
        "validation/destroyed/a.jpg",
        "test/intact/a.jpg",
        "test/anything/b.jpg",
        "test/c.jpg",
        "train/d.jpg",
    )
    expected = {
        "test/anything/b.jpg": (None, "test"),
        "test/c.jpg": (None, "test"),
        "test/intact/a.jpg": (None, "test"),
        "train/d.jpg": (None, "train"),
        "train/intact/a.jpg": ("intact", "train"),
        "validation/destroyed/a.jpg": ("destroyed", "validation"),
    }
    assert {row.id: (row.label, row.split) for row in read_rows(task)} == expected
    scored = {row.id: row.label for row in read_rows(task, test_labels=True)}
    assert scored["test/intact/a.jpg"] == "intact"


@pytest.mark.parametrize("folder", ["destroid", "train/destroid"])
def test_unknown_folder(tree, fault_of, folder):
    task = tree(f"{folder}/a.jpg")
    name = folder.rpartition("/")[2]
    words = (f"{name!r}", "did you mean 'destroyed'?", "a.jpg", "move them out of images.root")
    fault_of(lambda: read_rows(task), *words)


def test_american_spelling_of_unlabelled(tree, fault_of):
    fault_of(lambda: read_rows(tree("unlabeled/a.jpg")), "did you mean 'unlabelled'?")


def test_missing_root(make_task, tmp_path, fault_of):
    task = make_task(tmp_path, '[images]\nroot = "imagse"\n')
    fault_of(lambda: read_rows(task), "imagse", "task.toml")


def test_group_column_needs_a_table(tree, fault_of):
    task = tree("intact/a.jpg", settings='[folds]\ngroup = "scene"\n')
    fault_of(lambda: read_rows(task), "'scene'", "task.toml")
    task = tree("intact/a.jpg", settings='[folds]\ngroup = "near-dupes"\n')
    fault_of(lambda: read_rows(task), "'near-dupes'", "did you mean 'near-duplicates'?")


def test_hidden_files_are_skipped(tree):
    task = tree("intact/.hidden.jpg", "intact/._a.jpg", ".git/intact/a.jpg", "intact/a.jpg")
    said = []
    assert [row.id for row in read_rows(task, notify=said.append)] == ["intact/a.jpg"]
    assert said == []


def test_strays_are_left_out_aloud(tree):
    task = tree("intact/a.jpg", "weights/orig.st", "intact/notes.txt", "task.hog", "more.txt")
    for name in ("weights/orig.st", "task.hog"):
        (task.root / name).write_bytes(b"no image")
    said = []
    assert [row.id for row in read_rows(task, notify=said.append)] == ["intact/a.jpg"]
    assert said == [
        "ignored 4 files, no images: .txt (2), .hog (1), .st (1)",
        "no image lies in weights: move it out of images.root",
    ]


def test_a_table_says_itself_which_files_count(tree):
    task = tree("a.jpg", "b.txt", settings=TABLE)
    task.table.write_text("image,label\nb.txt,intact\n")
    said = []
    assert [row.id for row in read_rows(task, notify=said.append)] == ["b.txt"]
    assert said == []


@pytest.mark.parametrize("root", [".", "intact/..", "../{}"])
def test_own_files_are_skipped(tree, tmp_path, root):
    (tmp_path / "intact").mkdir()
    settings = f'[images]\nroot = "{root.format(tmp_path.name)}"\n'
    task = tree("intact/a.jpg", "work/thumbs/a.jpg", "intact/work/b.jpg", settings=settings)
    (tmp_path / "images").rmdir()
    assert [row.id for row in read_rows(task)] == ["intact/a.jpg", "intact/work/b.jpg"]


def test_own_work_folder_may_be_a_link(tree, tmp_path):
    task = tree("intact/a.jpg", settings=FOLDERS)
    (tmp_path / "scratch").mkdir()
    (tmp_path / "work").symlink_to(tmp_path / "scratch")
    assert [row.id for row in read_rows(task)] == ["intact/a.jpg"]


def test_folder_that_cannot_be_listed(tree, fault_of, monkeypatch):
    task = tree("intact/a.jpg", "destroyed/a.jpg")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("destroyed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    fault_of(lambda: read_rows(task), "destroyed", "Permission denied")


ODD = [
    "بيت مهدّم.jpg",
    "a\u202egpj.exe",
    "two\nlines.jpg",
    "\U0001f3da.jpg",
    '"<script>.jpg',
    "it's.jpg",
    "=cmd|calc",
    "a,b;c.jpg",
    "-rf.jpg",
    " lead and trail .jpg ",
    "photo.jpg_large",
    "back\\slash.jpg",
    "%41.jpg",
    "n" * 250 + ".jpg",
]


@pytest.mark.parametrize("name", ODD)
def test_odd_names(tree, name):
    task = tree(f"intact/{name}")
    (row,) = read_rows(task)
    assert (row.id, row.path, row.label) == (f"intact/{name}",) * 2 + ("intact",)
    assert scan(task, [row])[0].digest


def test_a_name_that_no_csv_gives_back_is_spelled_out(tree):
    task = tree("intact/cr\rname.jpg")
    (row,) = read_rows(task)
    assert (row.id, row.path) == ("intact/cr\\x0dname.jpg", "intact/cr\rname.jpg")
    assert scan(task, [row])[0].digest


def test_a_path_that_is_longer_than_an_id_may_be(tree, fault_of):
    deep = "/".join(["n" * 250] * 5)
    fault_of(lambda: read_rows(tree(f"intact/{deep}/a.jpg")), "characters", "1024", "shorten them")


@pytest.mark.proves("images")
def test_name_that_is_not_utf8(tree):
    task = tree(os.fsdecode(b"intact/caf\xe9.jpg"))
    (row,) = read_rows(task)
    assert row.id == "intact/caf\\xe9.jpg"
    row.id.encode()
    (entry,) = scan(task, [row])
    assert entry.digest
    (entry.id + entry.path).encode()


def test_two_names_that_read_the_same_are_refused(tree, fault_of):
    task = tree(os.fsdecode(b"intact/caf\xe9.jpg"), "intact/caf\\xe9.jpg")
    words = (r"b'intact/caf\xe9.jpg'", r"b'intact/caf\\xe9.jpg'", "rename one")
    fault_of(lambda: read_rows(task), *words)


def test_label_folder_that_is_not_utf8(make_task, tmp_path):
    folder = os.fsdecode(b"caf\xe9")
    task = make_task(tmp_path, FOLDERS, head='name = "t"\nlabels = ["caf\\\\xe9", "b"]\n')
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "a.jpg").touch()
    assert [row.label for row in read_rows(task)] == ["caf\\xe9"]


COMPOSED = unicodedata.normalize("NFC", "intact/café.jpg")
APART = unicodedata.normalize("NFD", COMPOSED)


def test_twins_in_two_normal_forms_are_two_rows(tree):
    task = tree(COMPOSED, APART)
    (task.root / COMPOSED).write_bytes(b"one")
    (task.root / APART).write_bytes(b"two")
    rows = read_rows(task)
    assert {row.id for row in rows} == {COMPOSED, APART}
    assert len({entry.digest for entry in scan(task, rows)}) == 2


@pytest.mark.parametrize(("on_disk", "in_table"), [(COMPOSED, APART), (APART, COMPOSED)])
def test_the_other_normal_form_is_found(tree, on_disk, in_table):
    task = tree(on_disk, settings=TABLE)
    task.table.write_text(f"image,label\n{in_table},intact\n")
    (row,) = read_rows(task)
    assert row.path == in_table
    assert locate(task.root, row.path) == task.root / on_disk
    assert scan(task, [row])[0].digest


def test_locate_prefers_the_exact_name(tree):
    task = tree(COMPOSED, APART)
    for path in (COMPOSED, APART):
        assert locate(task.root, path) == task.root / path
    assert locate(task.root, "no such") == task.root / "no such"


def test_directory_with_the_name_of_a_image(tree):
    task = tree("intact/x.jpg/inner.jpg", settings=TABLE)
    task.table.write_text("image,label\nintact/x.jpg,intact\n")
    (entry,) = scan(task, read_rows(task))
    assert entry.status == "not_a_file"
    folders = task.model_copy(update={"images": task.images.model_copy(update={"table": None})})
    assert [row.id for row in read_rows(folders)] == ["intact/x.jpg/inner.jpg"]


def test_linked_folders_are_named_and_not_followed(tree):
    task = tree("intact/a.jpg")
    (task.root / "intact" / "again").symlink_to(task.root / "intact")
    (task.root / "intact" / "link.jpg").symlink_to("a.jpg")
    (task.root / "intact" / "gone.jpg").symlink_to("nowhere.jpg")
    said = []
    rows = read_rows(task, notify=said.append)
    assert [row.id for row in rows] == ["intact/a.jpg", "intact/gone.jpg", "intact/link.jpg"]
    assert [entry.status for entry in scan(task, rows)] == ["new", "missing_file", "new"]
    assert said == ["links to folders are not followed: intact/again"]
