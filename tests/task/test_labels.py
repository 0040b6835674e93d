"""Labels and splits as people write them: aliases are said, faults are counted in one message."""

import unicodedata

import pytest

from archiveprobe.task.labels import fold
from archiveprobe.task.rows import read_rows
from archiveprobe.task.splits import split_named

TABLE = '[images]\ntable = "labels.csv"\n'
SPLIT = TABLE + 'split = "split"\n'
NBSP = "\N{NO-BREAK SPACE}"
UMLAUT = 'name = "t"\nlabels = ["Zerstörung", "kein Schaden"]\n'


@pytest.fixture
def read(make_task, tmp_path):
    def read(labels, settings=TABLE, column="label", **how):
        """Rows of a table with these labels, and what was said."""
        said = []
        lines = "".join(f'{at},"{label}"\n' for at, label in enumerate(labels))
        table = f"image,{column}\n{lines}"
        task = make_task(tmp_path, settings, labels=table, **how)
        return list(read_rows(task, notify=said.append)), said

    return read


@pytest.mark.proves("tables")
def test_case_and_blanks_are_aliases_aloud(read):
    written = [
        "intact",
        " destroyed",
        "DESTROYED",
        f"destroyed{NBSP}",
        " destroyed",
        "",
        "Intact\t",
    ]
    rows, said = read(written)
    assert [row.label for row in rows] == ["intact", *["destroyed"] * 4, None, "intact"]
    (line,) = said
    assert line.startswith("labels.csv: labels that differ from labels in task.toml by case")
    assert "5 in all: ' destroyed' as 'destroyed' (2)" in line
    assert "'destroyed\\xa0' as 'destroyed' (1)" in line


@pytest.mark.parametrize("form", ["NFC", "NFD", "upper", "inner"])
def test_normal_form_and_inner_blanks(read, form):
    changed = {
        "upper": str.upper,
        "inner": lambda label: label.replace(" ", f" {NBSP}"),
    }.get(form, lambda label: unicodedata.normalize(form, label))
    rows, _ = read([changed("Zerstörung"), changed("kein Schaden")], head=UMLAUT)
    assert [row.label for row in rows] == ["Zerstörung", "kein Schaden"]


def test_numbers_beside_empty_cells(read):
    head = 'name = "t"\nlabels = ["0", "1"]\n'
    rows, said = read(["0.0", "1.0", "", "1", "0"], head=head)
    assert [row.label for row in rows] == ["0", "1", None, "1", "0"]
    assert "2 in all: '0.0' as '0' (1), '1.0' as '1' (1)" in said[0]
    assert fold("10") != fold("1.0") == fold("1")


def test_truth_values(read):
    rows, _ = read(["True", "FALSE"], head='name = "t"\nlabels = ["false", "true"]\n')
    assert [row.label for row in rows] == ["true", "false"]


def test_exact_labels_say_nothing(read):
    rows, said = read(["intact", "destroyed", ""])
    assert [row.label for row in rows] == ["intact", "destroyed", None]
    assert said == []


@pytest.mark.proves("tables")
def test_labels_that_differ_by_case_only_have_no_alias(read, fault_of):
    head = 'name = "t"\nlabels = ["a", "A", "b"]\n'
    rows, said = read(["a", "A", "b"], head=head)
    assert [row.label for row in rows] == ["a", "A", "b"]
    assert said == []
    fault_of(lambda: read(["a", "A ", "b"], head=head), "in 1 row:", "'A '", "line 3")


@pytest.mark.proves("tables")
def test_all_unknown_labels_in_one_message(read, fault_of):
    labels = ["intact", *["ruined"] * 9, "destory", "intact", *["destory"] * 4]
    message = fault_of(lambda: read(labels), "labels.csv: ", "add them to labels")
    assert "unknown labels in 14 rows: 'ruined' (9, first line 3), " in message
    assert "'destory' (5, first line 12; did you mean 'destroyed'?)" in message
    assert "(now intact, destroyed)" in message


def test_a_column_of_anything_else_gives_a_short_message(read, fault_of):
    captions = [f"caption {'x' * 100_000} {at}" for at in range(20)]
    message = fault_of(lambda: read(captions), "unknown labels in 20 rows", "and 15 more")
    assert len(message) < 1000


def test_faults_of_ids_splits_and_labels_are_told_together(make_task, tmp_path, fault_of):
    table = "image,label,split\na,x,train\na,intact,tset\n,intact,\n"
    task = make_task(tmp_path, SPLIT, labels=table)
    words = ("1 row without an id", "1 repeated id", "unknown splits in 1 row")
    fault_of(lambda: read_rows(task), *words, "'tset' (1, first line 3; did you mean 'test'?)")
    fault_of(lambda: read_rows(task), "unknown labels in 1 row: 'x' (1, first line 2)")


def test_what_evaluates_never_trains():
    assert split_named("Eval") == split_named("evaluation") == "test"


def test_labels_of_test_rows_are_not_read_under_any_name(make_task, tmp_path):
    table = "image,label,split\na,intact,train\nb,no label,TEST\n"
    task = make_task(tmp_path, SPLIT, labels=table)
    said = []
    assert [row.label for row in read_rows(task, notify=said.append)] == ["intact", None]
    assert [line for line in said if "labels that differ" in line] == []


def test_corrections_have_aliases_too(make_task, tmp_path):
    settings = 'corrections = "fixes.csv"\n' + TABLE
    task = make_task(
        tmp_path, settings, labels="image,label\na,intact\n", fixes="id,label\na, Destroyed\n"
    )
    said = []
    assert [row.label for row in read_rows(task, notify=said.append)] == ["destroyed"]
    assert said[0].startswith("fixes.csv: ")


@pytest.mark.proves("tables")
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_folders_with_umlauts_and_capitals(make_task, tmp_path, form):
    task = make_task(tmp_path, head=UMLAUT)
    for name in ("ZERSTÖRUNG", "Kein Schaden", "kein  schaden ", "Unlabelled"):
        folder = task.root / unicodedata.normalize(form, name)
        folder.mkdir()
        (folder / "a.jpg").write_bytes(b"\xff\xd8\xff")
    said = []
    rows = read_rows(task, notify=said.append)
    labels = sorted(str(row.label) for row in rows)
    assert labels == ["None", "Zerstörung", "kein Schaden", "kein Schaden"]
    assert said[0].startswith("folders that differ from labels in task.toml")
    assert "'Kein Schaden' as 'kein Schaden' (1)" in said[0]


def test_unknown_folders_in_one_message(tree, fault_of):
    task = tree("a/1.jpg", "a/2.jpg", "destroid/3.jpg", "train/destroid/4.jpg", "intact/5.jpg")
    message = fault_of(lambda: read_rows(task), "unknown labels in the folders of 4 images")
    assert "'a' (2, first 'a/1.jpg'" in message
    assert "'destroid' (2, first 'destroid/3.jpg'; did you mean 'destroyed'?)" in message
