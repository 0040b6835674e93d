"""`predict --images` from the command line: a folder of parts or a table, in shares, again."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from unit_archive import archive_of, fit, picture, pictured_task

import archiveprobe as ap
from archiveprobe.archive import units
from archiveprobe.base import files
from archiveprobe.cli import main
from archiveprobe.predict.answers import table
from archiveprobe.predict.drivers import local

BROKEN = {2: (b"<!doctype html>", "html_not_image"), 7: (b"", "empty_file")}
COUNT = 11


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    task = pictured_task(tmp_path_factory.mktemp("archives") / "task")
    fit(task)
    return task.folder


@pytest.fixture
def task(fitted: Path, tmp_path: Path) -> Path:
    shutil.copytree(fitted, tmp_path / "task")
    return tmp_path / "task"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    contents = [BROKEN[at][0] if at in BROKEN else picture(100 + at) for at in range(COUNT)]
    return archive_of(tmp_path / "new", contents)


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "UNIT_IMAGES", 2)


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [*map(str, words)])


def predict(task: Path, new: Path, out: Path, *more: object, system: str = "ridge-hog") -> Result:
    words = ("--images", new, "-o", out, "--workers", 0, "--device", "cpu")
    return run("predict", task, "--system", system, *words, *more)


def ok(done: Result) -> Any:
    assert done.exit_code == 0, (done.stderr, done.exception)
    return json.loads(done.stdout) if done.stdout.startswith("{") else done.stdout


def refused(done: Result, *words: str) -> None:
    assert done.exit_code == 1 and not done.stdout, (done.stdout, done.exception)
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ") and all(word in line for word in words), line


def rows_of(out: Path) -> pd.DataFrame:
    return duckdb.read_parquet(f"{out}/parts/*.parquet").df()


@pytest.mark.proves("archive")
def test_a_folder_of_parts(task, new, tmp_path) -> None:
    done = ok(predict(task, new, tmp_path / "out", "--json"))
    assert done["file"] == str(tmp_path / "out") and done["copy"] is None
    assert (done["rows"], done["images"], done["complete"]) == (COUNT, COUNT, True)
    assert done["status"] == {"ok": 9, "html_not_image": 1, "empty_file": 1}
    assert done["unreadable"] == 2 and sum(done["labels"].values()) == 9
    rows = rows_of(tmp_path / "out")
    assert rows.id.tolist() == [f"{at:04}.png" for at in range(COUNT)]
    assert rows.status.tolist() == [BROKEN.get(at, (b"", "ok"))[1] for at in range(COUNT)]
    lost = rows[rows.status != "ok"]
    assert lost[["label", "p_bright", "p_dark", "spread"]].isna().to_numpy().all()
    names = ["id", "digest", "status", "label", "p_bright", "p_dark", "spread"]
    assert list(rows.columns) == [*names, "backbone", "system"]
    record = json.loads((tmp_path / "out" / "answers.json").read_text())
    assert record["system"] == "ridge-hog" and record["counts"]["labels"] == done["labels"]
    assert record["source"]["place"] == str(new)
    again = predict(task, new, tmp_path / "out")
    assert "answered already" in again.stderr and ok(again).startswith(f"{COUNT} rows by")


@pytest.mark.proves("archive")
def test_shares_give_the_rows_of_one_run(task, new, tmp_path) -> None:
    ok(predict(task, new, tmp_path / "one"))
    for at, k in enumerate((2, 3, 1)):
        done = ok(predict(task, new, tmp_path / "shares", "--units", f"{k}/3", "--json"))
        assert done["complete"] is (at == 2)
        assert (done["unreadable"] is None) is (at < 2)
    files = [path.name for path in sorted((tmp_path / "shares" / "parts").iterdir())]
    assert files == ["00000000-00000005.parquet", "_commits.jsonl"]
    assert rows_of(tmp_path / "shares").equals(rows_of(tmp_path / "one"))
    parts = [tmp_path / name / "parts" / files[0] for name in ("one", "shares")]
    assert parts[0].read_bytes() == parts[1].read_bytes()


def test_a_share_says_how_much_of_the_whole_is_done(task, new, tmp_path) -> None:
    said = ok(predict(task, new, tmp_path / "out", "--units", "1/2"))
    assert said.startswith(f"6 of {COUNT} images by ridge-hog in {tmp_path / 'out'} (55%)")
    more = predict(task, new, tmp_path / "out", "--units", "2/4")
    assert "3 of 6 units are done, 2 to answer now" in more.stderr
    ok(predict(task, new, tmp_path / "out"))
    assert len(rows_of(tmp_path / "out")) == COUNT


@pytest.mark.proves("archive")
def test_the_folder_of_other_answers_is_refused(task, new, tmp_path) -> None:
    out = tmp_path / "out"
    ok(predict(task, new, out, "--units", "1/2"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    refused(predict(task, new, out, system="lda-hog"), "another system: ridge-hog, now lda-hog")
    other = archive_of(tmp_path / "other", [picture(1)])
    refused(predict(task, other, out), "another source of images", str(new), str(other), "-o")
    ok(run("threshold", task, "--system", "ridge-hog", "--set", 0.123))
    refused(predict(task, new, out), "state of the system", "name another folder")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    refused(predict(task, new, tmp_path / "full"), "holds other files ('mine.txt')")
    refused(predict(task, new, task / "work" / "out"), "only products of the task")
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def interrupt_after(monkeypatch: pytest.MonkeyPatch, receipts: int) -> None:
    whole = local.run

    def run(work: Any, index: Any, todo: Any, commit: Any, **how: Any) -> None:
        whole(work, index, list(todo)[:receipts], commit, **how)
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "run", run)


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet", ".json", ".zip", ".xlsx"])
def test_a_table_goes_on_where_it_was_interrupted(task, new, tmp_path, monkeypatch, ending) -> None:
    out = tmp_path / f"answers{ending}"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        assert predict(task, new, out).exit_code == 130
    assert not out.exists() and "interrupted `predict`" in run("cache", "prune", task).stderr
    done = predict(task, new, out, "--json")
    assert "3 of 6 units are done, 3 to answer now" in done.stderr
    assert ok(done)["rows"] == COUNT and out.is_file()
    assert [path.name for path in (task / "work" / "answers").iterdir()] == ["LOCK"]
    rows = ap.open(task).predict("ridge-hog", new, workers=0, device="cpu")
    found = duckdb_rows(out) if ending in (".csv", ".jsonl", ".parquet") else None
    assert found is None or found == list(zip(rows.id, rows.status, strict=True))


def duckdb_rows(file: Path) -> list[tuple[str, str]]:
    reader = {".csv": duckdb.read_csv, ".jsonl": duckdb.read_json, ".parquet": duckdb.read_parquet}
    return reader[file.suffix](str(file)).project("id, status").fetchall()


def test_images_that_came_meanwhile_are_in_the_table(task, new, tmp_path, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        predict(task, new, tmp_path / "answers.csv")
    (new / "later.png").write_bytes(picture(200))
    done = predict(task, new, tmp_path / "answers.csv", "--json")
    assert "other images than when a run was interrupted" in done.stderr
    assert ok(done)["rows"] == COUNT + 1


def test_streamed_tables_hold_what_whole_ones_hold(task, new, tmp_path, monkeypatch) -> None:
    for name in ("=cmd.png", 'a,"b".png', "line\nend.png", "tab\t.png"):
        (new / name).write_bytes(picture(3))
    ok(predict(task, new, tmp_path / "a.csv", "--spreadsheet-safe"))
    ok(predict(task, new, tmp_path / "a.jsonl"))
    ok(predict(task, new, tmp_path / "a.json"))
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    whole = json.loads((tmp_path / "a.json").read_text())
    assert [json.loads(line) for line in lines] == whole
    with (tmp_path / "a.csv").open(newline="") as stream:
        found = list(csv.DictReader(stream))
    assert [row["id"] for row in found] == [row["id"] for row in whole]
    assert [row["p_dark"] and float(row["p_dark"]) for row in found] == [
        row["p_dark"] or "" for row in whole
    ]
    safe = (tmp_path / "a.spreadsheet.csv").read_text()
    assert '"\'=cmd.png"' in safe
    monkeypatch.setattr(table, "_text_of", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    refused(predict(task, new, tmp_path / "b.csv"), "b.csv", "No space", "make space")
    assert not (tmp_path / "b.csv").exists() and not list(tmp_path.glob(".tmp*"))


def test_what_the_old_way_left_is_named(task) -> None:
    assert run("cache", "prune", task).stderr.splitlines() == ["nothing to prune"]
    (task / "work" / "new").mkdir()
    assert (
        f"{task / 'work' / 'new'}, which nothing reads: delete"
        in run("cache", "prune", task).stderr
    )


@pytest.mark.proves("disk")
def test_a_disk_that_is_full_at_a_part(task, new, tmp_path, monkeypatch) -> None:
    """In the thread that writes parts, or where the log is written."""
    for name in ("write_new", "append_durable"):
        out, whole, calls = tmp_path / name, getattr(files, name), []

        def full(*given: Any, whole: Any = whole, calls: list = calls) -> Any:
            calls.append(given)
            if len(calls) > 2:
                raise OSError(28, "No space left on device")
            return whole(*given)

        with monkeypatch.context() as patch:
            patch.setattr(files, name, full)
            refused(predict(task, new, out), str(out), "No space left", "free some space")
        done = predict(task, new, out)
        assert "of 6 units are done" in done.stderr and ok(done)
        assert rows_of(out).id.is_unique and len(rows_of(out)) == COUNT


def test_usage(task, new, tmp_path) -> None:
    for share in ("0/2", "3/2", "x"):
        done = predict(task, new, tmp_path / "out", "--units", share)
        assert done.exit_code == 2 and "write K/N" in done.stderr
    refused(predict(task, new, tmp_path / "a.csv", "--units", "1/2"), "shares need a folder")
    refused(predict(task, new, tmp_path / "a.cvs"), "'.cvs'", "end it in one of")
    refused(run("predict", task, "--system", "ridge-hog", "-o", tmp_path / "out"), "no ending")
    assert not (tmp_path / "out").exists()


def test_the_api_reads_a_folder_part_by_part(task, new, tmp_path) -> None:
    ok(predict(task, new, tmp_path / "out"))
    opened = ap.open(task)
    frames = list(opened.answers(tmp_path / "out"))
    rows = pd.concat(frames, ignore_index=True)
    expected = opened.predict("ridge-hog", new, workers=0, device="cpu")
    pd.testing.assert_frame_equal(rows[expected.columns.tolist()], expected)
    assert rows.label.cat.categories.tolist() == ["bright", "dark"]
    with pytest.raises(ap.InputError, match="no folder of answers"):
        next(iter(opened.answers(new)))
