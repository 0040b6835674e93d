import csv
import io
import os
import tomllib

import pytest

from archiveprobe.task.config import load_task
from archiveprobe.task.layouts import init
from archiveprobe.task.layouts.init import write_task
from archiveprobe.task.layouts.layout import detect_layout
from archiveprobe.task.rows import read_rows


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    return folder


@pytest.fixture
def put(folder):
    def put(*paths):
        for path in paths:
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")

    return put


def started(folder):
    """The task that `start` wrote, and its rows by id."""
    file = write_task(folder)
    assert file == folder / "task.toml"
    task = load_task(file)
    return task, {row.id: row for row in read_rows(task)}


def table(*rows):
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


@pytest.mark.parametrize("inside", ["", "images/"])
def test_folder_per_label(folder, put, inside):
    names = ("not_ruin/a.jpg", "ruin/b.png", "ruin/deep/c.gif", "unlabelled/d.jpg")
    put(*(inside + name for name in names))
    task, rows = started(folder)
    assert (task.name, task.labels, task.positive) == ("archive", ("not_ruin", "ruin"), "ruin")
    assert task.images.root == (inside.rstrip("/") or ".")
    assert {name: row.label for name, row in rows.items()} == dict(
        zip(names, ("not_ruin", "ruin", "ruin", None), strict=True)
    )


def test_folders_without_images_are_no_labels(folder, put):
    put("no/a.jpg", "yes/b.jpg", "notes/readme.txt")
    (folder / "later").mkdir()
    assert started(folder)[0].labels == ("no", "yes")


def test_split_folders(folder, put):
    put("train/no/a.jpg", "train/yes/b.jpg", "validation/yes/c.jpg", "test/unlabelled/d.jpg")
    task, rows = started(folder)
    assert task.labels == ("no", "yes")
    assert [(row.split, row.label) for row in rows.values()] == [
        ("test", None),
        ("train", "no"),
        ("train", "yes"),
        ("validation", "yes"),
    ]


@pytest.mark.parametrize("inside", ["", "images", "photos"])
def test_table(folder, put, inside):
    put(*(f"{inside}/{name}.jpg".lstrip("/") for name in "abc"))
    lines = [
        ("a.jpg", "yes", "train", "نص"),
        ("b.jpg", "no", "train", ""),
        ("c.jpg", "", "test", ""),
    ]
    (folder / "labels.csv").write_text(table(("File", "Class", "Split", "caption"), *lines))
    task, rows = started(folder)
    images = task.images
    assert (images.root, images.table) == (inside or ".", "labels.csv")
    assert (images.id, images.label, images.split, images.text) == (
        *("File", "Class", "Split", "caption"),
    )
    assert task.labels == ("no", "yes")
    assert [row.label for row in rows.values()] == ["yes", "no", None]
    assert rows["a.jpg"].text == "نص"


def test_odd_splits_are_left_out(folder, put):
    put("a.jpg", "b.jpg")
    lines = [("image", "label", "split"), ("a.jpg", "yes", "early"), ("b.jpg", "no", "train")]
    (folder / "labels.csv").write_text(table(*lines))
    task, rows = started(folder)
    assert task.images.split is None
    assert len(rows) == 2


def test_long_captions_before_the_image_column(folder, put):
    put("a.jpg", "b.jpg")
    caption = "A street after the raid. " * 40
    lines = [(caption, "a.jpg", "yes"), ("nul\0", "b.jpg", "no")]
    (folder / "labels.csv").write_text(table(("caption", "image", "label"), *lines))
    task, rows = started(folder)
    assert (task.images.id, task.images.text) == ("image", "caption")
    assert rows["a.jpg"].text == caption


def test_table_with_labels_goes_first(folder, put):
    put("a.jpg", "b.jpg", "c.jpg")
    (folder / "a_submission.csv").write_text(table(("image",), ("c.jpg",)))
    lines = [("image", "label"), ("a.jpg", "yes"), ("b.jpg", "no")]
    (folder / "train.csv").write_text(table(*lines))
    assert detect_layout(folder).images.table == "train.csv"
    (folder / "train.csv").unlink()
    assert detect_layout(folder).images.table == "a_submission.csv"


