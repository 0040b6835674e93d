"""Every ending of -o is a real file of that kind, and gives its cells back."""

import csv
import io
import json
import zipfile
from pathlib import Path

import openpyxl
import pandas
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archiveprobe import cli
from archiveprobe.base.errors import InputError
from archiveprobe.predict.file_forms import encode, file_form, values_of
from archiveprobe.task.tables.table import read_table

ENDINGS = [".csv", ".tsv", ".txt", ".zip", ".parquet", ".xlsx", ".json", ".jsonl"]
STEADY = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.main, [str(word) for word in words])


def fault(*words: str | Path) -> str:
    done = run(*words)
    assert done.exit_code == 1 and not done.stdout, done.output
    (line,) = done.stderr.splitlines()
    return line


# No XML holds control characters, and a line end in it is a newline; a table says so.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
ODD = st.sampled_from(
    [
        "=1+1",
        "@x",
        "+2",
        "-3",
        "'a",
        "#N/A",
        "007",
        "0",
        "-0",
        "1e5",
        "nan",
        "TRUE",
        "a,b;c\td",
        "two\nlines",
        "دمار",
        "_x0041_",
        " x ",
        '"',
        "9" * 30,
        "1.0",
        "null",
        "",
    ]
)
CELLS = st.one_of(ODD, TEXT)
NUMBERS = st.floats(0, 1).map(lambda value: f"{value:.7f}")


@st.composite
def answers(draw) -> list[list[str]]:
    line = st.tuples(CELLS.filter(str.strip), CELLS, st.one_of(NUMBERS, st.just("")))
    return [["id", "label", "p"], *map(list, draw(st.lists(line, min_size=1, max_size=5)))]


@pytest.mark.proves("answers")
@STEADY
@given(answers(), st.sampled_from(ENDINGS))
def test_whatever_is_written_reads_back_to_the_same_cells(tmp_path, cells, ending) -> None:
    file = tmp_path / f"a{ending}"
    file.write_bytes(encode(file_form(file), cells, {"p"}))
    table = read_table(file)
    found = [list(table.columns), *(list(row.values()) for row in table.rows)]
    assert [line[:2] for line in found] == [line[:2] for line in cells]
    assert values_of(found, {"p"}) == values_of(cells, {"p"})
    assert not table.remarks


def test_a_zip_holds_one_csv_and_always_the_same_bytes(archive, tmp_path) -> None:
    done = run("submit", archive.folder, "--system", "mean", "-o", tmp_path / "sub.zip")
    assert done.exit_code == 0 and "the zip holds submission.csv" in done.stderr
    first = (tmp_path / "sub.zip").read_bytes()
    with zipfile.ZipFile(io.BytesIO(first)) as packed:
        assert packed.namelist() == ["submission.csv"]
        lines = packed.read("submission.csv").decode().splitlines()
    assert lines[0] == "image,label" and len(lines) == 25
    run("submit", archive.folder, "--system", "mean", "-o", tmp_path / "sub.zip")
    assert (tmp_path / "sub.zip").read_bytes() == first


def test_the_file_in_a_zip_is_named_by_the_template_or_by_the_zip(archive, tmp_path) -> None:
    archive.template([["image", "label"], *([id_, ""] for id_ in archive.test_ids)])
    for name, member in (("a.zip", "form.csv"), ("b.tsv.zip", "b.tsv"), ("a.b.zip", "form.csv")):
        done = run("submit", archive.folder, "--system", "mean", "-o", tmp_path / name)
        assert done.exit_code == 0, done.stderr
        with zipfile.ZipFile(tmp_path / name) as packed:
            assert packed.namelist() == [member]
            mark = "\t" if member.endswith(".tsv") else ","
            assert packed.read(member).decode().startswith(f"image{mark}label\n")


def test_parquet_and_json_hold_numbers_and_nulls(archive, tmp_path) -> None:
    for ending, read in ((".parquet", pandas.read_parquet), (".json", pandas.read_json)):
        file = tmp_path / f"p{ending}"
        done = run("predict", archive.folder, "--system", "mean", "-o", file)
        assert done.exit_code == 0, done.stderr
        frame = read(file)
        assert list(frame.id) == archive.test_ids
        assert frame.p_intact.dtype == float and frame.p_intact.notna().sum() == 22
        assert frame.label.isna().sum() == 2
        assert set(frame.label.dropna()) <= {"intact", "destroyed"}
    lines = tmp_path / "p.jsonl"
    run("predict", archive.folder, "--system", "mean", "-o", lines)
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [record["id"] for record in records] == archive.test_ids
    assert records[3]["status"] == "truncated" and records[3]["label"] is None


