"""The file of mistakes: which rows, in which order, and what it says of each."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stripes import done, run

import archiveprobe as ap
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.system_store import load_run

ENDINGS = (".csv", ".tsv", ".zip", ".xlsx", ".parquet", ".json", ".jsonl")
HEADER = (
    "id path label answer p_intact p_destroyed confidence folds repeats_wrong repeats group split "
    "status"
).split()


def lines_of(rows: list[list[str]]) -> list[dict[str, str]]:
    header, *lines = rows
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_mistakes_are_the_rows_that_are_wrong_out_of_fold(archive, rows_of, tmp_path) -> None:
    file = tmp_path / "m.csv"
    done("mistakes", archive.folder, "--system", "ridge-hog", "-o", file)
    rows = rows_of(file)
    assert rows[0] == HEADER
    lines = lines_of(rows)
    oof = ap.open(archive.folder).oof("ridge-hog").set_index("id")
    wrong = oof[~oof.correct]
    assert {line["id"] for line in lines} == set(wrong.index) and len(lines) == len(wrong) > 1
    stored = load_run(archive.task, "ridge-hog").predictions()
    dataset = load_dataset(archive.task)
    place = {id_: at for at, id_ in enumerate(stored.ids.tolist())}
    for line in lines:
        at, said = place[line["id"]], oof.loc[line["id"]]
        assert (line["label"], line["answer"]) == (said.label, said.decision)
        assert line["label"] != line["answer"] and line["path"] == line["id"]
        assert line["folds"].split() == [str(fold) for fold in stored.fold[:, at]]
        right = stored.decision[:, at] == stored.labels[at]
        assert (int(line["repeats_wrong"]), int(line["repeats"])) == ((~right).sum(), 2)
        assert int(line["group"]) == dataset.groups[at] and line["split"] == "train"
        if line["status"] == "ok":
            assert float(line["p_intact"]) == pytest.approx(said.p_intact, abs=1e-6)
            assert line["confidence"] == line[f"p_{line['answer']}"]
    known = [float(line["confidence"]) for line in lines if line["confidence"]]
    assert known == sorted(known, reverse=True)


def test_an_image_that_cannot_be_read_is_listed_last_with_its_status(archive, tmp_path) -> None:
    file = tmp_path / "m.json"
    report = done("mistakes", archive.folder, "--system", "mean", "-o", file)
    # The third row is broken; its label is not the answer for unreadable images.
    assert archive.truth[3] == "destroyed"
    last = json.loads(file.read_text("utf-8"))[-1]
    assert (last["id"], last["status"]) == (archive.ids[3], "truncated")
    assert last["label"] == "destroyed" and last["answer"] == "intact"
    assert [last[name] for name in ("p_intact", "p_destroyed", "confidence")] == [None] * 3
    assert "of 72 labelled rows wrong, of them 1 image that cannot be read: " in report.stdout


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_form_of_file_has_the_same_rows(archive, tmp_path: Path, ending: str) -> None:
    from archiveprobe.task.tables.table import read_table

    file, plain = tmp_path / f"m{ending}", tmp_path / "plain.csv"
    words = ("mistakes", archive.folder, "--system", "ridge-hog", "-o")
    done(*words, plain)
    record = json.loads(done(*words, file, "--json").stdout)
    found, expected = read_table(file), read_table(plain)
    assert [row["id"] for row in found.rows] == [row["id"] for row in expected.rows]
    assert len(found.rows) == record["rows"] == sum(pair["rows"] for pair in record["mistakes"])
    assert record["snapshot"] == load_dataset(archive.task).snapshot_digest


def test_hostile_names_come_back_and_no_cell_of_the_copy_is_a_formula(draw, tmp_path) -> None:
    odd = ('=1+1,"x"', "@a\nb", "\u202egpj.exe", "-x" * 100, "<script>", "a;b\tc")
    archive = draw(known=36, name=lambda at: f"{odd[at % 6]} {at}.jpg")
    archive.fit(probes=("ridge", "lda"))
    file = tmp_path / "m.csv"
    words = ("--system", "ridge-hog", "-o", file, "--spreadsheet-safe")
    done("mistakes", archive.folder, *words)
    ids = pd.read_csv(file, dtype=str, keep_default_na=False).id
    oof = ap.open(archive.folder).oof("ridge-hog")
    assert set(ids) == set(oof[~oof.correct].id) and len(ids)
    safe = pd.read_csv(tmp_path / "m.spreadsheet.csv", dtype=str, keep_default_na=False)
    assert not safe.id.str.startswith(("=", "@", "-")).any() and len(safe) == len(ids)


def test_a_system_without_mistakes_leaves_a_file_without_rows(archive, rows_of, tmp_path) -> None:
    from dataclasses import replace

    from archiveprobe.evaluate.system_store import save_run

    stored = load_run(archive.task, "ridge-hog")
    predictions = stored.predictions()
    right = replace(predictions, decision=np.stack([predictions.labels] * 2))
    save_run(archive.task, "ridge-hog", stored.record, right, stored.arrays())
    found = done("mistakes", archive.folder, "--system", "ridge-hog", "-o", tmp_path / "m.csv")
    assert rows_of(tmp_path / "m.csv") == [HEADER]
    assert "ridge-hog gets 0 of 72 labelled rows wrong: " in found.stdout


@pytest.mark.parametrize(
    ("name", "what"), [("labels.csv", "the table of the task"), ("m.doc", "names no form")]
)
def test_what_is_the_tasks_own_stays(archive, name: str, what: str) -> None:
    before = (archive.folder / "labels.csv").read_bytes()
    file = archive.folder / name
    found = run("mistakes", archive.folder, "--system", "ridge-hog", "-o", file)
    assert found.exit_code == 1 and not found.stdout and what in found.stderr
    assert (archive.folder / "labels.csv").read_bytes() == before


def test_a_system_out_of_date_is_refused(archive, tmp_path) -> None:
    archive.truth[0] = "destroyed"
    archive._write_table()
    found = run("mistakes", archive.folder, "--system", "ridge-hog", "-o", tmp_path / "m.csv")
    assert found.exit_code == 1 and "ridge-hog is out of date (labels" in found.stderr
    assert not (tmp_path / "m.csv").exists()
