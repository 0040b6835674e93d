"""What organisers ask for: Kaggle's probabilities, integers of any task, Codabench's zip."""

import csv
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score

from archiveprobe import cli
from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.predict.form import wanted
from archiveprobe.predict.submission import read_back
from archiveprobe.predict.systems import load_system
from archiveprobe.probe.run import Options, run_probes
from archiveprobe.task.config import Submission
from archiveprobe.task.rows import read_rows

THREE = ("intact", "damaged", "destroyed")
MAPPED = "[submission.labels]\nintact = 0\ndestroyed = 1\n"


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def submitted(archive, file: Path, *words: str) -> Result:
    done = run("submit", archive.folder, "--system", "mean", "-o", file, *words)
    assert done.exit_code == 0, done.stderr
    return done


def refused(archive, file: Path, *words: str | Path) -> str:
    done = run("submit", archive.folder, *(words or ("--system", "mean")), "-o", file)
    assert done.exit_code == 1 and not done.stdout and not file.exists(), done.output
    (line,) = done.stderr.splitlines()
    return line


def template(archive, column: str, cell: str, *more: str) -> None:
    header = ["id", *([column] if column else []), *more]
    cells = [cell] * (len(header) - 1)
    archive.template([header, *([id_, *cells] for id_ in archive.test_ids)])


def of_system(archive) -> tuple[np.ndarray, list[str]]:
    """The probabilities and labels that the system answers."""
    dataset = load_dataset(archive.task)
    answers = load_system(dataset, "mean").answer(dataset.unlabelled)
    return answers.proba, [dataset.classes[at] for at in answers.decision]


@pytest.fixture
def several(copied):
    """A copy of an archive of three labels."""
    return copied(labels=THREE, test=9)


@pytest.fixture
def known(archive):
    """The archive with the labels of its test rows in the table."""
    splits = ["train"] * 72 + ["test"] * 24
    rows = zip(archive.ids, archive.truth, splits, strict=True)
    archive.write_csv("labels.csv", [["image", "label", "split"], *rows])
    return archive


@pytest.mark.parametrize("column", ["destroyed", "target", "p_destroyed", "Destroyed"])
def test_kaggle_probabilities_of_the_positive_label(known, tmp_path, column) -> None:
    template(known, column, "0.5")
    done = submitted(known, tmp_path / "sub.csv")
    said = f"the column {column!r} gets the probability of 'destroyed'"
    assert (said in done.stderr) == (column != "p_destroyed")
    shares = "the labels' shares of the labelled rows as probabilities (2 truncated)"
    assert f"2 cannot be read and got {shares}" in done.stdout
    frame = pandas.read_csv(tmp_path / "sub.csv")
    assert list(frame) == ["id", column] and list(frame.id) == known.test_ids
    proba, _ = of_system(known)
    seen = np.isfinite(proba[:, 1])
    assert np.abs(frame[column][seen] - proba[seen, 1]).max() <= 1e-6
    assert list(frame[column][~seen]) == [0.5, 0.5]

    scored = run("score", known.folder, tmp_path / "sub.csv", "--json")
    figures = json.loads(scored.stdout)
    truth = np.array(known.test_truth) == "destroyed"
    p = frame[column].to_numpy()
    numbers = figures["probabilities"]
    assert numbers["auc"] == pytest.approx(roc_auc_score(truth, p))
    assert numbers["average_precision"] == pytest.approx(average_precision_score(truth, p))
    assert numbers["log_loss"] == pytest.approx(log_loss(truth, p))
    assert numbers["brier"] == pytest.approx(np.mean((p - truth) ** 2))
    assert figures["accuracy"] == pytest.approx(np.mean((p > 0.5) == truth))
    assert "'destroyed' is taken above 0.5" in scored.stderr


def test_the_other_label_is_not_the_positive_one(archive, tmp_path) -> None:
    """A column named like a label holds that label's probability, whichever is positive."""
    template(archive, "intact", "0")
    submitted(archive, tmp_path / "sub.csv")
    proba, _ = of_system(archive)
    frame = pandas.read_csv(tmp_path / "sub.csv")
    assert abs(frame.intact[0] - proba[0, 0]) <= 1e-6


