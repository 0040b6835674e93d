"""What `init` guesses is said, and so is what it looked for in vain."""

import pytest

from archiveprobe.base.wording import number_of
from archiveprobe.task.config import load_task
from archiveprobe.task.layouts.init import write_task
from archiveprobe.task.layouts.label_column import positive_last
from archiveprobe.task.layouts.layout import detect_layout
from archiveprobe.task.rows import read_rows

FEWER = "fewer than the 5 folds: label more, or scores will say little about it"


@pytest.fixture
def begin(tmp_path):
    def begin(text, name="labels.csv", pictures="abcdefgh", inside="images"):
        """The task for a table of this text beside images, and what was said."""
        folder = tmp_path / inside
        folder.mkdir(exist_ok=True)
        for picture in pictures:
            (folder / f"{picture}.jpg").write_bytes(b"x")
        (tmp_path / name).write_text(text)
        said = []
        return load_task(write_task(tmp_path, notify=said.append)), said

    return begin


def table(header, *columns, mark=","):
    """A table of eight images; every other column repeats its values."""
    lines = [header]
    for number, name in enumerate("abcdefgh"):
        lines.append(mark.join([f"{name}.jpg", *(c[number % len(c)] for c in columns)]))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", ["label", "Class", "CATEGORY", "target", "y", " labels "])
def test_known_names_of_the_label_column(begin, name):
    task, said = begin(table(f"image,few,{name}", "pq", ["no", "yes", "maybe"]))
    assert (task.images.label, task.labels) == (name, ("no", "maybe", "yes"))
    assert f"labels from the column {name!r}: maybe (2), no (3), yes (3)" in said


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("suffix", [".csv", ".TSV"])
def test_label_column_of_another_name(begin, mark, suffix):
    header = mark.join(["image", "year", "damage", "who"])
    years = ["2021", "2022", "2023", "2024"]
    people = [f"p{number}" for number in range(8)]
    text = table(header, years, ["none", "heavy"], people, mark=mark)
    task, said = begin(text, f"labels{suffix}")
    assert (task.images.label, task.labels) == ("damage", ("none", "heavy"))
    assert [row.label for row in read_rows(task)] == ["none", "heavy"] * 4
    word = {",": "comma", ";": "semicolon", "\t": "tab"}[mark]
    assert said == [
        f"labels{suffix}: 8 rows, {word}-separated, images in the column 'image'",
        "labels from the column 'damage', a guess (or is it 'year'? name its labels with "
        "--labels): heavy (4), none (4)",
        "positive, the label to look for, is 'heavy': a guess",
        *(f"the label {label!r} has 4 rows only, {FEWER}" for label in ("heavy", "none")),
        "8 labelled rows, 0 to predict",
    ]


def test_rows_without_a_label_are_no_value(begin):
    task, _ = begin(table("image,damage", ["yes", "", "no", ""]))
    assert task.labels == ("no", "yes")
    assert [row.label for row in read_rows(task)][:4] == ["yes", None, "no", None]


@pytest.mark.parametrize(
    "columns",
    [
        ["image,who", [f"p{number}" for number in range(8)]],  # no two alike
        ["image,only", ["same"]],  # all alike
        ["image,set", ["train", "test"]],  # a split
        ["image,split,part", ["early", "train"], ["train", "test"]],
        ["image,caption", ["a house", "a street"]],
    ],
)
def test_no_label_column(begin, columns, tmp_path):
    task, said = begin(table(*columns))
    assert task.labels == ()
    assert "no label column found: set images.label and labels" in said
    text = (tmp_path / "task.toml").read_text()
    assert '\nlabel = "' not in text
    assert "# label = " in text
    assert [row.label for row in read_rows(task)] == [None] * 8


def test_a_known_name_with_too_many_values_is_no_label_column(begin):
    names = [f"p{number}" for number in range(51)]
    text = "image,class,damage\n" + "".join(
        f"{'abcdefgh'[at % 8]}{'' if at < 8 else at}.jpg,{name},{'yn'[at % 2]}\n"
        for at, name in enumerate(names)
    )
    pictures = ["abcdefgh"[at % 8] + ("" if at < 8 else str(at)) for at in range(51)]
    task, said = begin(text, pictures=pictures)
    assert (task.images.label, task.labels) == ("damage", ("n", "y"))
    task.file.unlink()
    task, said = begin(text.replace(",n\n", ",y\n"), pictures=pictures)
    assert task.labels == ()
    assert "no label column found ('class' has 51 values): set images.label and labels" in said


