import os
import unicodedata

import pytest

from task.manifest import scan
from task.rows import locate, read_rows

TABLE = '[images]\ntable = "labels.csv"\n'
SPLIT = TABLE + 'split = "split"\n'
HEAD = "image,label,split\n"
FOLDERS = '[images]\nroot = "."\n'


@pytest.fixture
def rows_of(make_task, tmp_path):
    def rows_of(labels, settings=SPLIT, test_labels=False, **tables):
        task = make_task(tmp_path, settings, labels=labels, **tables)
        return read_rows(task, test_labels=test_labels)

    return rows_of


def test_columns(rows_of):
    settings = (
        SPLIT
        + 'id = "key"\npath = "file"\ntext = "caption"\nlabel = "y"\n[folds]\ngroup = "scene"\n'
    )
    (row,) = rows_of("y,key,file,caption,scene,split\nintact,001,a/b.jpg,نص,s 1,train\n", settings)
    assert (row.id, row.path, row.label) == ("001", "a/b.jpg", "intact")
    assert (row.split, row.group, row.text) == ("train", "s 1", "نص")


def test_order_and_path_of_the_table(rows_of):
    rows = rows_of("image,label\nb.jpg,intact\na.jpg,destroyed\n1.jpg,\n", TABLE)
    assert [(row.id, row.path) for row in rows] == [(x, x) for x in ("b.jpg", "a.jpg", "1.jpg")]
    assert [row.label for row in rows] == ["intact", "destroyed", None]
    assert {(row.split, row.group, row.text) for row in rows} == {(None, None, None)}


def test_labels_of_test_rows_are_not_read(rows_of):
    labels = HEAD + "a,intact,train\nb,destroyed,test\nc,no such label,test\nd,,test\n"
    assert [row.label for row in rows_of(labels)] == ["intact", None, None, None]


def test_scoring_reads_the_labels_of_test_rows(rows_of, fault_of):
    labels = HEAD + "a,intact,train\nb,destroyed,test\nd,,test\n"
    assert [row.label for row in rows_of(labels, test_labels=True)] == ["intact", "destroyed", None]
    fault_of(lambda: rows_of(HEAD + "a,destroid,test\n", test_labels=True), "line 2", "'destroyed'")


@pytest.mark.parametrize("blank", ["", " ", "\t "])
def test_empty_label_and_split(rows_of, blank):
    (row,) = rows_of(HEAD + f"a,{blank},{blank}\n")
    assert (row.label, row.split) == (None, None)


@pytest.mark.parametrize("label", ["destroyed ", " destroyed", "Destroyed", "distroyed"])
def test_unknown_label_names_the_nearest(rows_of, fault_of, label):
    message = fault_of(lambda: rows_of(HEAD + f"a,intact,train\nb,{label},train\n"))
    assert f"labels.csv line 3: unknown label {label!r}" in message
    assert "did you mean 'destroyed'?" in message


def test_unknown_split(rows_of, fault_of):
    fault_of(lambda: rows_of(HEAD + "a,intact,tset\n"), "line 2", "'tset'", "'test'")
    fault_of(lambda: rows_of(HEAD + "a,intact,Train\n"), "'Train'", "'train'")


def test_repeated_id_names_both_lines(rows_of, fault_of):
    fault_of(
        lambda: rows_of(HEAD + 'x,intact,train\n"a\nb",,\ny,,\nx,destroyed,train\n'),
        *("line 6", "'x'", "line 2"),
    )
    assert len(rows_of(HEAD + "1,,\n001,,\n01,,\nA,,\na,,\n")) == 5


def test_empty_id(rows_of, fault_of):
    fault_of(lambda: rows_of(HEAD + "a,,\n ,intact,train\n"), "line 3", "id is empty")


def test_label_na(make_task, tmp_path):
    head = 'name = "t"\nlabels = ["NA", "yes"]\n'
    task = make_task(tmp_path, TABLE, head=head, labels="image,label\na,NA\nb,yes\n")
    assert [row.label for row in read_rows(task)] == ["NA", "yes"]


@pytest.mark.parametrize(
    ("settings", "column"),
    [
        (TABLE + 'id = "imgae"\n', "imgae"),
        (TABLE + 'label = "lable"\n', "lable"),
        (TABLE + 'path = "file"\n', "file"),
        (TABLE + 'split = "spilt"\n', "spilt"),
        (TABLE + 'text = "caption"\n', "caption"),
        (TABLE + '[folds]\ngroup = "scene"\n', "scene"),
    ],
)
def test_missing_column(rows_of, fault_of, settings, column):
    fault_of(lambda: rows_of(HEAD + "a,,\n", settings), f"no column '{column}'", "labels.csv")