@pytest.mark.parametrize("cell", ["0.3333", "0", "1", ""])
def test_kaggle_a_column_for_each_of_several_labels(several, tmp_path, cell) -> None:
    archive = several
    template(archive, "", cell, "destroyed", "intact", "damaged")
    submitted(archive, tmp_path / "sub.csv")
    frame = pandas.read_csv(tmp_path / "sub.csv")
    proba, decided = of_system(archive)
    assert np.abs(frame[list(THREE)].to_numpy() - proba).max() <= 1e-6
    truth = archive.write_csv(
        "truth.csv", [["image", "label"], *zip(archive.test_ids, archive.test_truth, strict=True)]
    )
    words = [archive.folder, tmp_path / "sub.csv", "--truth", truth, "--json"]
    figures = json.loads(run("score", *words).stdout)
    assert figures["accuracy"] == pytest.approx(
        np.mean([a == b for a, b in zip(decided, archive.test_truth, strict=True)])
    )
    right = [THREE.index(label) for label in archive.test_truth]
    expected = -np.log(frame[list(THREE)].to_numpy()[range(9), right]).mean()
    assert figures["probabilities"]["log_loss"] == pytest.approx(expected, abs=1e-6)


def test_numbers_of_several_labels_in_one_column_are_refused(several, tmp_path) -> None:
    archive = several
    template(archive, "target", "0.5")
    line = refused(archive, tmp_path / "sub.csv")
    assert "form.csv" in line and "of which label" in line and ", ".join(THREE) in line


@pytest.mark.proves("answers")
def test_integers_that_nothing_explains_are_refused(archive, tmp_path) -> None:
    template(archive, "target", "0")
    line = refused(archive, tmp_path / "sub.csv")
    assert "holds integers ('0')" in line
    assert "under [submission]" in line
    assert line.endswith('for example labels = { "intact" = 0, "destroyed" = 1 }')


@pytest.mark.parametrize(
    ("column", "cell"), [("target", "0"), ("target", ""), ("target", "0.0"), ("destroyed", "1")]
)
def test_integers_by_the_tasks_own_table(known, tmp_path, column, cell) -> None:
    template(known, column, cell)
    known.set(MAPPED)
    done = submitted(known, tmp_path / "sub.csv")
    assert f"the column {column!r} gets '0' for 'intact', '1' for 'destroyed'" in done.stderr
    frame = pandas.read_csv(tmp_path / "sub.csv")
    _, labels = of_system(known)
    assert list(frame[column]) == [int(label == "destroyed") for label in labels]
    figures = json.loads(run("score", known.folder, tmp_path / "sub.csv", "--json").stdout)
    right = np.mean([a == b for a, b in zip(labels, known.test_truth, strict=True)])
    assert figures["accuracy"] == pytest.approx(right) and figures["probabilities"] is None


def test_labels_that_are_integers_need_no_table(copied, tmp_path) -> None:
    archive = copied(labels=("0", "1"), test=9)
    template(archive, "target", "0")
    submitted(archive, tmp_path / "sub.parquet")
    frame = pandas.read_parquet(tmp_path / "sub.parquet")
    assert frame.target.dtype == np.int64
    assert [str(cell) for cell in frame.target] == of_system(archive)[1]


def test_words_of_the_organisers(archive, tmp_path) -> None:
    template(archive, "target", "no")
    line = refused(archive, tmp_path / "sub.csv")
    assert "line 2: 'no'" in line and "under [submission]" in line
    archive.set('[submission.labels]\nintact = "no"\ndestroyed = "yes"\n')
    submitted(archive, tmp_path / "sub.csv")
    frame = pandas.read_csv(tmp_path / "sub.csv")
    assert list(frame.target == "yes") == [label == "destroyed" for label in of_system(archive)[1]]


def test_columns_without_a_template_may_name_a_label(archive, tmp_path) -> None:
    archive.set('[submission]\ncolumns = ["image", "destroyed"]\n')
    done = submitted(archive, tmp_path / "sub.csv")
    assert "the column 'destroyed' gets the probability of 'destroyed'" in done.stderr
    frame = pandas.read_csv(tmp_path / "sub.csv")
    proba, _ = of_system(archive)
    assert np.nanmax(np.abs(frame.destroyed - proba[:, 1])) <= 1e-6
    assert frame.destroyed.between(0, 1).all()


