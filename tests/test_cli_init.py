"""`init` on the layouts that people bring; what it writes runs as it is: embed, probe, submit."""

import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from stripes import answer_of, done, draw_stripes, quick, run, submitted, write_csv

from archiveprobe.task.rows import read_rows

LABELLED, TO_PREDICT = range(24), range(24, 30)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "archive"


def expected(rows, name):
    return [[name(number), ("across", "down")[number % 2]] for number in rows]


@pytest.mark.parametrize("inside", ["{split}", "images", "images/{split}"])
def test_kaggle(folder, inside):
    """train.csv, test.csv, sample_submission.csv: ids without extension."""
    train, test, form = [["id", "label"]], [["id"]], [["id", "label"]]
    for number in (*LABELLED, *TO_PREDICT):
        split = "train" if number in LABELLED else "test"
        place = folder / inside.format(split=split) / f"img{number:03}.png"
        label = draw_stripes(place, number)
        id_ = f"img{number:03}"
        if split == "train":
            train.append([id_, label])
        else:
            test.append([id_])
            form.append([id_, "across"])
    for name, rows in {"train": train, "test": test, "sample_submission": form}.items():
        write_csv(folder / f"{name}.csv", rows)
    task, said = quick(folder)
    assert task.images.table == ("train.csv", "test.csv")
    assert (task.images.id, task.labels, task.positive) == ("id", ("across", "down"), "down")
    assert task.submission.template == "sample_submission.csv"
    assert "train.csv: 24 of 24 rows name their file in another way: without its extension" in said
    assert "train.csv (read as train) 24 rows, test.csv (read as test) 6: rows of test are" in said
    assert "24 labelled rows, 6 to predict" in said
    if inside == "images/{split}":
        assert submitted(folder) == [["id", "label"], *expected(TO_PREDICT, "img{:03}".format)]


def test_kaggle_without_a_test_table(folder):
    """The form to hand in lists the rows to predict: its answers are placeholders."""
    rows = {"train": [["id", "target"]], "sampleSubmission": [["id", "target"]]}
    for number in (*LABELLED, *TO_PREDICT):
        table = "train" if number in LABELLED else "sampleSubmission"
        draw_stripes(folder / "images" / f"{number}.png", number)
        rows[table].append([number, number % 2 if table == "train" else 0])
    for name, lines in rows.items():
        write_csv(folder / f"{name}.csv", lines)
    task, said = quick(folder)
    assert task.images.table == ("train.csv", "sampleSubmission.csv")
    assert task.submission.template == "sampleSubmission.csv"
    assert "its rows, which no other table has, are to be predicted" in said
    lines = [[str(number), str(number % 2)] for number in TO_PREDICT]
    assert submitted(folder) == [["id", "target"], *lines]


def test_a_form_that_asks_for_more_than_the_tables_have(folder):
    tables = {
        "train": [["id", "target"]],
        "test": [["id"]],
        "sample_submission": [["id", "target"]],
    }
    for number in (*LABELLED, *TO_PREDICT):
        draw_stripes(folder / "images" / f"{number}.png", number)
        if number in LABELLED:
            tables["train"].append([number, number % 2])
            continue
        tables["sample_submission"].append([number, 0.5])
        if number != TO_PREDICT[-1]:
            tables["test"].append([number])
    for name, rows in tables.items():
        write_csv(folder / f"{name}.csv", rows)
    task, said = quick(folder)
    assert task.submission.template == "sample_submission.csv"
    last = str(TO_PREDICT[-1])
    assert f"1 of its 6 ids are in no table ({last!r}): add those rows, or submit will" in said
    done("embed", folder)
    done("probe", folder, "--probe", "ridge")
    refused = run("submit", folder, "--system", "ridge-hog", "-o", folder.parent / "out.csv")
    assert refused.exit_code == 1
    assert "1 of 6 ids are not in" in refused.stderr and last in refused.stderr


def test_the_ids_of_a_form_go_before_paths(folder):
    """A table with an id and a file name, and a form that asks for the ids."""
    train, form = [["id", "file", "label"]], [["id", "label"]]
    for number in (*LABELLED, *TO_PREDICT):
        label = draw_stripes(folder / "images" / f"x{number}.png", number)
        known = number in LABELLED
        train.append([f"row-{number}", f"x{number}.png", label if known else ""])
        if not known:
            form.append([f"row-{number}", ""])
    write_csv(folder / "data.csv", train)
    write_csv(folder / "submission_template.csv", form)
    task, said = quick(folder)
    assert (task.images.id, task.images.path, task.images.root) == ("id", "file", "images")
    assert "its 'id' are the ids" in said
    assert submitted(folder)[1:] == expected(TO_PREDICT, "row-{}".format)