def test_task_without_labels_needs_no_label_column(make_task, tmp_path):
    task = make_task(tmp_path, TABLE, head='name = "t"\n', labels="image\na\n")
    assert [row.label for row in read_rows(task)] == [None]


def test_no_row_at_all(rows_of, make_task, tmp_path, fault_of):
    fault_of(lambda: rows_of(HEAD), "no photograph", "labels.csv")
    task = make_task(tmp_path / "empty")
    fault_of(lambda: read_rows(task), "no photograph", "images")


CORRECTED = 'corrections = "fixes.csv"\n' + SPLIT


def test_corrections(rows_of):
    labels = HEAD + "a,intact,train\nb,intact,train\nc,destroyed,test\nd,intact,train\n"
    fixes = "id,label,why\nb,destroyed,seen\nc,intact,seen\nd,,unclear\n"
    before = rows_of(labels, CORRECTED, fixes="id,label\n")
    after = rows_of(labels, CORRECTED, fixes=fixes)
    assert [row.label for row in after] == ["intact", "destroyed", None, None]
    assert [row.id for row in after] == [row.id for row in before]
    assert [row.split for row in after] == [row.split for row in before]
    scored = rows_of(labels, CORRECTED, fixes=fixes, test_labels=True)
    assert [row.label for row in scored] == ["intact", "destroyed", "intact", None]


@pytest.mark.parametrize(
    ("fixes", "words"),
    [
        ("id,label\nz,intact\n", ("line 2", "'z'")),
        ("id,label\na,intact\na,destroyed\n", ("line 3", "'a'", "line 2")),
        ("id,label\na,destroid\n", ("line 2", "'destroid'", "'destroyed'")),
        ("image,label\na,intact\n", ("no column 'id'",)),
    ],
)
def test_wrong_corrections(rows_of, fault_of, fixes, words):
    labels = HEAD + "a,intact,train\n"
    fault_of(lambda: rows_of(labels, CORRECTED, fixes=fixes), "fixes.csv", *words)


def test_missing_corrections(rows_of, fault_of):
    fault_of(lambda: rows_of(HEAD + "a,,\n", CORRECTED), "fixes.csv")


@pytest.fixture
def tree(make_task, tmp_path):
    def tree(*paths, settings=""):
        """A task whose root holds empty files at `paths`."""
        task = make_task(tmp_path, settings)
        for path in paths:
            file = task.root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return task

    return tree


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


@pytest.mark.parametrize("folder", ["destroid", "train/destroid", "destroyed "])
def test_unknown_folder(tree, fault_of, folder):
    task = tree(f"{folder}/a.jpg")
    name = folder.rpartition("/")[2]
    fault_of(lambda: read_rows(task), f"{name!r}", "did you mean 'destroyed'?", "a.jpg")


def test_missing_root(make_task, tmp_path, fault_of):
    task = make_task(tmp_path, '[images]\nroot = "imagse"\n')
    fault_of(lambda: read_rows(task), "imagse", "task.toml")


def test_group_column_needs_a_table(tree, fault_of):
    task = tree("intact/a.jpg", settings='[folds]\ngroup = "scene"\n')
    fault_of(lambda: read_rows(task), "'scene'", "task.toml")


def test_hidden_files_and_sidecars_are_skipped(tree):
    task = tree(
        "intact/.hidden.jpg",
        "intact/._a.jpg",
        ".git/intact/a.jpg",
        "intact/Thumbs.db",
        "intact/a.JSON",
        "notes.txt",
        "labels.csv",
        "intact/a.jpg",
    )
    assert [row.id for row in read_rows(task)] == ["intact/a.jpg"]


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
    "cr\rname.jpg",
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


def test_name_that_is_not_utf8(tree):
    task = tree(os.fsdecode(b"intact/caf\xe9.jpg"))
    (row,) = read_rows(task)
    assert row.id == "intact/caf\\xe9.jpg"
    row.id.encode()
    (entry,) = scan(task, [row])
    assert entry.digest
    (entry.id + entry.path).encode()


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


def test_directory_with_the_name_of_a_picture(tree):
    task = tree("intact/x.jpg/inner.jpg", settings=TABLE)
    task.table.write_text("image,label\nintact/x.jpg,intact\n")
    (entry,) = scan(task, read_rows(task))
    assert entry.status == "not_a_file"
    folders = task.model_copy(update={"images": task.images.model_copy(update={"table": None})})
    assert [row.id for row in read_rows(folders)] == ["intact/x.jpg/inner.jpg"]


def test_linked_folders_are_rows_not_ways(tree, tmp_path):
    task = tree("intact/a.jpg")
    (task.root / "intact" / "again").symlink_to(task.root / "intact")
    rows = read_rows(task)
    assert [row.id for row in rows] == ["intact/a.jpg", "intact/again"]
    assert [entry.status for entry in scan(task, rows)] == ["new", "not_a_file"]
