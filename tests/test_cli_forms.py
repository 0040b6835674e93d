"""A table in any form, from the user's side: init, embed, probe, submit, and what they say."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from archiveprobe import cli
from archiveprobe.task.config import load_task
from archiveprobe.task.rows import read_rows

LABELS = ["Zerstörung", "kein Schaden"]
FRAME = pd.DataFrame(
    {
        "Bild": [f"{number:02}.png" for number in range(16)],
        "Label": [*LABELS * 6, *[None] * 4],
        "Split": [*["train"] * 12, *["test"] * 4],
    }
)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number, name in enumerate(FRAME["Bild"]):
        stripes = np.arange(48) // (1 + 5 * (number % 2)) % 2 * 99
        pixels = np.tile(stripes, (48, 1))[..., None] + rng.integers(0, 90, (48, 48, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / name)
    return tmp_path


def hugging_face(frame: pd.DataFrame, file: Path) -> None:
    renamed = frame.rename(columns={"Bild": "file_name"})
    renamed.to_json(file, orient="records", lines=True)


def two_sheets(frame: pd.DataFrame, file: Path) -> None:
    with pd.ExcelWriter(file) as book:
        frame.to_excel(book, sheet_name="Tabelle1", index=False)
        pd.DataFrame({"Notiz": ["x"]}).to_excel(book, sheet_name="Notizen")


FORMS: dict[str, tuple[Callable[[pd.DataFrame, Path], None], str]] = {
    "spreadsheet.xlsx": (
        two_sheets,
        "read from the sheet 'Tabelle1', the first with a table; not read: 'Notizen'",
    ),
    "windows.csv": (
        lambda frame, file: frame.to_csv(file, sep=";", index=False, encoding="cp1252"),
        "not UTF-8, so read as cp1252, which Excel writes: 6 cells are not ASCII, for example 'Zer",
    ),
    "indexed.csv": (
        lambda frame, file: frame.to_csv(file),
        "the first column, which has no name, counts from 0: taken for pandas' index and left out",
    ),
    "wide.csv": (lambda frame, file: frame.to_csv(file, index=False, encoding="utf-16"), ""),
    "labels.parquet": (lambda frame, file: frame.to_parquet(file), ""),
    "labels.json": (lambda frame, file: frame.to_json(file, orient="records"), ""),
    "metadata.jsonl": (hugging_face, ""),
}


@pytest.mark.proves("tables")
@pytest.mark.parametrize("name", FORMS)
def test_init_and_embed_understand_every_form(archive: Path, name: str) -> None:
    write, remark = FORMS[name]
    write(FRAME, archive / name)
    begun = run("init", archive)
    assert begun.exit_code == 0, begun.stderr
    embedded = run("embed", archive, "--workers", "0", "--views", "center")
    assert embedded.exit_code == 0, embedded.stderr
    for said in (begun.stderr, embedded.stderr):
        told = " ".join(said.split())
        assert told.count(f"{name}: {remark}") == 1 if remark else "read as" not in told
    rows = read_rows(load_task(archive))
    assert [row.label or "" for row in rows] == [*LABELS * 6, *[""] * 4]
    assert [row.split for row in rows] == list(FRAME["Split"])


@pytest.mark.proves("tables")
def test_aliases_are_said_once_and_train(archive: Path) -> None:
    FRAME.to_csv(archive / "labels.csv", index=False)
    assert run("init", archive).exit_code == 0
    written = FRAME.replace("kein Schaden", " Kein schaden").replace("test", "TEST")
    written.to_excel(archive / "labels.xlsx", index=False)
    task = archive / "task.toml"
    task.write_text(task.read_text("utf-8").replace("labels.csv", "labels.xlsx"), "utf-8")
    embedded = run("embed", archive, "--workers", "0")
    assert embedded.exit_code == 0, embedded.stderr
    said = " ".join(embedded.stderr.split())
    assert said.count("6 in all: ' Kein schaden' as 'kein Schaden' (6)") == 1
    assert said.count("'TEST' (read as test) 4 rows") == 1
    board = run("probe", archive, "--probe", "ridge")
    assert board.exit_code == 0, board.stderr
    template = pd.DataFrame({"Bild": FRAME["Bild"][12:], "Label": "", "Größe": "1,5"})
    template.to_csv(archive / "form.csv", sep=";", encoding="cp1252", index=False)
    with task.open("a", encoding="utf-8") as stream:
        stream.write('\n[submission]\ntemplate = "form.csv"\n')
    done = run("submit", archive, "--system", "ridge-hog", "-o", archive / "out.csv")
    assert done.exit_code == 0, done.stderr
    assert " ".join(done.stderr.split()).count("form.csv: not UTF-8, so read as cp1252") == 1
    lines = (archive / "out.csv").read_text("utf-8").splitlines()
    assert lines[0] == "Bild;Label;Größe"
    assert [line.split(";")[0] for line in lines[1:]] == list(FRAME["Bild"][12:])


@pytest.mark.proves("tables")
def test_all_faults_of_a_table_are_one_line(archive: Path) -> None:
    FRAME.to_csv(archive / "labels.csv", index=False)
    assert run("init", archive).exit_code == 0
    faulty = FRAME.copy()
    faulty.loc[[2, 4], "Label"] = "Zerstorung"
    faulty.loc[5, "Bild"] = "00.png"
    faulty.loc[7, "Split"] = "tset"
    faulty.to_csv(archive / "labels.csv", index=False)
    result = run("embed", archive)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {archive / 'labels.csv'}: 1 repeated id")
    assert "'Zerstorung' (2, first line 4; did you mean 'Zerstörung'?)" in line
    assert "'00.png' (line 2, line 7)" in line
    assert "'tset' (1, first line 9; did you mean 'test'?)" in line