def write_metadata(folder, rows, form):
    """A metadata file as Hugging Face's imagefolder reads it."""
    table = pd.DataFrame(rows)
    if form == "jsonl":
        table.to_json(folder / "metadata.jsonl", orient="records", lines=True)
    elif form == "parquet":
        pytest.importorskip("pyarrow")
        table.to_parquet(folder / "metadata.parquet", index=False)
    else:
        table.to_csv(folder / "metadata.csv", index=False)


@pytest.mark.parametrize(("top", "form"), [("", "csv"), ("images/", "jsonl"), ("", "parquet")])
def test_hugging_face_metadata_in_every_split(folder, top, form):
    """The same file_name in two splits are two images; splits come from the folders."""
    for split, numbers in (("train", LABELLED), ("test", TO_PREDICT)):
        rows = []
        for at, number in enumerate(numbers):
            label = draw_stripes(folder / top / split / f"{at:04}.png", number)
            rows.append(
                {"file_name": f"{at:04}.png"} | ({"label": label} if split == "train" else {})
            )
        write_metadata(folder / top / split, rows, form)
    task, said = quick(folder)
    assert task.images.table == (f"{top}train/metadata.{form}", f"{top}test/metadata.{form}")
    assert (task.images.relative_to, task.images.root) == ("table", top.rstrip("/") or ".")
    assert f"metadata.{form} (read as test) 6" in said
    if form == "jsonl":
        answers = submitted(folder)[1:]
        assert answers == expected(TO_PREDICT, lambda number: f"test/{number - 24:04}.png")


def test_hugging_face_metadata_at_the_top(folder):
    rows = [["file_name", "label"]]
    for number in (*LABELLED, *TO_PREDICT):
        split = "train" if number in LABELLED else "test"
        label = draw_stripes(folder / split / f"{number}.png", number)
        rows.append([f"{split}/{number}.png", label])
    rows[-1][1] = "across, and only in a row of test"
    write_csv(folder / "metadata.csv", rows)
    task, said = quick(folder)
    assert (task.images.table, task.images.split) == ("metadata.csv", "folders")
    assert task.labels == ("across", "down")
    assert "train/ 24 rows, test/ 6: rows of test are predicted, never trained on" in said
    assert submitted(folder)[1:] == expected(TO_PREDICT, "test/{}.png".format)
    refused = run("score", folder, folder.parent / "out.csv")
    assert "'across, and only in a row of test'" in refused.stderr
    (folder / "metadata.csv").write_text(
        (folder / "metadata.csv").read_text().replace('"across, and only in a row of test"', "down")
    )
    scored = answer_of("score", folder, folder.parent / "out.csv")
    assert (scored["n"], scored["accuracy"]) == (6, 1)


def test_torchvision_folders(folder):
    places = {}
    for number in (*LABELLED, *TO_PREDICT):
        label = ("across", "down")[number % 2]
        split = "test" if number in TO_PREDICT else "val" if number % 6 < 2 else "train"
        name = f"{split}/{label}/{number}.png"
        draw_stripes(folder / name, number)
        places[number] = name
    task, said = quick(folder)
    assert (task.images.table, task.labels) == (None, ("across", "down"))
    assert (
        "train/ 16 images, val/ (read as validation) 8, test/ 6: rows of test are predicted, "
        "never trained on" in said
    )
    answers = dict(submitted(folder)[1:])
    assert answers == dict(expected(TO_PREDICT, places.__getitem__))
    assert answer_of("score", folder, folder.parent / "out.csv")["accuracy"] == 1


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_one_folder_per_class_with_umlauts_and_capitals(folder, form):
    names = ("Unzerst\u00f6rt", "ZERST\u00d6RT")
    for number in (*LABELLED, *TO_PREDICT):
        name = names[number % 2] if number in LABELLED else "unlabelled"
        draw_stripes(folder / "Fotos" / unicodedata.normalize(form, name) / f"{number}.PNG", number)
    task, said = quick(folder)
    assert set(task.labels) == set(names)
    assert task.images.root == "Fotos"
    assert "24 labelled rows, 6 to predict" in said
    if form == "NFC":
        return
    answers = submitted(folder)[1:]
    assert [label for _, label in sorted(answers)] == [names[number % 2] for number in TO_PREDICT]