def test_an_odd_split_is_said(begin):
    task, said = begin(table("image,split,label", ["early", "train"], ["no", "yes"]))
    assert task.images.split is None
    assert [line for line in said if "'split'" in line and "left out" in line]


def test_other_tables_are_named(begin, tmp_path):
    (tmp_path / "broken.csv").write_text("a,,b\n")
    (tmp_path / "ids.csv").write_text("image,label\na,yes\nb,no\n")
    (tmp_path / "notes.csv").write_text("x,y\n1,2\n")
    (tmp_path / "test.csv").write_text("image\na.jpg\n")
    task, said = begin(table("image,label", ["no", "yes"]), "train.csv")
    assert task.images.table == "train.csv"
    unused = [line for line in said if line.startswith("not used: ")]
    assert [line.split(": ")[1].rpartition("/")[2] for line in unused] == [
        "ids.csv",
        "test.csv",
        "broken.csv",
        "notes.csv",
    ]
    assert unused[1] == (
        "not used: test.csv: 1 of its 1 row stand in train.csv too: 'a.jpg': rename images so that "
        "ids differ, or put those of each table into a folder of its split (train/, test/)"
    )
    assert "it begins with x '1', y '2'): name their folder with --images" in unused[3]


def test_the_longer_table_is_taken(begin, tmp_path):
    (tmp_path / "a.csv").write_text("image,label\na.jpg,yes\n")
    task, _ = begin(table("image,label", ["no", "yes"]), "b.csv")
    assert task.images.table == "b.csv"


def test_folders_are_said(tmp_path):
    for path in ("ruin/a.jpg", "intact/b.jpg", "intact/c.txt", "weights/d.st", "test/any/e.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    said = []
    write_task(tmp_path, notify=said.append)
    assert said == [
        f"3 images below {tmp_path}",
        "labels from the folders: intact (1), ruin (1)",
        "positive, the label to look for, is 'ruin': a guess",
        *(
            f"the label {label!r} has 1 row only, fewer than the 5 folds: label more, or probe "
            "will refuse it"
            for label in ("intact", "ruin")
        ),
        "ignored 2 files, no images: .st (1), .txt (1)",
        "no image lies in weights: move it out of images.root",
        "test/ 1 image: rows of test are predicted, never trained on",
        "2 labelled rows, 1 to predict",
    ]


@pytest.mark.parametrize("count", [0, 1, 51])
def test_folders_that_are_no_labels(tmp_path, count):
    (tmp_path / "a.jpg").touch()
    for number in range(count):
        (tmp_path / f"day{number}").mkdir()
        (tmp_path / f"day{number}" / "a.jpg").touch()
    found = detect_layout(tmp_path)
    assert found.labels == ()
    folders = number_of(count, "folder")
    why = f"no labels found ({folders}): fill in labels, and give a table (--table)"
    assert why in found.remarks


def test_products_of_an_earlier_run_are_no_images(tmp_path, monkeypatch):
    for path in ("ruin/a.jpg", "intact/b.jpg", "work/thumbs/aa/c.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    found = detect_layout(tmp_path.__class__("."))
    assert (found.labels, found.counts.total()) == (("intact", "ruin"), 2)


def test_remarks_are_single_lines(tmp_path):
    for label in ("two\nlines", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "a.jpg").touch()
    assert all(len(remark.splitlines()) == 1 for remark in detect_layout(tmp_path).remarks)


@pytest.mark.parametrize(
    "labels",
    [
        ("nein", "ja"),
        ("unbeschädigt", "beschädigt"),
        ("not destroyed", "destroyed"),
        ("Nicht zerstört", "zerstört"),
        ("0", "1"),
        ("normal", "damaged"),
    ],
)
def test_the_label_that_negates_goes_first(labels):
    assert positive_last(labels) == positive_last(labels[::-1]) == labels