@pytest.mark.parametrize("mapped", [False, True])
def test_a_zip_for_codabench(known, tmp_path, mapped) -> None:
    template(known, "label", "0" if mapped else "intact")
    if mapped:
        known.set(MAPPED)
    submitted(known, tmp_path / "sub.zip")
    with zipfile.ZipFile(tmp_path / "sub.zip") as packed:
        rows = list(csv.reader(packed.read("form.csv").decode().splitlines()))
    _, labels = of_system(known)
    words = {"intact": "0", "destroyed": "1"} if mapped else {name: name for name in labels}
    assert [row[1] for row in rows[1:]] == [words[label] for label in labels]
    figures = json.loads(run("score", known.folder, tmp_path / "sub.zip", "--json").stdout)
    right = np.mean([a == b for a, b in zip(labels, known.test_truth, strict=True)])
    assert figures["accuracy"] == pytest.approx(right)


ANSWERS = {
    "names": (["id", "label"], ["intact", "destroyed"]),
    "names in other case": (["id", "label"], ["INTACT", "Destroyed "]),
    "integers": (["id", "label"], ["0", "1"]),
    "floats": (["id", "label"], ["0.0", "1.0"]),
    "probabilities": (["id", "destroyed"], ["0.25", "0.75"]),
    "numbers": (["id", "prediction"], ["0.25", "0.75"]),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_given_answers_in_any_form(archive, tmp_path, kind) -> None:
    header, cells = ANSWERS[kind]
    pairs = zip(archive.test_ids, archive.test_truth, strict=True)
    rows = [[id_, cells[label == "destroyed"]] for id_, label in pairs]
    given = archive.write_csv("given.csv", [header, *rows])
    archive.set(MAPPED)
    done = run("submit", archive.folder, "--answers", given, "-o", tmp_path / "sub.csv")
    assert done.exit_code == 0, done.stderr
    frame = pandas.read_csv(tmp_path / "sub.csv")
    assert list(frame.label) == [int(label == "destroyed") for label in archive.test_truth]
    assert ("taken above 0.5" in done.stderr) == (kind in ("probabilities", "numbers"))
    assert ("'Destroyed ' as 'destroyed' (12)" in done.stderr) == (kind == "names in other case")


@pytest.mark.parametrize("swapped", [False, True])
def test_given_probabilities_that_contradict_the_labels_are_said(
    archive, tmp_path, swapped
) -> None:
    pairs = zip(archive.test_ids, archive.test_truth, strict=True)
    rows = [[id_, label, *_sure(label, swapped)] for id_, label in pairs]
    given = archive.write_csv("given.csv", [["id", "label", "p_intact", "p_destroyed"], *rows])
    done = run("submit", archive.folder, "--answers", given, "-o", tmp_path / "sub.csv")
    assert done.exit_code == 0, done.stderr
    assert ("changed places" in done.stderr) == swapped


def _sure(label: str, swapped: bool) -> list[float]:
    """Probabilities of intact and destroyed."""
    return [0.9, 0.1] if (label == "intact") != swapped else [0.1, 0.9]


def test_given_probabilities_for_a_template_of_probabilities(archive, tmp_path) -> None:
    template(archive, "destroyed", "0.5")
    rows = [[id_, "0.123456789"] for id_ in archive.test_ids]
    given = archive.write_csv("given.csv", [["id", "destroyed"], *rows])
    done = run("submit", archive.folder, "--answers", given, "-o", tmp_path / "sub.csv")
    assert done.exit_code == 0, done.stderr
    assert set(pandas.read_csv(tmp_path / "sub.csv", dtype=str).destroyed) == {"0.123456789"}


@pytest.mark.parametrize(
    ("header", "cell", "words"),
    [
        (["id", "label"], "intact", ["every label's probability", "p_intact, p_destroyed"]),
        (["id", "destroyed"], "1.5", ["line 2", "'1.5'", "no probability"]),
        (["id", "label"], "1", ["holds integers", "under [submission]"]),
    ],
    ids=["labels", "beyond one", "integers"],
)
def test_given_answers_that_cannot_be_used(archive, tmp_path, header, cell, words) -> None:
    template(archive, "destroyed", "0.5")
    given = archive.write_csv("given.csv", [header, *([id_, cell] for id_ in archive.test_ids)])
    line = refused(archive, tmp_path / "sub.csv", "--answers", given)
    assert all(word in line for word in words), line


def test_a_missing_probability_is_named(archive, tmp_path) -> None:
    rows = [[id_, "" if at == 4 else "0.5"] for at, id_ in enumerate(archive.test_ids)]
    given = archive.write_csv("given.csv", [["id", "destroyed"], *rows])
    line = refused(archive, tmp_path / "sub.csv", "--answers", given)
    assert "given.csv line 6" in line and "probability is missing" in line


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".zip", ".parquet", ".xlsx", ".jsonl"])
def test_what_predict_writes_can_be_submitted_and_scored(known, tmp_path, ending) -> None:
    """Rows without an image come back as what the task answers for them."""
    predicted = tmp_path / f"p{ending}"
    assert run("predict", known.folder, "--system", "mean", "-o", predicted).exit_code == 0
    done = run("submit", known.folder, "--answers", predicted, "-o", tmp_path / "sub.csv")
    assert "2 rows cannot be read and are answered 'intact'" in done.stderr
    submitted(known, tmp_path / "own.csv")
    assert (tmp_path / "sub.csv").read_text() == (tmp_path / "own.csv").read_text()