def test_a_workbook_holds_no_formula(fitted, tmp_path) -> None:
    archive = fitted(name=lambda at: f"{'=+-@'[at % 4]}cmd({at}).jpg", test=9)
    file = tmp_path / "p.xlsx"
    done = run("predict", archive.folder, "--system", "mean", "-o", file, "--spreadsheet-safe")
    assert done.exit_code == 0, done.stderr
    sheet = openpyxl.load_workbook(file).active
    column = [cell for (cell,) in sheet.iter_rows(min_row=2, max_col=1)]
    assert [cell.value for cell in column] == archive.test_ids
    assert {cell.data_type for cell in column} == {"s"}
    assert isinstance(sheet["E2"].value, float)
    with (tmp_path / "p.spreadsheet.csv").open(newline="") as stream:
        assert [row[0][0] for row in csv.reader(stream)][1:] == ["'"] * 9


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".txt"])
def test_no_cell_of_the_safe_copy_is_a_formula_whatever_separates_cells(
    fitted, tmp_path, ending
) -> None:
    """A spreadsheet takes the mark of its own language: comma, semicolon or tab."""
    odd = ("=a{}.jpg", "b;=cmd{}.jpg", "c,@d{}.jpg", "\t+e{}.jpg", "＝f{}.jpg", "g\t-h{}.jpg")
    archive = fitted(name=lambda at: odd[at % 6].format(at), test=12)
    file = tmp_path / f"p{ending}"
    done = run("predict", archive.folder, "--system", "mean", "-o", file, "--spreadsheet-safe")
    assert done.exit_code == 0, done.stderr
    text = (tmp_path / f"p.spreadsheet{ending}").read_text()
    for mark in ",;\t":
        cells = [cell for row in csv.reader(text.splitlines(), delimiter=mark) for cell in row]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "＝"))]


@pytest.mark.parametrize("name", ["a.pkl", "a", "a.csv.gz", "a.h5"])
@pytest.mark.parametrize("words", [["submit"], ["predict"]], ids=" ".join)
def test_another_ending_is_refused(archive, tmp_path, name, words) -> None:
    line = fault(*words, archive.folder, "--system", "mean", "-o", tmp_path / name)
    assert name in line and ", ".join(ENDINGS) in line
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("ending", [".tsv", ".txt", ".csv"])
def test_the_mark_between_cells(archive, tmp_path, ending) -> None:
    file = tmp_path / f"a{ending}"
    run("submit", archive.folder, "--system", "mean", "-o", file)
    assert file.read_text().startswith("image\tlabel\n" if ending == ".tsv" else "image,label\n")
    archive.template([["image", "label"], *([id_, ""] for id_ in archive.test_ids)])
    form = archive.folder / "form.csv"
    form.write_text(form.read_text().replace(",", ";"))
    run("submit", archive.folder, "--system", "mean", "-o", file)
    assert file.read_text().startswith("image\tlabel\n" if ending == ".tsv" else "image;label\n")


@pytest.mark.proves("answers")
def test_what_a_form_cannot_hold_is_refused_and_nothing_is_written(archive, tmp_path) -> None:
    odd = [[id_, "", "a\x0bb" if at == 3 else ""] for at, id_ in enumerate(archive.test_ids)]
    archive.template([["image", "label", "note"], *odd])
    words = ["submit", archive.folder, "--system", "mean", "-o"]
    assert "no .xlsx can hold" in fault(*words, tmp_path / "a.xlsx")
    odd[3][2] = "two\r\nlines"
    archive.write_csv("form.csv", [["image", "label", "note"], *odd])
    line = fault(*words, tmp_path / "a.xlsx")
    assert ".xlsx cannot hold" in line and "'note'" in line and "write a .csv" in line
    assert not (tmp_path / "a.xlsx").exists()
    assert run(*words, tmp_path / "a.parquet").exit_code == 0


def test_without_its_library_a_form_is_refused(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install 'archiveprobe\[tables\]'"):
        encode(file_form(Path("a.parquet")), [["id"], ["1"]])