@pytest.mark.parametrize("form", ["xlsx", "utf-8-sig", "utf-16", "cp1252"])
def test_a_spreadsheet(folder, form):
    names = ["Datei", "Sch\u00e4den"]
    rows = []
    for number in (*LABELLED, *TO_PREDICT):
        draw_stripes(folder / "Bilder" / f"Stra\u00dfe {number}.png", number)
        label = ("nein", "ja, gro\u00dfe")[number % 2] if number in LABELLED else ""
        rows.append([f"Stra\u00dfe {number}.PNG", label])
    if form == "xlsx":
        pytest.importorskip("openpyxl")
        pd.DataFrame(rows, columns=names).to_excel(folder / "Liste.xlsx", index=False)
    else:
        write_csv(folder / "Liste.csv", [names, *rows], form)
    task, said = quick(folder)
    assert (task.images.id, task.images.label) == ("Datei", "Sch\u00e4den")
    assert task.labels == ("nein", "ja, gro\u00dfe")
    assert "by another case (30)" in said
    labels = [row.label for row in read_rows(task)]
    assert labels == ["nein", "ja, gro\u00dfe"] * 12 + [None] * 6
    if form == "xlsx":
        assert [line[1] for line in submitted(folder)[1:]] == ["nein", "ja, gro\u00dfe"] * 3


def two_tables(folder, tmp_path):
    """A folder with one label per folder, and a table elsewhere that says something else."""
    rows = [["name", "kind"]]
    for number in range(12):
        draw_stripes(folder / "photos" / ("a", "b")[number % 3 == 0] / f"{number}.png", number)
        rows.append([f"{number}.png", ("Across", "down ")[number % 2]])
    write_csv(tmp_path / "elsewhere" / "labels.csv", rows)
    return tmp_path / "elsewhere" / "labels.csv"


def test_every_guess_can_be_overridden(folder, tmp_path):
    table = two_tables(folder, tmp_path)
    task = quick(folder)[0]
    assert (task.images.table, task.labels) == (None, ("a", "b"))
    given = ["--table", table, "--images", folder / "photos", "--labels", "down,across"]
    refused = run("init", folder, *given)
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    task, said = quick(folder, *given, "--positive", "across", "--force")
    assert (task.images.table, task.images.root) == ("../elsewhere/labels.csv", "photos")
    assert (task.labels, task.positive, task.images.label) == (("down", "across"), "across", "kind")
    assert (
        f"replaced {folder / 'task.toml'}: the task 'archive' of {folder}/photos, labels a, b"
        in said
    )
    done("embed", folder)


def test_the_current_folder_is_the_default(folder, monkeypatch):
    for number in range(4):
        draw_stripes(folder / ("a", "b")[number % 2] / f"{number}.png", number)
    monkeypatch.chdir(folder)
    assert done("init").stdout == "task.toml\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--table", "no.csv"], "no table at "),
        (["--images", "no"], "no folder "),
        (["--labels", "x,y"], "no column of "),
        (["--labels", "across,,down"], "--labels: name every label once"),
        (["--labels", "across,across"], "--labels: name every label once"),
        (["--labels", "across,up"], "has other labels than --labels: down (6)"),
        (["--positive", "dwon"], "'dwon' is not one of the labels (did you mean 'down'?)"),
        (["--images", "{empty}"], "no image below "),
    ],
)
def test_choices_that_do_not_fit_are_refused(folder, tmp_path, monkeypatch, words, message):
    rows = [["image", "label"]]
    rows += [
        [f"{number}.png", draw_stripes(folder / "images" / f"{number}.png", number)]
        for number in range(12)
    ]
    write_csv(folder / "labels.csv", rows)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    refused = run("init", folder, *(word.format(empty=tmp_path / "empty") for word in words))
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert len(refused.stderr.splitlines()) == 1
    assert message in refused.stderr
    assert not (folder / "task.toml").exists()


def test_doubts_about_labels_and_images(folder):
    rows = [["image", "label"]]
    for number in range(40):
        draw_stripes(folder / f"{number}.png", number)
        rows.append([f"{number}.png", ("intact", "destroyed")[number % 2]])
    rows[2][1] = rows[4][1] = "destroyd"
    rows[6][1] = "collapsed"
    rows += [["gone.png", "intact"], ["lost.png", "intact"]]
    draw_stripes(folder / "extra.png", 1)
    write_csv(folder / "labels.csv", rows)
    said = quick(folder)[1]
    assert (
        "'destroyd' (2 rows) looks like 'destroyed' (17): a typo? correct the table, or it counts "
        "as a label of its own" in said
    )
    assert "the label 'collapsed' has 1 row only, fewer than the 5 folds" in said
    assert "labels.csv: no image for 2 of 42 rows: 'gone.png', 'lost.png'" in said
    assert "no table names 1 of 41 images: 'extra.png'" in said


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("?", "'?' (20 rows) is a label like any other: where it says that nobody knows, empty"),
        ("Unbekannt", "'Unbekannt' (20 rows) is a label like any other"),
        ("intact; destroyed", "1 label of several words that are labels, the first is 'intact; d"),
    ],
)
def test_doubts_about_labels_that_say_nothing_or_too_much(folder, label, words):
    rows = [["image", "label"]]
    for number in range(60):
        draw_stripes(folder / f"{number}.png", number)
        rows.append([f"{number}.png", ("intact", "destroyed", label)[number % 3]])
    write_csv(folder / "labels.csv", rows)
    assert words in quick(folder)[1]


