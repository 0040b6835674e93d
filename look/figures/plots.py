"""Figures of one system's out-of-fold answers. Each function draws into an empty figure.

Parts that stand for numbers have an id in the SVG, so that a test or a reader can find them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from archiveprobe.base.wording import number_of
from archiveprobe.evaluate.leaderboard import Line
from archiveprobe.evaluate.metrics import confusions
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.look.figures.numbers import (
    BINS,
    Answers,
    nested_point,
    over_thresholds,
    precision_recall,
    reliability,
    roc,
)
from archiveprobe.look.figures.style import (
    BLACK,
    COLOURS,
    GREY,
    HATCHES,
    MARKERS,
    PALE,
    Series,
    line_look,
    literal,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_HISTOGRAM = 20
_NESTED = "nested decision"
# Above this many cells a number in each is too small to read.
_MOST_LABELS = 20


def draw_precision_recall(figure: "Figure", stored: Predictions, answers: Answers) -> None:
    """Draw precision over recall, the share of the class, and the nested decision."""
    axes = _unit_axes(figure, "recall", "precision")
    series = Series()
    for at, (name, is_class, score) in enumerate(answers.scores()):
        line = precision_recall(is_class, score)
        # Precision between two thresholds is not on the straight line between them.
        look = line_look(at) | {"drawstyle": "steps-post"}
        drawn = axes.plot(line.x, line.y, **look, gid=f"curve-{at}")
        series.add(drawn[0], f"{literal(name)}, AP {line.area:.3f}")
        if answers.binary:
            series.add(_level(axes, is_class.mean()), "share of the class")
        point = nested_point(stored, answers.shown[at])
        mark = _mark(axes, at, point.recall, point.precision)
    series.add(mark, _NESTED)
    series.show(axes, "lower left" if answers.binary else None)


def draw_roc(figure: "Figure", stored: Predictions, answers: Answers) -> None:
    """Draw the true over the false positive rate, and the nested decision."""
    axes = _unit_axes(figure, "false positive rate", "true positive rate")
    axes.plot([0, 1], [0, 1], color=PALE, linewidth=0.8)
    series = Series()
    for at, (name, is_class, score) in enumerate(answers.scores()):
        line = roc(is_class, score)
        drawn = axes.plot(line.x, line.y, **line_look(at), gid=f"curve-{at}")
        series.add(drawn[0], f"{literal(name)}, AUC {line.area:.3f}")
        point = nested_point(stored, answers.shown[at])
        mark = _mark(axes, at, point.false_positives, point.recall)
    series.add(mark, _NESTED)
    series.show(axes, "lower right" if answers.binary else None)


def draw_calibration(figure: "Figure", answers: Answers) -> None:
    """Draw the share of a class over its probability, in ten bins, and how many rows are in each.

    A bin of few rows says little, so that their numbers stand below.
    """
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _set_unit(top, "", "share of the class")
    top.plot([0, 1], [0, 1], color=PALE, linewidth=0.8)
    series = Series()
    edges = np.linspace(0, 1, BINS + 1)
    for at, (name, is_class, score) in enumerate(answers.scores()):
        bins = reliability(is_class, score)
        look = line_look(at) | {"marker": MARKERS[at], "markersize": 4}
        drawn = top.plot(bins.claimed, bins.true, **look, gid=f"curve-{at}")
        series.add(drawn[0], literal(name))
        bottom.stairs(bins.counts, edges, **_stairs(at, fill=answers.binary), gid=f"counts-{at}")
        if answers.binary:
            for count, left in zip(bins.counts.tolist(), edges.tolist(), strict=False):
                bottom.annotate(str(count), (left + 0.5 / BINS, count), ha="center", va="bottom")
    bottom.margins(y=0.3)
    bottom.set(xlabel="mean out-of-fold probability", ylabel="rows", ylim=(0, None))
    series.show(top, "upper left" if answers.binary else None)


def draw_scores(figure: "Figure", stored: Predictions, answers: Answers) -> None:
    """Draw how many rows of every label have which probability, and the threshold.

    Of two labels it is the probability of the positive one, of more that of the row's own label.
    """
    axes = figure.subplots()
    edges, series = np.linspace(0, 1, _HISTOGRAM + 1), Series()
    numbers = range(2) if answers.binary else answers.shown
    for at, number in enumerate(numbers):
        rows = answers.labels == number
        score = answers.proba[rows, stored.positive if answers.binary else number]
        counts = np.histogram(score, edges)[0]
        look = _stairs(at, fill=answers.binary)
        drawn = axes.stairs(counts, edges, **look, gid=f"counts-{at}")
        series.add(drawn, f"{literal(answers.names[number])} ({number_of(len(score), 'row')})")
    if answers.binary:
        _threshold(axes, stored, series)
        what = f"probability of {literal(answers.names[stored.positive])}"
    else:
        what = "probability of the row's own label"
    axes.set(xlim=(0, 1), xlabel=f"mean out-of-fold {what}", ylabel="rows")
    series.show(axes, "upper center" if answers.binary else None)


def draw_confusion(
    figure: "Figure", names: Sequence[str], labels: np.ndarray, decision: np.ndarray
) -> None:
    """Draw counts of labels (n,) against decisions (n,); the shade is the share of the label."""
    axes = figure.subplots()
    counts = confusions(labels, decision, len(names))[0]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks, words = range(len(names)), [literal(name, 25) for name in names]
    is_wide = sum(map(len, words)) > 30
    axes.set_xticks(ticks, words, rotation=90 if is_wide else 0)
    axes.set_yticks(ticks, words)
    axes.set(xlabel="nested decision (of most repeats)", ylabel="label")
    axes.spines[:].set_visible(False)
    if len(names) > _MOST_LABELS:
        return
    for row, column in np.ndindex(counts.shape):
        text = f"{counts[row, column]:.0f}"
        if len(names) < 6:
            text += f"\n{100 * shares[row, column]:.1f} %"
        colour = "white" if shares[row, column] > 0.5 else BLACK
        axes.text(column, row, text, color=colour, ha="center", va="center")


def draw_threshold(figure: "Figure", stored: Predictions, answers: Answers, nested: Line) -> None:
    """Draw macro-F1, precision and recall over the threshold, and what is nested and in use.

    The highest place of the curve is optimistic: it was found on the very rows that it scores. The
    nested score, with its 95 % interval, is the one to report.
    """
    axes = _unit_axes(figure, "threshold", "")
    axes.set_aspect("auto")
    found = over_thresholds(*next(scores for _, *scores in answers.scores()))
    name = literal(str(stored.classes[stored.positive]), 25)
    every = (
        ("macro-F1", found.macro_f1),
        (f"precision of {name}", found.precision),
        (f"recall of {name}", found.recall),
    )
    series = Series()
    for at, (what, values) in enumerate(every):
        look = line_look(at) | {"drawstyle": "steps-post", "gid": f"curve-{at}"}
        series.add(axes.plot(found.thresholds, values, **look)[0], what)
    _threshold(axes, stored, series)
    line = axes.axhline(nested.macro_f1, color=GREY, dashes=(4, 2), linewidth=0.9, gid="nested")
    axes.axhspan(nested.low, nested.high, color=PALE, alpha=0.35, linewidth=0)
    interval = f"[{nested.low:.3f}, {nested.high:.3f}]"
    series.add(line, f"nested macro-F1 {nested.macro_f1:.3f} {interval}")
    axes.set_xlim(0, 1)
    series.show(axes, columns=2)


def _unit_axes(figure: "Figure", x: str, y: str) -> "Axes":
    axes = figure.subplots()
    _set_unit(axes, x, y)
    axes.set_aspect("equal")
    return axes


def _set_unit(axes: "Axes", x: str, y: str) -> None:
    # Room for what lies on the border.
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y)


def _stairs(at: int, *, fill: bool) -> dict[str, Any]:
    look = line_look(at)
    if not fill:
        return look
    look = {"fill": True, "edgecolor": look["color"], "hatch": HATCHES[at]}
    return look | {"facecolor": "none", "linewidth": 0.8}


def _mark(axes: "Axes", at: int, x: float, y: float) -> Any:
    look: dict[str, Any] = {"color": COLOURS[at], "marker": MARKERS[at], "markeredgecolor": BLACK}
    return axes.plot([x], [y], linestyle="none", markersize=6, **look, gid=f"nested-{at}")[0]


def _level(axes: "Axes", y: float) -> Any:
    return axes.axhline(y, color=GREY, dashes=(1, 2), linewidth=0.9, gid="share")


def _threshold(axes: "Axes", stored: Predictions, series: Series) -> None:
    if np.isnan(stored.threshold):
        return
    line = axes.axvline(stored.threshold, color=BLACK, dashes=(2, 2), linewidth=0.9, gid="in-use")
    series.add(line, f"threshold in use, {stored.threshold:.3f}")