def test_damaged_zips_are_one_line(known, tmp_path) -> None:
    file = tmp_path / "bad.zip"
    file.write_bytes(b"PK\x03\x04 nothing")
    line = refused(known, tmp_path / "sub.csv", "--answers", file)
    assert "damaged or cut zip" in line
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("a.csv", "id,label\n")
        packed.writestr("b.csv", "id,label\n")
    assert "is a zip file and no table" in refused(known, tmp_path / "sub.csv", "--answers", file)


@pytest.mark.proves("hostile")
def test_a_zip_bomb_is_refused(known, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("archiveprobe.task.table_zip.TABLE_BYTES", 5_000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.csv", "0" * 1_000_000)
    line = refused(known, tmp_path / "sub.csv", "--answers", tmp_path / "bomb.zip")
    assert "more than 5000 bytes unpacked" in line


def test_an_image_without_an_embedding_gets_the_labels_shares(draw, tmp_path) -> None:
    """Its file can be read, so a spot check may fall on it."""
    archive = draw(known=48, test=6)
    archive.add_backbone("other", failed=range(49, 54))
    run_probes(archive.task, Options(probes=("ridge",), features=("other",), workers=1))
    template(archive, "destroyed", "0.5")
    done = run("submit", archive.folder, "--system", "ridge-other", "-o", tmp_path / "sub.csv")
    assert done.exit_code == 0, done.stderr
    assert "5 cannot be read" in done.stdout and "5 bad_embedding" in done.stdout
    assert list(pandas.read_csv(tmp_path / "sub.csv").destroyed[1:]) == [0.5] * 5


def test_columns_that_nothing_is_put_into_are_named(archive, tmp_path) -> None:
    template(archive, "destroyed", "0.5", "Usage", "weight")
    done = submitted(archive, tmp_path / "sub.csv")
    assert "note: kept as in the template: 'Usage', 'weight'" in done.stderr
    assert set(pandas.read_csv(tmp_path / "sub.csv").weight) == {0.5}


def test_what_the_columns_hold_is_in_the_record(archive, tmp_path) -> None:
    template(archive, "destroyed", "0.5")
    record = json.loads(submitted(archive, tmp_path / "sub.csv", "--json").stdout)
    assert record["columns"] == {"destroyed": "the probability of 'destroyed'"}


def test_probabilities_that_do_not_add_up_are_named(known, tmp_path) -> None:
    rows = [[id_, "0.9", "0.9" if at < 3 else "0.1"] for at, id_ in enumerate(known.test_ids)]
    file = known.write_csv("given.csv", [["id", "p_intact", "p_destroyed"], *rows])
    done = run("score", known.folder, file)
    assert done.exit_code == 0 and "3 rows do not add up to 1" in done.stderr


def picture(seed: int) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (4 + 8 * (seed % 2), 5, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


def test_a_kaggle_competition_from_its_files_to_the_submission(tmp_path) -> None:
    """Two tables, integers as labels, ids without endings, and probabilities to hand in."""
    folder = tmp_path / "kaggle"
    (folder / "images").mkdir(parents=True)
    for at in range(30):
        (folder / "images" / f"{at:03}.png").write_bytes(picture(at))
    train = [f"{at:03},{at % 2}" for at in range(24)]
    (folder / "train.csv").write_text("\n".join(["id,label", *train]))
    (folder / "test.csv").write_text("\n".join(["id", *(f"{at:03}" for at in range(24, 30))]))
    sample = [f"{at:03},0.5" for at in (29, 24, 25, 28, 27, 26)]
    (folder / "sample_submission.csv").write_text("\n".join(["id,label", *sample]))
    assert run("init", folder).exit_code == 0
    file = folder / "task.toml"
    text = file.read_text().replace("= 5\n", "= 2\n").replace("crops6", "center")
    file.write_text(text)
    for words in (["embed", folder, "--workers", "0"], ["probe", folder, "--probe", "ridge"]):
        done = run(*words)
        assert done.exit_code == 0, done.stderr
    done = run("submit", folder, "--system", "ridge-hog", "-o", tmp_path / "submission.csv")
    assert done.exit_code == 0, done.stderr
    assert "the column 'label' gets the probability of '1'" in done.stderr
    frame = pandas.read_csv(tmp_path / "submission.csv", dtype={"id": str})
    assert list(frame.id) == [line.split(",")[0] for line in sample]
    assert frame.label.between(0, 1).all() and frame.label.nunique() > 1
    run("predict", folder, "--system", "ridge-hog", "-o", tmp_path / "p.csv")
    own = pandas.read_csv(tmp_path / "p.csv", dtype={"id": str}).set_index("id")
    assert list(frame.label) == list(own.p_1[frame.id])


def test_the_truth_may_hold_integers_too(archive, tmp_path) -> None:
    """Kaggle's solution.csv has what the submission has."""
    archive.set(MAPPED)
    cells = [str(int(label == "destroyed")) for label in archive.test_truth]
    pairs = list(zip(archive.test_ids, cells, strict=True))
    truth = archive.write_csv("truth.csv", [["image", "label"], *pairs])
    file = archive.write_csv("given.csv", [["image", "label"], *pairs])
    done = run("score", archive.folder, file, "--truth", truth, "--json")
    assert json.loads(done.stdout)["accuracy"] == 1.0


NAMES = ["label", "destroyed", "Intact", "p_intact", "target", "weight"]
ODD = ["", "0", "1", "0.5", "1.0", "-1", "intact", "DESTROYED", "yes", "nan", "1e400", "\u0661"]


@pytest.mark.proves("answers")
@settings(
    deadline=None,
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True).flatmap(
        lambda names: st.permutations(["id", *names])
    ),
    cells=st.lists(st.sampled_from(ODD), min_size=1, max_size=4),
    mapped=st.booleans(),
)
def test_any_template_is_filled_as_it_is_said_or_refused(archive, names, cells, mapped) -> None:
    """Whatever a column is said to hold can be read out of it again."""
    ids = archive.test_ids
    columns = [[cells[(at + row) % len(cells)] for row in range(len(ids))] for at in range(4)]
    filled = dict(zip(names, columns, strict=False)) | {"id": ids}
    lines = [names, *(list(row) for row in zip(*filled.values(), strict=True))]
    archive.write_csv("form.csv", lines)
    words = {"intact": 0, "destroyed": 1} if mapped else {}
    form = Submission(template="form.csv", labels=words)
    task = archive.task.model_copy(update={"submission": form})
    rows = {row.id: row for row in read_rows(task)}
    try:
        found, order = wanted(task, rows)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
        return
    proba = {"intact": "0.25", "destroyed": "0.75"}
    written = [found.fill(id_, "destroyed", proba) for id_ in order]
    again = read_back(task, found, order, [names, *written])
    assert again.ids == ids
    if found.content.label is not None:
        assert set(again.labels) == {"destroyed"}
    if found.content.proba:
        assert np.allclose(again.proba, [0.25, 0.75])
    kept = set(names) - {found.content.id, found.content.label, *found.content.proba}
    for name in kept:
        assert [line[names.index(name)] for line in written] == filled[name]
