"""Forms to hand in whose ids are those of the organisers: from the folders to the scored file."""

import json

import pytest
from stripes import answer_of, done, draw_stripes, read_csv, run, write_csv

from archiveprobe.task.config import load_task

LABELLED, TO_PREDICT = range(24), range(100, 112)
ORDER = TO_PREDICT[::-1]


def drawn(folder):
    """Kaggle's folders: train/LABEL, and all images to predict in test/."""
    for number in LABELLED:
        label = ("across", "down")[number % 2]
        draw_stripes(folder / f"train/{label}/{number}.jpg", number)
    for number in TO_PREDICT:
        draw_stripes(folder / f"test/{number}.jpg", number)
    return folder


def begun(folder, header, ids, cell=0.5):
    """What `init` says of a form with these ids."""
    write_csv(folder / "sample_submission.csv", [header, *([id_, cell] for id_ in ids)])
    said = done("init", folder).stderr
    file = folder / "task.toml"
    text = file.read_text().replace("count = 5", "count = 3").replace("repeats = 5", "repeats = 1")
    file.write_text(text.replace('views = "crops6"', 'views = "center"'))
    return said


def answered(folder):
    """The lines of the submission of right answers from elsewhere, or why it is refused."""
    names = [[number, number % 2] for number in TO_PREDICT]
    write_csv(folder / "given.csv", [["number", "p_down"], *names])
    result = run("submit", folder, "--answers", folder / "given.csv", "-o", folder / "out.csv")
    if result.exit_code:
        (line,) = result.stderr.splitlines()
        assert result.exit_code == 1 and not (folder / "out.csv").exists()
        return line
    return read_csv(folder / "out.csv")[1:]


FORMS = {
    "bare names": (["file", "down"], "{}.jpg", "without its folder (12)"),
    "numbers": (["id", "target"], "{}", "without its extension (12), without its folder (12)"),
    "exact paths": (["filename", "down"], "test/{}.jpg", ""),
}


@pytest.mark.parametrize("form", FORMS)
def test_labels_in_folders_and_a_form_of_names(tmp_path, form):
    header, id_, how = FORMS[form]
    folder = drawn(tmp_path / "archive")
    ids = [id_.format(number) for number in ORDER]
    said = begun(folder, header, ids)
    assert "sample_submission.csv: the form to hand in, 12 rows" in said
    other = f"12 of 12 ids of sample_submission.csv name their row in another way: {how}"
    assert (other in said) == bool(how)
    assert "24 labelled rows, 12 to predict" in said and "not used" not in said
    assert load_task(folder).submission.template == "sample_submission.csv"

    done("embed", folder)
    best = answer_of("probe", folder, "--probe", "ridge")["leaderboard"][0]["system"]
    told = done("submit", folder, "--system", best, "-o", folder / "out.csv").stderr
    assert (other in told) == bool(how)
    columns, *lines = read_csv(folder / "out.csv")
    assert columns == header and [line[0] for line in lines] == ids
    assert [float(line[1]) > 0.5 for line in lines] == [number % 2 == 1 for number in ORDER]

    labels = [[f"{number}.jpg", ("across", "down")[number % 2]] for number in TO_PREDICT]
    write_csv(folder / "truth.csv", [["photo", "label"], *labels])
    words = [folder / "out.csv", "--truth", folder / "truth.csv", "--json"]
    scored = done("score", folder, *words)
    figures = json.loads(scored.stdout)
    assert (figures["accuracy"], figures["n"]) == (1, 12)
    assert "12 of 12 ids of truth.csv name their row in another way" in scored.stderr
    assert answered(folder) == [[id_, f"{n % 2}.0"] for id_, n in zip(ids, ORDER, strict=True)]


@pytest.mark.proves("answers")
def test_a_name_in_two_folders_is_refused(tmp_path):
    """Nothing says which of two images a name means."""
    folder = drawn(tmp_path / "archive")
    draw_stripes(folder / "test" / "more" / "100.jpg", 100)
    said = begun(folder, ["file", "down"], [f"{number}.jpg" for number in ORDER])
    assert "1 of its 12 ids name no row to predict for certain ('100.jpg')" in said
    line = answered(folder)
    assert "sample_submission.csv: 1 id of no certain row, the first is '100.jpg'" in line
    assert "'test/100.jpg', 'test/more/100.jpg'" in line


def test_a_table_of_paths_and_a_form_of_numbers(tmp_path):
    rows = [["path", "label"]]
    for number in (*LABELLED, *TO_PREDICT):
        split = "train" if number in LABELLED else "test"
        label = draw_stripes(tmp_path / f"{split}/{number:04}.png", number)
        rows.append([f"{split}/{number:04}.png", label if split == "train" else ""])
    write_csv(tmp_path / "all.csv", rows)
    assert "without zeros in front (12)" in begun(tmp_path, ["image_id", "target"], ORDER)
    assert load_task(tmp_path).images.table == "all.csv"
    assert answered(tmp_path) == [[str(number), f"{number % 2}.0"] for number in ORDER]


@pytest.mark.proves("answers")
def test_a_name_is_that_of_a_row_to_predict(tmp_path):
    """Images of both folders may count from the same number."""
    folder = drawn(tmp_path / "archive")
    for number in TO_PREDICT:
        draw_stripes(folder / f"train/across/{number}.jpg", 0)
    begun(folder, ["file", "down"], [f"{number}.jpg" for number in ORDER])
    assert answered(folder) == [[f"{number}.jpg", f"{number % 2}.0"] for number in ORDER]


@pytest.mark.proves("answers")
def test_two_columns_of_different_ids_are_refused(tmp_path):
    folder = drawn(tmp_path / "archive")
    form = [[at, f"{at}.jpg", 0.5] for at in TO_PREDICT]
    turned = [[ORDER[at], *cells] for at, (_, *cells) in enumerate(form)]
    write_csv(folder / "sample_submission.csv", [["index", "file", "down"], *turned])
    said = done("init", folder).stderr
    assert "'index' and 'file' both seem to hold ids, but of different rows" in said
    assert load_task(folder).submission.template is None
    file = folder / "task.toml"
    file.write_text(f'{file.read_text()}[submission]\ntemplate = "sample_submission.csv"\n')
    assert "name the right one first in submission.columns" in answered(folder)
    file.write_text(f'{file.read_text()}columns = ["file", "down"]\n')
    lines = answered(folder)
    assert [line[1:] for line in lines] == [[f"{n}.jpg", f"{n % 2}.0"] for n in TO_PREDICT]
