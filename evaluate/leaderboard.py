"""The leaderboard: every system with an interval, the honest figure of picking, and the pick."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluate.metrics import from_confusion
from evaluate.predictions import Predictions, check_shared_folds
from evaluate.significance import grouped_weights, intervals

SELECTED = "selected"
_RESAMPLES = 300


@dataclass(frozen=True)
class Line:
    """One system: nested macro-F1 with its 95 % interval; `naive` is what its own rows flatter.

    `deviation` is the spread of macro-F1 over repeats (NaN of one), `complexity` orders
    systems from simple to involved.
    """

    system: str
    features: str
    macro_f1: float
    low: float
    high: float
    accuracy: float
    threshold: float | None
    seconds: float
    naive: float
    deviation: float
    complexity: float


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
    `selected` repeats that procedure for every fold on the rows outside it: the figure to expect of
    the pick.

    Raises:
        InputError: systems that were held out in different folds.
    """
    contest = _contest(systems, caution)
    lines = [_line(one) for one in systems]
    choice = contest.pick(np.ones(contest.decision.shape[1:], bool))
    if len(systems) > 1:
        lines.append(_selected(systems, contest, max(line.macro_f1 for line in lines)))
    said = [*warnings]
    if choice.pick != choice.first:
        said.append(_reason(choice, systems, caution))
    lines.sort(key=lambda line: -line.macro_f1)
    partial = systems[0].origin.get("partial")
    return Leaderboard(lines, systems[choice.pick].system, said, seconds, partial)


def picks(systems: Sequence[Predictions], caution: float = 1.0) -> np.ndarray:
    """Which system (R, folds) the rows outside every fold would have one pick.

    Raises:
        InputError: systems that were held out in different folds.
    """
    return _contest(systems, caution).nested()


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
        threshold=None if np.isnan(one.cut) else float(one.cut),
        seconds=round(float(origin.get("seconds", 0.0)), 2),
        naive=float(origin.get("naive", np.mean(of_repeat))),
        deviation=_deviation(of_repeat),
        complexity=float(origin.get("complexity", 0.0)),
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
    )["macro_f1"]
    return found or (float("nan"), float("nan"))


def _macro_f1(labels: np.ndarray, decision: np.ndarray, k: int) -> float:
    confusion = np.bincount(labels * k + decision, minlength=k * k).reshape(k, k)
    return float(from_confusion(confusion)["macro_f1"])


@dataclass(frozen=True)
class _Choice:
    """The system to prefer, the one that scores highest, how much higher, and the error of that."""

    pick: int
    first: int
    gap: float
    error: float


@dataclass(frozen=True)
class _Contest:
    """Systems to pick among: their decisions (S, R, n) on rows with labels and folds.

    `weights` (1 + B, n) count every row once, and as often as grouped resamples do.
    """

    decision: np.ndarray
    labels: np.ndarray
    fold: np.ndarray
    classes: int
    weights: np.ndarray
    complexity: np.ndarray
    caution: float

    def pick(self, used: np.ndarray) -> _Choice:
        """The system to prefer by its decisions on the rows `used` (R, n)."""
        moved = self._macro_f1(used)
        scores = moved[:, 0]
        first = int(scores.argmax())
        # A resample may miss all these rows, where they are few groups.
        error = np.nanstd(moved[first, 1:] - moved[:, 1:], 1)
        close = scores[first] - scores <= self.caution * error + 1e-12
        order = np.lexsort((-scores, self.complexity))
        pick = int(next(at for at in order if close[at]))
        return _Choice(pick, first, float(scores[first] - scores[pick]), float(error[pick]))

    def nested(self) -> np.ndarray:
        """The pick (R, folds) by the rows of a repeat outside each fold."""
        repeats = len(self.fold)
        chosen = np.empty((repeats, int(self.fold.max()) + 1), np.int64)
        for repeat in range(repeats):
            for held in range(chosen.shape[1]):
                used = np.zeros(self.fold.shape, bool)
                used[repeat] = self.fold[repeat] != held
                chosen[repeat, held] = self.pick(used).pick
        return chosen

    def _macro_f1(self, used: np.ndarray) -> np.ndarray:
        """Macro-F1 (S, 1 + B) on the rows used (R, n), the mean over the repeats that have any."""
        k, systems, repeats = self.classes, len(self.decision), np.flatnonzero(used.any(1))
        total = np.zeros((systems, len(self.weights)))
        for repeat in repeats:
            inside = np.flatnonzero(used[repeat])
            cells = self.labels[inside] * k + self.decision[:, repeat, inside]
            picked = self.weights[:, inside]
            counts = np.stack([picked @ (cells == cell).T for cell in range(k * k)], -1)
            confusion = counts.reshape(len(self.weights), systems, k, k)
            total += from_confusion(confusion)["macro_f1"].T
        return np.asarray(total / len(repeats))


def _contest(systems: Sequence[Predictions], caution: float) -> _Contest:
    check_shared_folds(list(systems))
    first = max(systems, key=lambda one: len(one.fold))
    # One of fewer repeats goes into every one of them, so that all scores are those of the lines.
    again = np.arange(len(first.fold))
    weights = grouped_weights(first.groups, _RESAMPLES, seed=1)
    return _Contest(
        np.stack([one.decision[again % len(one.fold)] for one in systems]),
        first.labels,
        first.fold,
        len(first.classes),
        np.concatenate([np.ones((1, weights.shape[1]), weights.dtype), weights]),
        np.array([float(one.origin.get("complexity", 0.0)) for one in systems]),
        caution,
    )


def _reason(choice: _Choice, systems: Sequence[Predictions], caution: float) -> str:
    pick, first = systems[choice.pick].system, systems[choice.first].system
    return (
        f"{pick} is recommended over {first}, which scores {choice.gap:.4f} higher: it is simpler, "
        f"and {caution:g} standard error{'s' if caution != 1 else ''} of that difference "
        f"{'are' if caution != 1 else 'is'} {caution * choice.error:.4f}"
    )


def _selected(systems: Sequence[Predictions], contest: _Contest, naive: float) -> Line:
    """The line of the whole procedure: for every fold, the pick by the rows outside it."""
    first = systems[0]
    by_row = np.take_along_axis(contest.nested(), contest.fold, 1)
    chosen = np.take_along_axis(contest.decision, by_row[None], 0)[0]
    of_repeat = [_macro_f1(first.labels, row, len(first.classes)) for row in chosen]
    low, high = _interval(first, chosen)
    return Line(
        system=SELECTED,
        features=str(first.origin.get("partial", "")),
        macro_f1=float(np.mean(of_repeat)),
        low=low,
        high=high,
        accuracy=float((chosen == first.labels).mean()),
        threshold=None,
        seconds=0.0,
        naive=naive,
        deviation=_deviation(of_repeat),
        complexity=float("inf"),
    )
