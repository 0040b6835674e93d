"""The leaderboard for other programs and for papers: CSV, Markdown and LaTeX."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from types import MappingProxyType

from archiveprobe.evaluate.leaderboard import Leaderboard, Line

_HEADER = ("system", "features", "macro-F1 [95 % CI]", "accuracy", "threshold", "optimistic")
_MAJORITY = "majority class"
# Marks that turn the direction of what follows, and line ends and other control characters.
_UNPRINTABLE = re.compile("[\u202a-\u202e\u2066-\u2069]|[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>|~#&$]")
_LATEX = str.maketrans(
    {mark: f"\\{mark}" for mark in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
    }
)


def board_csv(board: Leaderboard, _: str) -> str:
    """Write every field of every line in full precision, empty where a number is undefined.

    `row` says what a line is: a system, the model selection, or the majority class, which is no
    system.
    """
    names = [field.name for field in fields(Line)]
    out = io.StringIO()
    about = {"partial": board.partial or "", "snapshot": board.snapshot}
    columns = ["row", *names, "recommended", *about]
    table = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    table.writeheader()
    for line in board.lines:
        table.writerow(
            {"row": "system", **line.record(), "recommended": line.system == board.best, **about}
        )
    if board.selection is not None:
        table.writerow({"row": "model selection", **board.selection.record(), **about})
    known = {"macro_f1": board.majority.macro_f1, "accuracy": board.majority.accuracy}
    table.writerow({"row": "majority", "system": _MAJORITY, **known, **about})
    return out.getvalue()


def board_markdown(board: Leaderboard, task: str) -> str:
    """Write a table with three decimals, and below it what it is about."""

    def row(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(map(_markdown, cells))} |"

    rule = "|---|---|--:|--:|--:|--:|"
    rows = [row(_HEADER), rule, *map(row, _cells(board))]
    return "\n".join([*rows, "", *map(_markdown, _about(board, task))]) + "\n"


def board_latex(board: Leaderboard, task: str) -> str:
    """Write a tabular of the package booktabs with three decimals, and what it is about."""

    def row(cells: tuple[str, ...]) -> str:
        return f"{' & '.join(map(_latex, cells))} \\\\"

    rows = [row(cells) for cells in _cells(board)]
    count = len(board.lines)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            *(f"% {_printable(sentence)}" for sentence in _about(board, task)),
            r"\begin{tabular}{llrrrr}",
            r"\toprule",
            row(_HEADER),
            r"\midrule",
            *rows[:count],
            r"\midrule",
            *rows[count:],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


FORMS: Mapping[str, Callable[[Leaderboard, str], str]] = MappingProxyType(
    {"csv": board_csv, "md": board_markdown, "latex": board_latex}
)
"""Writes a leaderboard of the task of that name, by the name of the form."""


def _cells(board: Leaderboard) -> Iterator[tuple[str, ...]]:
    """Yield systems, the model selection and the majority class, with three decimals."""
    for line in [*board.lines, *filter(None, [board.selection])]:
        yield (
            line.system,
            line.features,
            f"{_decimals(line.macro_f1)} [{_decimals(line.low)}, {_decimals(line.high)}]",
            _decimals(line.accuracy),
            "-" if line.threshold is None else _decimals(line.threshold),
            _decimals(line.optimistic),
        )
    known = board.majority
    yield _MAJORITY, "", _decimals(known.macro_f1), _decimals(known.accuracy), "-", "-"


def _decimals(value: float) -> str:
    return f"{value:.3f}"


def _about(board: Leaderboard, task: str) -> list[str]:
    """Say what the figures are about, a sentence each."""
    groups = board.lines[0].groups
    best = "no system" if board.best is None else board.best
    return [
        *([] if board.partial is None else [f"Not the whole task: {board.partial}."]),
        f"Task {task}, snapshot {board.snapshot}.",
        f"Nested out-of-fold figures; the 95 % intervals rest on {groups} independent groups.",
        f"Recommended is {best}" + (f": {board.reason}." if board.reason else "."),
    ]


def _printable(text: str) -> str:
    """Put spaces for line ends and control characters, and leave out marks of direction."""
    return _UNPRINTABLE.sub(lambda mark: "" if mark[0] > "\u2029" else " ", text)


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\g<0>", _printable(text))


def _latex(text: str) -> str:
    return _printable(text).translate(_LATEX)
