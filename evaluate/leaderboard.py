"""The leaderboard: every system with an interval, the honest figure of picking, and the pick."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from archiveprobe.evaluate.metrics import from_confusion
from archiveprobe.evaluate.picking import Choice, Contest, contest_of, worth
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.significance import FEW_GROUPS, effective_groups, intervals

SELECTED = "selected"


@dataclass(frozen=True)
class Line:
    """One system: nested macro-F1 with its 95 % interval, and the optimistic score beside it.

    `deviation` is the spread of macro-F1 over repeats (NaN of one, and of `selected`), `complexity`
    orders systems from simple to involved, `groups` counts the groups that the interval rests on.
    """

    system: str
    features: str
    macro_f1: float
    low: float
    high: float
    accuracy: float
    threshold: float | None
    seconds: float
    optimistic: float
    deviation: float
    complexity: float
    groups: int


@dataclass(frozen=True)
class Leaderboard:
    """Lines sorted by macro-F1; `best` is the recommended system, `warnings` say why.

    `partial` says, where it is not None, how few of the task's rows all this is about.
    """

    lines: list[Line]
    best: str
    warnings: list[str]
    seconds: float
    partial: str | None = None

    def record(self) -> dict[str, Any]:
        """The form that `--json` promises."""
        return {
            "leaderboard": [_finite(asdict(line)) for line in self.lines],
            "best": self.best,
            "warnings": self.warnings,
            "seconds": round(self.seconds, 3),
            **({} if self.partial is None else {"partial": self.partial}),
        }


def _finite(line: dict[str, Any]) -> dict[str, Any]:
    """A line with null where a figure is undefined, since JSON has neither NaN nor infinity."""
    undefined = {
        name for name, value in line.items() if isinstance(value, float) and not np.isfinite(value)
    }
    return {name: None if name in undefined else value for name, value in line.items()}


def leaderboard(
    systems: Sequence[Predictions],
    *,
    seconds: float,
    warnings: Sequence[str] = (),
    caution: float = 1.0,
) -> Leaderboard:
    """Score systems that share rows and folds, and the procedure of picking among them.

    The pick is the simplest system that is not worse than the first by more than `caution` standard
    errors of their difference (the one-standard-error rule of Breiman et al., 1984). The line
    `selected` is the figure to expect of the pick: what picking among the systems is worth.

    Raises:
        InputError: systems that were held out in different folds.
    """
    contest = contest_of(systems, caution)
    lines = [_line(one) for one in systems]
    choice = contest.pick(contest.scores)
    if len(systems) > 1:
        lines.append(_selected(systems, contest, lines))
    said = [*warnings]
    if choice.pick != choice.first:
        said.append(_reason(choice, systems, caution))
    said += _few_groups(systems[0].groups)
    lines.sort(key=lambda line: -line.macro_f1)
    partial = systems[0].origin.get("partial")
    return Leaderboard(lines, systems[choice.pick].system, said, seconds, partial)


def _few_groups(groups: np.ndarray) -> list[str]:
    """What to say where intervals promise nothing."""
    count, effective = len(np.unique(groups)), effective_groups(groups)
    if effective >= FEW_GROUPS:
        return []
    uneven = f", as uneven as {effective:.0f} equal ones" if round(effective) < count else ""
    return [
        f"the intervals rest on {count} independent groups{uneven}: with fewer than {FEW_GROUPS} "
        "they promise nothing, label images from more sources"
    ]


def nested_figure(one: Predictions, decision: np.ndarray) -> tuple[float, float, float]:
    """Macro-F1 of decisions (R, n) on the rows of `one`, mean over repeats, and its interval."""
    of_repeat = [_macro_f1(one.labels, row, len(one.classes)) for row in decision]
    return float(np.mean(of_repeat)), *_interval(one, decision)


def _line(one: Predictions) -> Line:
    of_repeat = [_macro_f1(one.labels, decision, len(one.classes)) for decision in one.decision]
    low, high = _interval(one, one.decision)
    right = one.decision == one.labels
    origin = one.origin
    return Line(
        system=one.system,
        features=str(origin.get("features", "")),
        macro_f1=float(np.mean(of_repeat)),
        low=low,
        high=high,
        accuracy=float(right.mean()),
        threshold=None if np.isnan(one.threshold) else float(one.threshold),
        seconds=round(float(origin.get("seconds", 0.0)), 2),
        optimistic=float(origin.get("optimistic", np.mean(of_repeat))),
        deviation=_deviation(of_repeat),
        complexity=float(origin.get("complexity", 0.0)),
        groups=len(np.unique(one.groups)),
    )


def _deviation(of_repeat: Sequence[float]) -> float:
    """The spread over repeats; a single one says nothing of it."""
    return float(np.std(of_repeat)) if len(of_repeat) > 1 else float("nan")


def _interval(one: Predictions, decision: np.ndarray) -> tuple[float, float]:
    found = intervals(
        one.labels,
        decision,
        None,
        one.groups,
        len(one.classes),
        one.positive,
        names=("macro_f1",),
        fold=one.fold,
    )["macro_f1"]
    return found or (float("nan"), float("nan"))


def _macro_f1(labels: np.ndarray, decision: np.ndarray, k: int) -> float:
    confusion = np.bincount(labels * k + decision, minlength=k * k).reshape(k, k)
    return float(from_confusion(confusion)["macro_f1"])


def _reason(choice: Choice, systems: Sequence[Predictions], caution: float) -> str:
    pick, first = systems[choice.pick].system, systems[choice.first].system
    return (
        f"{pick} is recommended over {first}, which scores {choice.gap:.4f} higher: it is simpler, "
        f"and {caution:g} standard error{'s' if caution != 1 else ''} of that difference "
        f"{'are' if caution != 1 else 'is'} {caution * choice.error:.4f}"
    )


def _selected(systems: Sequence[Predictions], contest: Contest, lines: Sequence[Line]) -> Line:
    """The line of the whole procedure, picking included.

    Its interval is that of the picked lines, from the figure less the leak to that with it.
    """
    found = worth(contest, systems)
    low, high = (
        float(found.share @ [getattr(line, side) - line.macro_f1 for line in lines])
        for side in ("low", "high")
    )
    figure = float(np.clip(found.scored - found.leak + found.shift, 0, 1))
    return Line(
        system=SELECTED,
        features=str(systems[0].origin.get("partial", "")),
        macro_f1=figure,
        low=float(np.clip(found.scored - found.leak + low, 0, figure)),
        high=float(np.clip(found.scored + high, figure, 1)),
        accuracy=float(found.share @ [line.accuracy for line in lines]),
        threshold=None,
        seconds=0.0,
        optimistic=max(line.macro_f1 for line in lines),
        deviation=float("nan"),
        complexity=float("inf"),
        groups=lines[0].groups,
    )
