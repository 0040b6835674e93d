"""A task of several tables: whose rows train, whose are predicted, and ids that stand twice."""

import pytest

from archiveprobe.task.output import output_file
from archiveprobe.task.rows import read_rows

TABLES = '[images]\ntable = ["train.csv", "test.csv"]\n'
TRAIN = "image,label\na,intact\nb,destroyed\nc,\n"


def brief(rows):
    return [(row.id, row.label, row.split) for row in rows]


def test_a_table_without_labels_is_to_predict(make_task, tmp_path):
    said = []
    task = make_task(tmp_path, TABLES, train=TRAIN, test="image\nd\ne\n")
    assert brief(read_rows(task, notify=said.append)) == [
        ("a", "intact", "train"),
        ("b", "destroyed", "train"),
        ("c", None, "train"),
        ("d", None, "test"),
        ("e", None, "test"),
    ]
    assert said == [
        "train.csv (read as train) 3 rows, test.csv (read as test) 2: "
        "rows of test are predicted, never trained on"
    ]


def test_labels_of_a_test_table_are_for_score_only(make_task, tmp_path):
    task = make_task(tmp_path, TABLES, train=TRAIN, test="image,label\nd,intact\n")
    assert brief(read_rows(task))[-1] == ("d", None, "test")
    assert brief(read_rows(task, test_labels=True))[-1] == ("d", "intact", "test")


def test_a_form_to_hand_in_has_no_labels(make_task, tmp_path):
    """What sample_submission.csv answers are placeholders: not even score believes them."""
    settings = '[images]\ntable = ["train.csv", "sample_submission.csv"]\n'
    form = "image,label\nd,0.5\n"
    task = make_task(tmp_path, settings, train=TRAIN, sample_submission=form)
    assert brief(read_rows(task))[-1] == ("d", None, "test")
    assert brief(read_rows(task, test_labels=True))[-1] == ("d", None, "test")


def test_a_split_column_goes_before_the_name(make_task, tmp_path):
    settings = TABLES + 'split = "split"\n'
    train = "image,label,split\na,intact,train\nb,destroyed,val\n"
    task = make_task(tmp_path, settings, train=train, test="image\nd\n")
    assert [row.split for row in read_rows(task)] == ["train", "validation", "test"]


def test_one_table_of_that_name_is_what_it_was(make_task, tmp_path):
    settings = '[images]\ntable = "test.csv"\n'
    task = make_task(tmp_path, settings, test="image,label\nd,intact\n")
    assert brief(read_rows(task)) == [("d", "intact", None)]


def test_the_same_id_in_two_tables(make_task, tmp_path, fault_of):
    task = make_task(tmp_path, TABLES, train=TRAIN, test="image\nb\nd\na\n")
    words = ("2 ids of ", "train.csv stand in ", "test.csv too: 'b', 'a'", "keep each row in one")
    fault_of(lambda: read_rows(task), *words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (TABLES + 'label = "lable"\n', ("no column 'lable'", "train.csv")),
        (TABLES + 'id = "file"\n', ("no column 'file'", "train.csv")),
        (TABLES + 'split = "set"\n', ("no column 'set'", "train.csv")),
        (TABLES + '[folds]\ngroup = "scene"\n', ("no column 'scene'", "train.csv")),
        ('[images]\ntable = ["train.csv", "no.csv"]\n', ("no table at ", "no.csv")),
    ],
)
def test_faults_of_columns(make_task, tmp_path, fault_of, settings, words):
    task = make_task(tmp_path, settings, train=TRAIN, test="image\nd\n")
    fault_of(lambda: read_rows(task), *words)


@pytest.mark.parametrize("value", ["[]", '["a.csv", 1]', '["a.csv", "a.csv"]', "3", '["a\\u0000"]'])
def test_wrong_lists(make_task, tmp_path, fault_of, value):
    fault_of(lambda: make_task(tmp_path, f"[images]\ntable = {value}\n"), "images.table")


def test_paths_that_begin_at_the_table(make_task, tmp_path, fault_of):
    """Hugging Face's metadata: the same file_name in two splits are two images."""
    tables = '["images/train/metadata.csv", "images/test/metadata.csv"]'
    settings = f'[images]\ntable = {tables}\nid = "file_name"\nrelative_to = "table"\n'
    task = make_task(tmp_path, settings)
    for split, text in (
        ("train", "file_name,label\n1.jpg,intact\n"),
        ("test", "file_name\n1.jpg\n"),
    ):
        (task.root / split).mkdir()
        (task.root / split / "metadata.csv").write_text(text)
    assert [(row.id, row.path, row.split) for row in read_rows(task)] == [
        ("train/1.jpg", "train/1.jpg", "train"),
        ("test/1.jpg", "test/1.jpg", "test"),
    ]
    elsewhere = settings.replace("images/train", "other")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "metadata.csv").write_text("file_name,label\n1.jpg,intact\n")
    fault_of(lambda: read_rows(make_task(tmp_path, elsewhere)), "other/metadata.csv is not below ")


def test_no_output_over_any_table(make_task, tmp_path, fault_of):
    task = make_task(tmp_path, TABLES, train=TRAIN, test="image\nd\n")
    for name in ("train.csv", "test.csv"):
        fault_of(lambda name=name: output_file(task, tmp_path / name), "the table of the task")