def test_no_doubt_where_labels_only_look_alike(folder):
    names = ["damaged", "undamaged", "level 1", "level 2"]
    for number in range(120):
        label = names[number % 2 if number < 100 else 2 + (number % 10 == 0)]
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{number}.png").write_bytes(b"x")
    assert "looks like" not in quick(folder)[1]


def test_a_broken_table_is_written_and_doubted(folder):
    for number in range(4):
        draw_stripes(folder / f"{number}.png", number)
    rows = [
        ["image", "label"],
        *([f"{number}.png", "yn"[number % 2]] for number in (0, 1, 2, 3, 3)),
    ]
    write_csv(folder / "labels.csv", rows)
    said = quick(folder)[1]
    assert "embed will refuse this: " in said


def test_images_of_test_folders_without_a_word_in_the_table(folder):
    rows = [["image", "label"]]
    for number in range(12):
        split = "train" if number < 9 else "test"
        rows.append([f"{number}.png", draw_stripes(folder / split / f"{number}.png", number)])
    write_csv(folder / "labels.csv", rows)
    said = quick(folder)[1]
    assert "3 images of labels.csv in test/, but no column says that they are test rows" in said


def test_images_beside_the_folder_images_are_said(folder):
    for name in ("images/a/1.png", "images/b/2.png", "3.png"):
        draw_stripes(folder / name, 1)
    task, said = quick(folder)
    assert (task.images.root, task.labels) == ("images", ("a", "b"))
    assert "1 image beside images/ left out: name another folder with --images" in said
    assert quick(folder, "--images", folder, "--force")[0].images.root == "."


def test_a_table_twice_is_one_table(folder):
    rows = [["image", "label"]]
    rows += [[f"{at}.png", draw_stripes(folder / f"{at}.png", at)] for at in range(4)]
    write_csv(folder / "labels.csv", rows)
    table = folder / "labels.csv"
    twice = quick(folder, "--table", table, "--table", folder / ".." / "archive" / "labels.csv")
    assert twice[0].images.table == "labels.csv"


def test_where_nothing_fits_the_way_out_is_named(folder):
    folder.mkdir()
    write_csv(folder / "labels.csv", [["image", "label"], ["a.png", "x"]])
    refused = run("init", folder)
    assert refused.exit_code == 1
    assert f"no image below {folder}, but labels.csv: name the folder" in refused.stderr
    assert "--images" in refused.stderr
    assert Path(folder / "task.toml").exists() is False


def test_the_tools_own_answers_are_no_labels(folder):
    for number in range(30):
        label = ("across", "down")[number % 2] if number < 24 else "unlabelled"
        draw_stripes(folder / label / f"{number}.png", number)
    quick(folder)
    done("embed", folder)
    then = done("probe", folder, "--probe", "ridge").stderr
    assert "archiveprobe submit" in then
    for command, name in (("submit", "out.csv"), ("predict", "answers.json")):
        done(command, folder, "--system", "ridge-hog", "-o", folder / name, "--spreadsheet-safe")
    task, said = quick(folder, "--force")
    assert task.images.table is None and task.labels == ("across", "down")
    for name in ("out.csv", "out.spreadsheet.csv", "answers.json", "answers.spreadsheet.csv"):
        assert f"not used: {name}, which `submit` or `predict` wrote" in said
    # A spreadsheet program has saved them again: they name no image that has a label.
    (folder / "out.csv").write_text((folder / "out.csv").read_text().replace(",", ";"))
    pd.read_json(folder / "answers.json").to_csv(folder / "again.csv", sep=";", index=False)
    task, said = quick(folder, "--force")
    assert task.images.table is None and task.labels == ("across", "down")
    assert "not used: out.csv: it names no image below the folder of a label" in said
    assert "not used: again.csv, which has answers of `predict`" in said


def test_without_rows_to_predict_probe_speaks_of_new_images(folder):
    for number in LABELLED:
        draw_stripes(folder / ("across", "down")[number % 2] / f"{number}.png", number)
    quick(folder)
    done("embed", folder)
    then = done("probe", folder, "--probe", "ridge").stderr
    assert "archiveprobe predict" in then and "--images" in then
