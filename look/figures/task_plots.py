"""Figures of a task: its systems side by side, the trainings, and a map of its images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from archiveprobe.base.wording import number_of
from archiveprobe.evaluate.leaderboard import Line
from archiveprobe.look.collect.curves import Curves
from archiveprobe.look.figures.style import (
    BLACK,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    MARKERS,
    MOST_SERIES,
    PALE,
    VERMILION,
    Series,
    line_look,
    literal,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A PDF of more points takes long to open, so that they become an image in it.
_MOST_POINTS = 5000


def draw_forest(figure: "Figure", lines: Sequence[Line], best: str | None, majority: float) -> None:
    """Draw the nested macro-F1 of systems with 95 % intervals, beside the optimistic score."""
    axes = figure.subplots()
    y = np.arange(len(lines))
    score = np.array([line.macro_f1 for line in lines])
    ends = np.array([(line.low, line.high) for line in lines]).T
    nested = axes.errorbar(
        score, y, xerr=np.abs(ends - score), fmt="o", color=BLUE, markersize=4, capsize=2.5
    )
    nested.lines[0].set_gid("nested")
    nested.lines[2][0].set_gid("intervals")
    optimistic = [line.optimistic for line in lines]
    look: dict[str, Any] = {
        "marker": "D",
        "markerfacecolor": "none",
        "color": VERMILION,
        "markersize": 4,
    }
    (hollow,) = axes.plot(optimistic, y, linestyle="none", **look, gid="optimistic")
    level = axes.axvline(majority, color=GREEN, dashes=(1, 2), gid="majority")
    names = [
        literal(line.system, 60) + (" (recommended)" if line.system == best else "")
        for line in lines
    ]
    axes.set_yticks(y, names)
    axes.set(xlabel="macro-F1", ylim=(len(lines) - 0.4, -0.6))
    axes.grid(axis="x", color=PALE, linewidth=0.4)
    series = Series()
    series.add(nested, "nested, 95 % interval")
    series.add(hollow, "optimistic")
    series.add(level, "majority class")
    series.show(axes, columns=3)


def draw_learning(figure: "Figure", curves: Sequence[Curves]) -> None:
    """Draw loss and validation macro-F1 of every part of a training, and the epoch that was kept.

    Macro-F1 is there only where rows were held out to choose the epoch.
    """
    rated = any(epoch.macro_f1 is not None for each in curves for epoch in each.epochs)
    names = ("loss", "macro_f1") if rated else ("loss",)
    every = figure.subplots(1, len(names), squeeze=False)[0]
    series = Series()
    for at, each in enumerate(curves):
        epochs = [epoch.epoch for epoch in each.epochs]
        for axes, name in zip(every, names, strict=True):
            values = [getattr(epoch, name) for epoch in each.epochs]
            values = [np.nan if value is None else value for value in values]
            (line,) = axes.plot(epochs, values, **line_look(at), gid=f"{name}-{each.part}")
            look: dict[str, Any] = {"marker": MARKERS[at % MOST_SERIES], "color": line.get_color()}
            axes.plot([each.kept], [values[each.kept - 1]], **look, markeredgecolor=BLACK)
        series.add(line, f"{each.part}, epoch {each.kept} kept")
    for axes, name in zip(every, names, strict=True):
        axes.set(xlabel="epoch", ylabel="validation macro-F1" if name == "macro_f1" else name)
        axes.xaxis.get_major_locator().set_params(integer=True)
    series.show_beside(figure)


def draw_map(
    figure: "Figure",
    places: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    is_wrong: np.ndarray,
) -> None:
    """Draw places (n, 2) by label (n,), -1 without one; a ring marks wrong answers (n,).

    The commonest labels have colours of their own, the others share one.
    """
    axes = figure.subplots()
    axes.set_rasterization_zorder(2 if len(places) > _MOST_POINTS else -1)
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    commonest = np.argsort(-counts, kind="stable")[:MOST_SERIES]
    series = Series()
    rest = (labels >= 0) & ~np.isin(labels, commonest)
    groups = [("rows to predict", labels < 0, PALE, "."), ("other labels", rest, GREY, "*")]
    groups += [
        (literal(names[number]), labels == number, COLOURS[at], MARKERS[at])
        for at, number in enumerate(commonest)
    ]
    for at, (name, rows, colour, marker) in enumerate(groups):
        if rows.any():
            look: dict[str, Any] = {
                "s": 9,
                "color": colour,
                "marker": marker,
                "linewidths": 0,
                "zorder": 1,
            }
            drawn = axes.scatter(*places[rows].T, **look, alpha=0.8, gid=f"points-{at}")
            series.add(drawn, f"{name} ({number_of(int(rows.sum()), 'image')})")
    if is_wrong.any():
        look = {"s": 26, "facecolors": "none", "edgecolors": BLACK, "linewidths": 0.6, "zorder": 1}
        drawn = axes.scatter(*places[is_wrong].T, **look, gid="mistakes")
        series.add(drawn, f"mistakes ({number_of(int(is_wrong.sum()), 'image')})")
    axes.set(xlabel="first principal component", ylabel="second principal component")
    axes.set_xticks([])
    axes.set_yticks([])
    series.show(axes, columns=2)
