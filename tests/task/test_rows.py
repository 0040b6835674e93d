import pytest

from archiveprobe.task.rows import read_rows

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


@pytest.mark.proves("tables")
def test_repeated_id_names_both_lines(rows_of, fault_of):
    fault_of(
        lambda: rows_of(HEAD + 'x,intact,train\n"a\nb",,\ny,,\nx,destroyed,train\n'),
        *("1 repeated id: 'x' (line 2, line 6)", "keep one"),
    )
    assert len(rows_of(HEAD + "1,,\n001,,\n01,,\nA,,\na,,\n")) == 5


def test_empty_id(rows_of, fault_of):
    fault_of(lambda: rows_of(HEAD + "a,,\n ,intact,train\n"), "1 row without an id (first line 3)")


@pytest.mark.proves("tables")
def test_all_faults_of_ids_in_one_message(rows_of, fault_of):
    ids = ["x", "", "y", "x", " ", "y", "x", "a\0", "c" * 2000, "z"]
    message = fault_of(lambda: rows_of(HEAD + "".join(f"{id_},intact,\n" for id_ in ids)))
    assert "2 rows without an id (first line 3)" in message
    assert "2 repeated ids: 'x' (line 2, line 5), 'y' (line 4, line 7)" in message
    assert "1 id with a NUL" in message
    assert "1 id of more than 1024 characters: 2000 (line 10)" in message
    many = HEAD + "".join(f"{n % 100},,\n" for n in range(200))
    message = fault_of(lambda: rows_of(many), "100 repeated ids", "and 95 more")
    assert len(message) < 500


@pytest.mark.proves("tables")
def test_label_na(make_task, tmp_path):
    head = 'name = "t"\nlabels = ["NA", "yes"]\n'
    task = make_task(tmp_path, TABLE, head=head, labels="image,label\na,NA\nb,yes\n")
    assert [row.label for row in read_rows(task)] == ["NA", "yes"]


@pytest.mark.proves("tables")
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


@pytest.mark.parametrize(
    ("group", "hint"),
    [("near-dupes", "near-duplicates"), ("non", "none"), ("imgae", "image")],
)
def test_group_names_the_nearest(rows_of, fault_of, group, hint):
    settings = f'{TABLE}[folds]\ngroup = "{group}"\n'
    words = (f"{group!r}", f"did you mean {hint!r}?", "folds.group", "labels.csv")
    fault_of(lambda: rows_of(HEAD + "a,,\n", settings), *words)


def test_task_without_labels_needs_no_label_column(make_task, tmp_path):
    task = make_task(tmp_path, TABLE, head='name = "t"\n', labels="image\na\n")
    assert [row.label for row in read_rows(task)] == [None]


def test_no_row_at_all(rows_of, make_task, tmp_path, fault_of):
    fault_of(lambda: rows_of(HEAD), "no image", "labels.csv")
    task = make_task(tmp_path / "empty")
    fault_of(lambda: read_rows(task), "no image", "images")


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
        ("id,label\na,intact\na,destroyed\n", ("'a' (line 2, line 3)",)),
        ("id,label\ny,\na,x\nz,\n", ("'y' (line 2), 'z' (line 4)", "unknown labels in 1 row")),
        ("id,label\na,destroid\n", ("line 2", "'destroid'", "'destroyed'")),
        ("image,label\na,intact\n", ("no column 'id'",)),
    ],
)
def test_wrong_corrections(rows_of, fault_of, fixes, words):
    labels = HEAD + "a,intact,train\n"
    fault_of(lambda: rows_of(labels, CORRECTED, fixes=fixes), "fixes.csv", *words)


def test_missing_corrections_are_told(make_task, tmp_path):
    task = make_task(tmp_path, CORRECTED, labels=HEAD + "a,intact,\n")
    said = []
    assert [row.label for row in read_rows(task, notify=said.append)] == ["intact"]
    assert said == ["fixes.csv is named in task.toml and not there yet"]


def test_a_mistyped_name_of_corrections_names_the_nearest(rows_of, fault_of):
    fixes = {"fixed": "id,label\n"}
    words = ("no file", "fixes.csv", "did you mean 'fixed.csv'?", "task.toml")
    fault_of(lambda: rows_of(HEAD + "a,,\n", CORRECTED, **fixes), *words)


def test_an_id_that_would_blow_up_every_row_is_refused(rows_of, fault_of):
    table = f"image,label\na,intact\n{'b' * 1025},intact\n"
    words = ("labels.csv: 1 id of more than 1024 characters: 1025 (line 3)", "shorten them")
    fault_of(lambda: rows_of(table, TABLE), *words)


def test_an_id_may_have_as_many_characters_as_a_path_needs(rows_of):
    assert len(rows_of(f"image,label\n{'b' * 1024},intact\n", TABLE)[0].id) == 1024


@pytest.mark.parametrize("odd", ["a\rb", "\ra", "a\r", "a\n\r", "a\0", "\0"])
def test_an_id_that_no_csv_gives_back_is_refused(rows_of, fault_of, odd):
    words = ("labels.csv: 1 id with", f"{odd!r} (line 2)", "carriage return", "take it out")
    fault_of(lambda: rows_of(f'image,label\n"{odd}",intact\n', TABLE), *words)


@pytest.mark.proves("hostile")
@pytest.mark.parametrize("settings", [TABLE, ""], ids=["table", "folders"])
def test_a_root_in_a_loop_of_links_is_told(make_task, tmp_path, fault_of, settings):
    task = make_task(tmp_path, settings, labels="image,label\na,intact\n")
    (tmp_path / "images").rmdir()
    (tmp_path / "images").symlink_to(tmp_path / "other")
    (tmp_path / "other").symlink_to(tmp_path / "images")
    fault_of(lambda: read_rows(task), "images.root", "leads back to itself", "correct the link")
