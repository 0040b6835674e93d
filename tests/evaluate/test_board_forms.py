"""The leaderboard as CSV, Markdown and LaTeX: hostile names come back, no figure is lost."""

import csv
import io
import re
from dataclasses import fields, replace

import numpy as np
import pytest
from markdown_it import MarkdownIt

from archiveprobe.evaluate.board_forms import FORMS
from archiveprobe.evaluate.leaderboard import Leaderboard, Line, leaderboard

HOSTILE = r"a|b_c&d%e\f#g$h{i}~j^k<l>`m*n[o]"
SIGNS = {
    "textbackslash": "\\",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
}


@pytest.fixture
def board(draw_dataset, draw_system) -> Leaderboard:
    dataset = draw_dataset(n=80)
    systems = [
        draw_system(dataset, name, skill, features=features)
        for name, skill, features in (("one", 2.0, HOSTILE), ("two", 1.0, "x\n\r\u202ey" * 900))
    ]
    return leaderboard(systems, seconds=0.1, snapshot="5a" * 32)


def latex_text(cell: str) -> str:
    """What LaTeX prints of escaped text."""
    assert not re.search(r"(?<!\\)[&%$#_~^<>|]", cell)
    cell = re.sub(r"\\([a-z]+)\{\}", lambda found: SIGNS[found[1]], cell)
    return re.sub(r"\\([&%$#_{}])", r"\1", cell)


def markdown_cells(text: str) -> list[list[str]]:
    tokens = MarkdownIt().enable("table").parse(text)
    cells = [
        "".join(child.content for child in (tokens[at + 1].children or []))
        for at, token in enumerate(tokens)
        if token.type in ("th_open", "td_open")
    ]
    return [cells[at : at + 6] for at in range(0, len(cells), 6)]


def test_csv_has_every_field_in_full_precision(board) -> None:
    rows = list(csv.DictReader(io.StringIO(FORMS["csv"](board, "t"))))
    assert [row["row"] for row in rows] == ["system", "system", "model selection", "majority"]
    assert rows[0].keys() >= {field.name for field in fields(Line)}
    for row, line in zip(rows, [*board.lines, board.selection], strict=False):
        for name, value in line.record().items():
            if isinstance(value, float):
                assert float(row[name]) == value
            else:
                assert row[name] == ("" if value is None else str(value))
    assert [row["system"] for row in rows if row["recommended"] == "True"] == [board.best]
    assert float(rows[-1]["macro_f1"]) == board.majority.macro_f1
    assert {row["snapshot"] for row in rows} == {"5a" * 32}


def test_markdown_shows_names_as_they_are(board) -> None:
    text = FORMS["md"](board, "a|b")
    header, *rows = markdown_cells(text)
    assert header[2] == "macro-F1 [95 % CI]"
    shown = {row[0]: row for row in rows}
    assert list(shown) == [
        *(line.system for line in board.lines),
        "model selection (nested)",
        "majority class",
    ]
    assert shown["one"][1] == HOSTILE
    one = next(line for line in board.lines if line.system == "one")
    assert shown["one"][2] == f"{one.macro_f1:.3f} [{one.low:.3f}, {one.high:.3f}]"
    assert shown["two"][1].split() == ["x"] + ["yx"] * 899 + ["y"]
    assert "5a" * 32 in text and r"Task a\|b, " in text


def test_latex_is_a_tabular_that_prints_names_as_they_are(board) -> None:
    text = FORMS["latex"](board, "line\nend \\end{document}")
    lines = text.splitlines()
    comments = [line for line in lines if line.startswith("%")]
    assert comments[0] == r"% needs \usepackage{booktabs}"
    assert "5a" * 32 in text and lines[: len(comments)] == comments
    assert lines[len(comments)] == r"\begin{tabular}{llrrrr}" and lines[-1] == r"\end{tabular}"
    body = [line for line in lines[len(comments) :] if line.endswith(r" \\")]
    cells = [re.split(r" (?<!\\)& ", line.removesuffix(r" \\")) for line in body]
    assert {len(row) for row in cells} == {6}
    assert latex_text(cells[1][1]) in (HOSTILE, " ".join(["x"] + ["yx"] * 899 + ["y"]))
    assert HOSTILE in [latex_text(row[1]) for row in cells]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_that_a_board_is_partial(board, form: str) -> None:
    partial = "partial: 60 of 80 rows"
    assert partial in FORMS[form](replace(board, partial=partial), "t")
    assert "partial:" not in FORMS[form](board, "t")


@pytest.mark.parametrize("form", FORMS)
def test_one_system_at_chance_has_every_form(draw_dataset, draw_system, form: str) -> None:
    board = leaderboard([draw_system(draw_dataset(), "one", 0.0)], seconds=0)
    assert board.best is None and board.selection is None
    text = FORMS[form](board, "t")
    assert "nan" not in text and text.endswith("\n")
    assert np.isfinite(board.lines[0].low)
