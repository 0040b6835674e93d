"""Answers from a file, in the form of a task's submission."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from archiveprobe import cli
from archiveprobe.predict.given_answers import submit_answers


@pytest.fixture
def answers(archive, tmp_path: Path) -> Path:
    """Right answers for the rows to predict, in another order, with a probability."""
    lines = ["id,label,p_intact,p_destroyed"]
    pairs = [*zip(archive.test_ids, archive.test_truth, strict=True)]
    for id_, label in reversed(pairs):
        lines.append(f"{id_},{label},0.25,0.75")
    file = tmp_path / "answers.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_answers_take_the_templates_form(archive, answers, rows_of, tmp_path: Path) -> None:
    header = ["id", "category", "p_destroyed", "note"]
    rows = [[id_, "", "", f"n{at}"] for at, id_ in enumerate(archive.test_ids)]
    task = archive.template([header, *rows])
    done = submit_answers(task, answers, tmp_path / "out.csv", spreadsheet_safe=True)
    found = rows_of(tmp_path / "out.csv")
    assert found[0] == header
    assert [row[0] for row in found[1:]] == archive.test_ids
    assert [row[1] for row in found[1:]] == archive.test_truth
    assert {row[2] for row in found[1:]} == {"0.75"} and found[3][3] == "n2"
    assert done.rows == 24 and done.labels == {"intact": 12, "destroyed": 12}
    assert done.copy is not None and done.copy.is_file()


FAULTS: list[tuple[Callable[[list[str]], list[str]], list[str]]] = [
    (lambda lines: lines[:-2], ["lacks 2 of the rows to predict", "add them"]),
    (lambda lines: [*lines, "elsewhere.jpg,intact,,"], ["1 of 25 ids are not in", "elsewhere"]),
    (lambda lines: [*lines, lines[-1]], ["072.jpg"]),
    (lambda lines: [*lines[:-1], "072.jpg,intct,,"], ["line 25", "'intct'", "intact, destroyed"]),
    (lambda lines: [line.split(",")[0] for line in lines], ["no column for the label"]),
]


@pytest.mark.parametrize(("change", "told"), FAULTS)
def test_a_fault_is_one_line_and_writes_nothing(
    archive, answers, fault_of, tmp_path: Path, change, told
) -> None:
    answers.write_text("\n".join(change(answers.read_text().splitlines())) + "\n")
    file = tmp_path / "out.csv"
    fault_of(lambda: submit_answers(archive.task, answers, file), *told)
    assert not file.exists()


def test_the_command_takes_a_system_or_answers(archive, answers, tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    words = ["submit", str(archive.folder), "-o", str(file)]
    for given in ([], ["--system", "mean", "--answers", str(answers)]):
        done = CliRunner().invoke(cli.main, [*words, *given])
        assert done.exit_code == 2 and "name one of --system and --answers" in done.stderr
    done = CliRunner().invoke(cli.main, [*words, "--answers", str(answers), "--json"])
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == 24 and file.is_file()
