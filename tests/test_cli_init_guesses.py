"""What `init` makes of ids in two tables, of several columns of labels, and of labels misspelt."""

import pytest
from stripes import done, draw_stripes, quick, run, submitted, write_csv

from archiveprobe.task.config import load_task
from archiveprobe.task.rows import read_rows

TRAIN, TEST = range(24), range(6)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "archive"


def draw_splits(folder, ending, places=("train", "test")):
    """Images of two folders whose names both count from 0, and the table of train."""
    rows = [["id", "has_damage"]]
    for number in TRAIN:
        label = draw_stripes(folder / places[0] / f"{number}.png", number)
        rows.append([f"{number}{ending}", label])
    for number in TEST:
        draw_stripes(folder / places[1] / f"{number}.png", number)
    write_csv(folder / "train.csv", rows)


def write_test_table(folder, ending, name="test.csv"):
    write_csv(folder / name, [["id"], *([f"{number}{ending}"] for number in TEST)])


@pytest.mark.parametrize("ending", ["", ".png"])
@pytest.mark.parametrize(
    ("places", "root"),
    [(("train", "test"), "."), (("images/train_set", "images/test/all"), "images")],
)
def test_tables_of_splits_that_both_count_from_0(folder, ending, places, root):
    draw_splits(folder, ending, places)
    write_test_table(folder, ending)
    task, said = quick(folder)
    tops = tuple(place.removeprefix("images/") for place in places)
    assert (task.images.root, task.images.relative_to) == (root, tops)
    assert "tables have ids in common, but folders of their own: images of train.csv in" in said
    assert "24 labelled rows, 6 to predict" in said
    ids = [row.id for row in read_rows(task) if row.label is None]
    assert ids == [f"{tops[1]}/{number}{ending}" for number in TEST]
    answers = [[id_, ("across", "down")[at % 2]] for at, id_ in enumerate(ids)]
    assert submitted(folder)[1:] == answers


@pytest.mark.parametrize("with_test_table", [True, False])
def test_a_form_of_ids_that_both_tables_have(folder, with_test_table):
    draw_splits(folder, "")
    if with_test_table:
        write_test_table(folder, "")
    form = [["id", "has_damage"], *([number, "across"] for number in reversed(TEST))]
    write_csv(folder / "sample_submission.csv", form)
    task, said = quick(folder)
    assert task.submission.template == "sample_submission.csv"
    assert "24 labelled rows, 6 to predict" in said
    answers = [[str(number), ("across", "down")[number % 2]] for number in reversed(TEST)]
    assert submitted(folder) == [["id", "has_damage"], *answers]


def test_one_folder_of_images_cannot_serve_two_tables_of_the_same_ids(folder):
    draw_splits(folder, "", ("images", "images"))
    write_test_table(folder, "")
    assert (
        "not used: test.csv: 6 of its 6 rows stand in train.csv too: '0', '1'" in quick(folder)[1]
    )


def test_images_beside_those_of_the_only_table_are_said(folder):
    draw_splits(folder, "")
    task, said = quick(folder)
    assert task.images.root == "train"
    assert "6 images beside train/ left out: name another folder with --images" in said


def test_tables_that_share_some_rows(folder):
    draw_splits(folder, "", ("images", "images"))
    for number in range(24, 30):
        draw_stripes(folder / "images" / f"{number}.png", number)
    write_csv(folder / "test.csv", [["id"], *([number] for number in range(22, 30))])
    task, said = quick(folder)
    assert task.images.table == "train.csv"
    assert (
        "not used: test.csv: 2 of its 8 rows stand in train.csv too: '22', '23': take them out of "
        "one of the two, or name tables with --table; till then its other 6 rows are left out"
    ) in said


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ('["train"]', "relative_to: name one folder for every table"),
        ('["train", 1]', '"root", "table" or a list of folders is needed'),
        ('"tables"', '"root", "table" or a list of folders is needed'),
    ],
)
def test_places_of_tables_that_do_not_fit(folder, places, message):
    draw_splits(folder, "")
    (folder / "task.toml").write_text(
        'name = "x"\nlabels = ["across", "down"]\n[images]\ntable = ["train.csv", "test.csv"]\n'
        f"relative_to = {places}\n"
    )
    refused = run("embed", folder)
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)
    assert message in refused.stderr


def write_columns(folder, **columns):
    """A table of 12 images; each column repeats its values."""
    rows = [["file", *columns]]
    for number in range(12):
        draw_stripes(folder / f"{number}.png", number)
        cells = [values[number % len(values)] for values in columns.values()]
        rows.append([f"{number}.png", *cells])
    write_csv(folder / "labels.csv", rows)


@pytest.mark.parametrize("name", ["class_name", "damageClass", "Target state"])
def test_a_name_with_a_word_for_labels_goes_first(folder, name):
    write_columns(folder, photographer=["Ana", "Bob"], **{name: ["no", "yes", "maybe"]})
    task, said = quick(folder)
    assert task.images.label == name
    assert f"from the column {name!r}, a guess (or is it 'photographer'? name its labels" in said


def test_of_two_such_names_both_are_said(folder):
    write_columns(folder, year=["1", "2"], class_id=["0", "1"], class_name=["no", "yes"])
    assert "column 'class_id', a guess (or is it 'class_name', 'year'? name" in quick(folder)[1]


def test_a_column_with_empty_cells_has_rows_to_predict(folder):
    write_columns(folder, photographer=["Ana", "Bob"], state=["down", "across", "", "down"])
    task, said = quick(folder)
    assert task.images.label == "state"
    assert "9 labelled rows, 3 to predict" in said
    # Where a table of its own has the rows to predict, a column with gaps is none the better.
    draw_stripes(folder / "x.png", 1)
    write_csv(folder / "test.csv", [["file"], ["x.png"]])
    assert quick(folder, "--force")[0].images.label == "photographer"


@pytest.mark.parametrize("labels", ["destroyed,intact", "intact,destroyed"])
def test_the_order_of_labels_decides_nothing(folder, labels):
    write_columns(folder, state=["intact", "destroyed"])
    task, said = quick(folder, "--labels", labels)
    assert task.positive == "destroyed"
    assert "positive, the label to look for, is 'destroyed': a guess" in said


@pytest.mark.parametrize("inside", ["", "train/"])
def test_a_folder_of_one_image_whose_name_is_nearly_a_label(folder, inside):
    for number in range(25):
        label = ("intact", "destroyed")[number % 2] if number else "destroid"
        draw_stripes(folder / f"{inside}{label}" / f"{number}.png", number)
    said = quick(folder)[1]
    assert "'destroid' (1 row) looks like 'destroyed' (12): a typo?" in said
    done("embed", folder)
    refused = run("probe", folder, "--probe", "ridge")
    assert refused.exit_code == 1
    assert "correct it where it is a typo (did you mean 'destroyed'?) in" in refused.stderr
    (folder / f"{inside}destroid").rename(folder / f"{inside}destroyed" / "more")
    assert quick(folder, "--force")[0].labels == ("intact", "destroyed")
    assert load_task(folder).positive == "destroyed"


def test_columns_of_images_with_other_names(folder):
    for number in (*TRAIN, *range(30, 36)):
        draw_stripes(folder / "images" / f"{number}.png", number)
    write_csv(folder / "train.csv", [["name", "label"], *([n, "ab"[n % 2]] for n in TRAIN)])
    write_csv(folder / "test.csv", [["file"], *([n] for n in range(30, 36))])
    said = quick(folder)[1]
    assert (
        "not used: test.csv: its images are in the column 'file', those of train.csv in 'name': "
        "give both the same name"
    ) in said