def test_table_of_other_things_is_not_taken(folder, put):
    put("yes/a.jpg", "no/b.jpg")
    (folder / "notes.csv").write_text(table(("x", "y"), ("1", "2")))
    (folder / "broken.csv").write_bytes(b'a,a\n"')
    task, _ = started(folder)
    assert task.table is None
    assert task.labels == ("no", "yes")


def test_flat_folder(folder, put):
    put("a.jpg", "b.jpg")
    task, rows = started(folder)
    assert (task.labels, task.positive) == ((), None)
    assert [row.label for row in rows.values()] == [None, None]
    assert "none found" in (folder / "task.toml").read_text()


@pytest.mark.parametrize(
    ("names", "positive"),
    [
        (("destroyed", "intact"), "destroyed"),
        (("not_destruction", "destruction"), "destruction"),
        (("0", "1"), "1"),
        (("no", "yes"), "yes"),
        (("non-war", "war"), "war"),
        (("a", "b", "c"), None),
    ],
)
def test_positive(folder, put, names, positive):
    put(*(f"{name}/a.jpg" for name in names))
    assert started(folder)[0].positive == positive


def test_refuses_to_overwrite(folder, put, fault_of):
    put("a.jpg")
    (folder / "task.toml").write_text("mine")
    fault_of(lambda: write_task(folder), "task.toml", "exists")
    assert (folder / "task.toml").read_text() == "mine"


def test_nothing_there(folder, put, fault_of):
    fault_of(lambda: write_task(folder), "no image", "archive")
    put(".hidden.jpg", "notes.txt", ".git/a.jpg")
    fault_of(lambda: write_task(folder), "no image")
    fault_of(lambda: write_task(folder / "no"), "no folder")
    fault_of(lambda: write_task(folder / "notes.txt"), "no folder")
    assert not (folder / "task.toml").exists()


ODD = [
    '"quoted"',
    "it's",
    "two\nlines",
    "tab\t",
    "back\\slash",
    "#x = 1",
    "]",
    "بيت",
    "\x7f",
    "\x01",
]
ODD += ["\U0001f3da", "a\u202eb", "\u2028", "=cmd", os.fsdecode(b"caf\xe9"), " spaced "]


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_odd_folder_names(tmp_path, name):
    for label in (name, "other", "third"):
        (tmp_path / name / label).mkdir(parents=True)
        (tmp_path / name / label / "a.jpg").touch()
    file = write_task(tmp_path / name)
    task = load_task(file)
    assert task.name == name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    named = bool(name.strip())
    assert [row.label for row in read_rows(task)].count(None) == (not named)
    assert len(task.labels) == 2 + named


def test_stray_spaces_in_a_table_make_no_label(folder, put):
    put("a.jpg", "b.jpg", "c.jpg")
    lines = [("image", "label"), ("a.jpg", "yes"), ("b.jpg", "no"), ("c.jpg", "yes ")]
    (folder / "labels.csv").write_text(table(*lines))
    task = load_task(write_task(folder))
    assert task.labels == ("no", "yes")
    assert [row.label for row in read_rows(task)] == ["yes", "no", "yes"]


def test_backbones(folder, put):
    put("a.jpg")
    write_task(folder, backbones=("clip-vit-b32", 'o"dd'))
    task = load_task(folder)
    assert task.embed.backbones == ("clip-vit-b32", 'o"dd')


def test_what_is_written_is_the_default(folder, put):
    """The settings that the file spells out are those that it would have without them."""
    put("yes/a.jpg", "no/a.jpg")
    task, _ = started(folder)
    spelled = tomllib.loads((folder / "task.toml").read_text())
    assert set(spelled) == {"name", "labels", "positive", "images", "folds", "embed"}
    fresh = type(task)(file=task.file, name="x")
    assert (task.folds, task.embed) == (fresh.folds, fresh.embed)


@pytest.mark.parametrize(("most", "named"), [(2, True), (1, False)])
def test_repeats_are_named_where_rows_are_few(folder, put, monkeypatch, most, named):
    monkeypatch.setattr(init, "_MOST_REPEATED", most)
    put("no/a.jpg", "yes/b.jpg")
    folds = started(folder)[0].folds
    assert folds.repeats == 5
    assert ("repeats" in folds.model_fields_set) == named
