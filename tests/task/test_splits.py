"""Splits that folders, cells and names of tables say: test rows never train, and all is said."""

import pytest

from archiveprobe.task.rows import read_rows
from archiveprobe.task.splits import is_form, split_named, split_of_table


@pytest.mark.parametrize(
    ("word", "split"),
    [
        *(("train", "train"), ("training", "train"), ("Train", "train"), (" TRAIN ", "train")),
        *(("val", "validation"), ("valid", "validation"), ("dev", "validation")),
        *(("Validation", "validation"), ("test", "test"), ("testing", "test"), ("Test", "test")),
        *(("tests", None), ("", None), ("trainer", None), ("other", None)),
    ],
)
def test_words(word, split):
    assert split_named(word) == split


@pytest.mark.parametrize(
    ("file", "split"),
    [
        *(("train.csv", "train"), ("test.xlsx", "test"), ("dev.jsonl", "validation")),
        *(("trainLabels.csv", "train"), ("labels_test.csv", "test"), ("Test-Features.csv", "test")),
        *(("val/metadata.csv", "validation"), ("images/test/metadata.jsonl", "test")),
        *(("train_test.csv", None), ("labels.csv", None), ("latest.csv", None), ("a/b.csv", None)),
        *(("sample_submission.csv", "test"), ("sampleSubmission.csv", "test")),
    ],
)
def test_names_of_tables(file, split):
    assert split_of_table(file) == split


def test_forms():
    assert all(map(is_form, ["sample_submission.csv", "a/SampleSubmission.csv", "submission.csv"]))
    assert not any(map(is_form, ["a_submission.csv", "sample.csv", "submissions.csv"]))


def rows_by_id(task, said=None):
    return {row.id: row for row in read_rows(task, notify=(said or []).append)}


def test_split_folders_of_any_usual_name(tree):
    task = tree(
        *("train/intact/a.jpg", "train/destroyed/b.jpg", "val/destroyed/c.jpg"),
        *("Test/intact/d.jpg", "Test/e.jpg"),
    )
    said = []
    rows = {row.id: (row.split, row.label) for row in read_rows(task, notify=said.append)}
    assert rows == {
        "Test/e.jpg": ("test", None),
        "Test/intact/d.jpg": ("test", None),
        "train/destroyed/b.jpg": ("train", "destroyed"),
        "train/intact/a.jpg": ("train", "intact"),
        "val/destroyed/c.jpg": ("validation", "destroyed"),
    }
    assert said == [
        "train/ 2 images, val/ (read as validation) 1, Test/ (read as test) 2: "
        "rows of test are predicted, never trained on"
    ]


def test_a_label_that_is_named_like_a_split(make_task, tmp_path):
    """The class `train` of vehicles beside `bus`; below real split folders it is both."""
    task = make_task(tmp_path, head='name = "t"\nlabels = ["train", "bus"]\n')
    for path in ("train/a.jpg", "bus/b.jpg"):
        (task.root / path).parent.mkdir()
        (task.root / path).write_bytes(b"x")
    assert [(row.label, row.split) for row in read_rows(task)] == [("bus", None), ("train", None)]
    for path in ("train/a.jpg", "bus/b.jpg"):
        (task.root / path).unlink()
        (task.root / path).parent.rmdir()
    for path in ("train/train/a.jpg", "test/bus/b.jpg"):
        (task.root / path).parent.mkdir(parents=True)
        (task.root / path).write_bytes(b"x")
    found = {row.id: (row.label, row.split) for row in read_rows(task)}
    assert found == {"train/train/a.jpg": ("train", "train"), "test/bus/b.jpg": (None, "test")}


def test_words_of_the_split_column(make_task, tmp_path):
    table = "image,label,split\na,intact,Train\nb,destroyed,val\nc,intact,Testing\n"
    settings = '[images]\ntable = "labels.csv"\nsplit = "split"\n'
    said = []
    rows = read_rows(make_task(tmp_path, settings, labels=table), notify=said.append)
    assert [(row.split, row.label) for row in rows] == [
        ("train", "intact"),
        ("validation", "destroyed"),
        ("test", None),
    ]
    assert said == [
        "'Train' (read as train) 1 row, 'val' (read as validation) 1, 'Testing' (read as test) 1: "
        "rows of test are predicted, never trained on"
    ]


def test_the_first_folder_of_a_path_may_be_the_split(make_task, tmp_path):
    table = (
        "image,label\ntrain/a.jpg,intact\nval/b.jpg,destroyed\ntest/c.jpg,intact\nd.jpg,intact\n"
    )
    settings = '[images]\ntable = "labels.csv"\nsplit = "folders"\n'
    said = []
    rows = read_rows(make_task(tmp_path, settings, labels=table), notify=said.append)
    assert [(row.split, row.label) for row in rows] == [
        ("train", "intact"),
        ("validation", "destroyed"),
        ("test", None),
        (None, "intact"),
    ]
    assert said[0].startswith("train/ 1 row, val/ (read as validation) 1, test/ 1: ")
