"""Scores are the organisers' figures; files that do not match are refused by name."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, recall_score

from archiveprobe.evaluate.system_store import load_run
from archiveprobe.predict.images import predict
from archiveprobe.predict.score import score
from archiveprobe.predict.submission import submit

FIELDS = ["n", "macro_f1", "accuracy", "balanced_accuracy", "precision", "recall", "specificity"]


@pytest.fixture
def known(archive):
    """The archive with the labels of its test rows in the table."""
    splits = ["train"] * 72 + ["test"] * 24
    rows = zip(archive.ids, archive.truth, splits, strict=True)
    archive.write_csv("labels.csv", [["image", "label", "split"], *rows])
    return archive


def write(archive, answers, header=("image", "label")):
    """A submission with these answers for the test rows, in order."""
    rows = zip(archive.test_ids, answers, strict=True)
    return archive.write_csv("out.csv", [header, *rows])


def test_figures_are_those_of_scikit_learn(known, tmp_path) -> None:
    submit(known.task, "greedy", tmp_path / "out.csv")
    done = score(known.task, tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()[1:]
    answers = dict(line.split(",") for line in lines)
    truth, given = known.test_truth, [answers[id_] for id_ in known.test_ids]
    record = done.record()
    assert list(record) == [*FIELDS, "confusion", "probabilities"]
    assert record["n"] == 24
    assert record["macro_f1"] == pytest.approx(f1_score(truth, given, average="macro"))
    assert record["accuracy"] == pytest.approx(accuracy_score(truth, given))
    recall = recall_score(truth, given, average="macro")
    for name in ("balanced_accuracy", "recall", "specificity"):
        assert record[name] == pytest.approx(recall)
    assert record["confusion"]["labels"] == ["intact", "destroyed"]
    assert np.sum(record["confusion"]["matrix"]) == 24
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert not done.remarks


def test_the_confusion_matrix_has_the_truth_down(known) -> None:
    answers = ["destroyed"] * 20 + ["intact"] * 4
    record = score(known.task, write(known, answers)).record()
    assert record["confusion"]["matrix"] == [[2, 10], [2, 10]]


def test_the_table_of_the_paper(fitted, draw, tmp_path) -> None:
    """TP 118, FN 24, FP 28, TN 232: Table 1 of the ConvNeXt paper."""
    archive = draw(known=12, test=402)
    truth = ["destroyed"] * 142 + ["intact"] * 260
    answers = ["destroyed"] * 118 + ["intact"] * 24 + ["destroyed"] * 28 + ["intact"] * 232
    archive.write_csv("truth.csv", [["image", "label"], *zip(archive.test_ids, truth, strict=True)])
    done = score(archive.task, write(archive, answers), truth=archive.folder / "truth.csv").record()
    assert done["confusion"]["matrix"] == [[232, 28], [24, 118]]
    assert (round(done["macro_f1"], 4), round(done["accuracy"], 4)) == (0.8593, 0.8706)
    assert done["recall"] == done["specificity"] == pytest.approx((118 / 142 + 232 / 260) / 2)


def test_probabilities_file_can_be_scored(known, tmp_path) -> None:
    predict(known.task, "ridge-hog", tmp_path / "p.csv")
    submit(known.task, "ridge-hog", tmp_path / "s.csv")
    with_numbers = score(known.task, tmp_path / "p.csv")
    labels_only = score(known.task, tmp_path / "s.csv").record()
    assert labels_only["probabilities"] is None
    assert with_numbers.record() | {"probabilities": None} == labels_only
    assert with_numbers.record()["probabilities"]["auc"] > 0.5
    assert any("2 rows cannot be read" in remark for remark in with_numbers.remarks)


@pytest.mark.proves("leaks")
def test_labels_of_test_rows_are_never_seen_before_scoring(known, archive, tmp_path) -> None:
    stored = load_run(archive.task, "ridge-hog").predictions().test
    known.fit(probes=("ridge", "lda"))
    again = load_run(known.task, "ridge-hog").predictions()
    assert np.array_equal(stored, again.test, equal_nan=True)
    assert again.test_ids.tolist() == archive.test_ids


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda rows: rows[:-3], ("lacks 3", "'093.jpg'", "submit again")),
        (lambda rows: [*rows, ["0720.jpg", "intact"]], ("1 of 25", "'0720.jpg'", "did you mean")),
        (lambda rows: [*rows, ["001.jpg", "intact"]], ("'001.jpg'", "labelled rows")),
        (lambda rows: [*rows, rows[0]], ("'072.jpg'", "line 2")),
        (lambda rows: [["072.jpg", "intct"], *rows[1:]], ("line 2", "'intct'", "'intact'")),
        (
            lambda rows: [["072.jpg", ""], *rows[1:]],
            ("line 2", "no label in 1 row", "use intact, destroyed"),
        ),
        (lambda rows: [row[::-1] for row in rows], ("changed places", "put them right")),
        (lambda rows: [], ("has no rows",)),
    ],
    ids=["missing", "unknown", "trained", "repeated", "spelling", "empty", "swapped", "none"],
)
def test_files_that_do_not_match(known, fault_of, change, words) -> None:
    rows = [list(pair) for pair in zip(known.test_ids, known.test_truth, strict=True)]
    file = known.write_csv("out.csv", [["image", "label"], *change(rows)])
    fault_of(lambda: score(known.task, file), "out.csv", *words)


def test_labels_in_other_case_are_recognized_aloud(known) -> None:
    answers = [label.upper() + " " for label in known.test_truth]
    done = score(known.task, write(known, answers))
    assert done.record()["accuracy"] == 1.0
    (remark,) = done.remarks
    assert "24 in all" in remark and "'INTACT ' as 'intact' (12)" in remark


def test_one_folder_per_label(draw) -> None:
    def name(at: int) -> str:
        return f"{'test' if at >= 60 else 'train'}/{('intact', 'destroyed')[at % 2]}/{at}.jpg"

    archive = draw(known=60, test=12, name=name)
    file = archive.folder / "task.toml"
    text = file.read_text().replace('table = "labels.csv"\nsplit = "split"', 'root = "images"')
    file.write_text(text)
    assert score(archive.task, write(archive, archive.test_truth)).record()["macro_f1"] == 1.0


def test_a_file_that_is_not_there(known, fault_of, tmp_path) -> None:
    fault_of(lambda: score(known.task, tmp_path / "no.csv"), "no file", "no.csv")


def test_no_label_is_known(archive, fault_of) -> None:
    file = write(archive, archive.test_truth)
    fault_of(lambda: score(archive.task, file), "no label is known", "--truth")


def test_labels_from_another_table(archive, fault_of) -> None:
    pairs = zip(archive.test_ids, archive.test_truth, strict=True)
    truth = archive.write_csv("truth.csv", [["image", "label"], *pairs])
    file = write(archive, archive.test_truth)
    assert score(archive.task, file, truth=truth).record()["macro_f1"] == 1.0
    truth.write_text(truth.read_text().replace("intact", "intct", 1))
    fault_of(lambda: score(archive.task, file, truth=truth), "truth.csv", "first line 2", "'intct'")


def test_rows_without_a_label_are_left_out_aloud(known) -> None:
    file = known.folder / "labels.csv"
    file.write_text(file.read_text().replace("095.jpg,destroyed", "095.jpg,"))
    done = score(known.task, write(known, known.test_truth))
    assert done.record()["n"] == 23
    assert any("1 of 24 rows have no known label" in remark for remark in done.remarks)


@pytest.mark.proves("answers")
def test_shuffled_rows_are_named(draw) -> None:
    archive = draw(known=12, test=200)
    rng = np.random.default_rng(0)
    archive.truth[12:] = rng.choice(["intact", "destroyed"], 200).tolist()
    pairs = [list(pair) for pair in zip(archive.test_ids, archive.test_truth, strict=True)]
    truth = archive.write_csv("truth.csv", [["image", "label"], *pairs])
    ids = rng.permutation(archive.test_ids).tolist()
    shuffled = [[id_, label] for id_, (_, label) in zip(ids, pairs, strict=True)]
    file = archive.write_csv("out.csv", [["image", "label"], *shuffled])
    (remark,) = score(archive.task, file, truth=truth).remarks
    assert "out of order" in remark
    assert "1.000" in remark


@pytest.mark.proves("answers")
def test_swapped_labels_are_named(known) -> None:
    other = {"intact": "destroyed", "destroyed": "intact"}
    done = score(known.task, write(known, [other[label] for label in known.test_truth]))
    assert done.record()["accuracy"] == 0
    assert any("two labels have changed places" in remark for remark in done.remarks)


def test_answers_no_better_than_chance_are_named(known) -> None:
    done = score(known.task, write(known, ["intact"] * 24))
    assert any("no better than chance" in remark for remark in done.remarks)


def test_swapped_probability_columns_are_named(known, tmp_path) -> None:
    predict(known.task, "ridge-hog", tmp_path / "p.csv")

    def changed() -> list[str]:
        remarks = score(known.task, tmp_path / "p.csv").remarks
        return [remark for remark in remarks if "changed places" in remark]

    assert not changed()
    text = (tmp_path / "p.csv").read_text()
    turned = text.replace("p_intact,p_destroyed", "p_destroyed,p_intact")
    (tmp_path / "p.csv").write_text(turned)
    (remark,) = changed()
    assert "p_intact, p_destroyed" in remark
