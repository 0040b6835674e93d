"""The built-in archive: determined by its seed, as untidy as promised, and not too easy."""

import csv
import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from archiveprobe.task.config import load_task
from archiveprobe.task.decoding import DecodedImage, Observation, decode
from archiveprobe.task.demo import DemoError, write_demo
from archiveprobe.task.demo.dress import DRESSES, REPOSTS
from archiveprobe.task.demo.encode import FORMS
from archiveprobe.task.demo.plan import NEGATIVE, POSITIVE, Row, make_plan
from archiveprobe.task.rows import read_rows

SMALL = 60


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "demo"
    write_demo(folder)
    return folder


@pytest.fixture(scope="module")
def plan() -> list[Row]:
    return make_plan(400, np.random.default_rng([0, 0]))


@pytest.fixture(scope="module")
def decoded(archive: Path, plan: list[Row]) -> dict[str, DecodedImage | Observation]:
    return {row.name: decode((archive / "images" / row.name).read_bytes()) for row in plan}


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.open(encoding="utf-8", newline="")))


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 7), ("two", 7), ("three", 8)):
        write_demo(tmp_path / name, seed=seed, count=SMALL)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    one, three = digests(tmp_path / "one"), digests(tmp_path / "three")
    assert one["labels.csv"] != three["labels.csv"]
    pictures = {value for name, value in one.items() if name.startswith("images/")}
    others = {value for name, value in three.items() if name.startswith("images/")}
    # The error page is the same in both.
    assert len(pictures & others) == 1


def test_the_table_names_every_file_once(archive: Path) -> None:
    files = {
        path.relative_to(archive / "images").as_posix()
        for path in (archive / "images").rglob("*")
        if path.is_file()
    }
    names = [row["image"] for row in table(archive / "labels.csv")]
    assert len(names) == 400
    assert len(set(names)) == len(names)
    assert set(names) == files


def test_the_task_file_loads_and_its_rows_read(archive: Path) -> None:
    task = load_task(archive)
    rows = read_rows(task)
    assert len(rows) == 400
    assert Counter(row.split for row in rows) == {"train": 280, "validation": 40, "test": 80}
    assert {row.label for row in rows if row.split == "test"} == {None}
    assert {row.label for row in rows if row.split != "test"} == set(task.labels)


def test_two_thirds_are_not_destruction_in_every_split(archive: Path) -> None:
    known = [row for row in table(archive / "labels.csv") if row["label"]]
    hidden = table(archive / "test_labels.csv")
    for rows in (known, hidden, known + hidden):
        share = sum(row["label"] == POSITIVE for row in rows) / len(rows)
        assert share == pytest.approx(0.35, abs=0.02)


def test_test_labels_lie_in_a_file_of_their_own(archive: Path) -> None:
    asked = [row["image"] for row in table(archive / "labels.csv") if row["split"] == "test"]
    assert [row["image"] for row in table(archive / "test_labels.csv")] == asked
    sample = table(archive / "sample_submission.csv")
    assert [row["image"] for row in sample] == asked
    assert {row["label"] for row in sample} == {NEGATIVE}


def test_every_oddity_is_there(plan: list[Row]) -> None:
    assert {row.form for row in plan} == set(FORMS)
    assert {row.dress for row in plan} == {"", *DRESSES}
    assert {row.change for row in plan} == {"", "copy", *REPOSTS}
    assert any(not row.name.isascii() for row in plan)
    assert any("/" in row.name for row in plan)
    assert any(not row.caption.isascii() for row in plan)
    assert any("," in row.caption and '"' in row.caption for row in plan)
    small = make_plan(SMALL, np.random.default_rng(1))
    assert {row.form for row in small} == set(FORMS)
    assert {row.change for row in small} == {"", "copy", *REPOSTS}


def test_the_forms_are_what_they_say(
    plan: list[Row], decoded: dict[str, DecodedImage | Observation], archive: Path
) -> None:
    for row in plan:
        seen = decoded[row.name]
        if row.form in ("truncated", "html"):
            assert isinstance(seen, Observation)
            assert seen.status == {"truncated": "truncated", "html": "html_not_image"}[row.form]
            continue
        assert isinstance(seen, DecodedImage), row
        assert seen.observation.status == "ok"
        if row.form.startswith("exif"):
            assert seen.observation.orientation == int(row.form[-1])
        if row.form == "gif":
            assert (seen.observation.frames or 0) > 1
        if row.form in ("alpha", "palette", "grey16"):
            with Image.open(archive / "images" / row.name) as image:
                assert image.mode == {"alpha": "RGBA", "palette": "P", "grey16": "I;16"}[row.form]


def test_transparent_corners_come_out_white(
    plan: list[Row], decoded: dict[str, DecodedImage | Observation]
) -> None:
    for row in plan:
        if row.form in ("alpha", "palette"):
            seen = decoded[row.name]
            assert isinstance(seen, DecodedImage)
            assert seen.pixels.getpixel((0, 0)) == (255, 255, 255)


def test_copies_carry_the_label_of_their_original(plan: list[Row], archive: Path) -> None:
    copies = [row for row in plan if row.source is not None]
    assert 0.08 <= len(copies) / len(plan) <= 0.13
    for row in copies:
        original = plan[row.source or 0]
        assert row.label == original.label
        same = (archive / "images" / row.name).read_bytes() == (
            archive / "images" / original.name
        ).read_bytes()
        assert same == (row.change == "copy")
    assert any(row.split != plan[row.source or 0].split for row in copies)


def test_some_labels_are_wrong_in_both_directions(plan: list[Row]) -> None:
    wrong = Counter(row.label for row in plan if row.source is None and row.shows != row.label)
    assert set(wrong) == {NEGATIVE, POSITIVE}
    assert 0.01 <= sum(wrong.values()) / len(plan) <= 0.03


def test_neither_colour_nor_size_gives_the_label_away(
    plan: list[Row], decoded: dict[str, DecodedImage | Observation]
) -> None:
    seen = [(decoded[row.name], row.label == POSITIVE) for row in plan]
    rows = [(one.observation, label) for one, label in seen if isinstance(one, DecodedImage)]
    truth = np.array([label for _, label in rows])
    colour = np.array([(one.red, one.green, one.blue) for one, _ in rows])
    size = np.array([(one.bytes, one.width, one.height) for one, _ in rows], float)
    assert macro_f1(colour, truth) < 0.75
    assert macro_f1(size, truth) < 0.75


def macro_f1(matrix: np.ndarray, truth: np.ndarray) -> float:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced"))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return float(
        f1_score(truth, cross_val_predict(model, matrix, truth, cv=folds), average="macro")
    )


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(DemoError, match="not empty"):
        write_demo(tmp_path, count=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["keep.txt"]


@pytest.mark.parametrize(("given", "word"), [({"count": 10}, "count"), ({"seed": -1}, "seed")])
def test_impossible_wishes_are_refused(tmp_path: Path, given: dict[str, int], word: str) -> None:
    with pytest.raises(DemoError, match=word):
        write_demo(tmp_path / "demo", **given)
    assert not list(tmp_path.iterdir())


def test_a_killed_run_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("archiveprobe.task.demo.archive._write_tables", killed)
    with pytest.raises(KeyboardInterrupt):
        write_demo(tmp_path / "demo", count=SMALL)
    assert not list(tmp_path.iterdir())
