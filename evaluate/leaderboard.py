"""The leaderboard: every system with an interval, the honest figure of picking, and the pick."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from evaluate.metrics import from_confusion
from evaluate.predictions import Predictions, check_shared_folds
from evaluate.significance import (
    FEW_GROUPS,
    effective_groups,
    grouped_weights,
    intervals,
    standard_error,
)
from evaluate.variance import fold_shift, group_sums, influence

SELECTED = "selected"
_RESAMPLES = 1000


@dataclass(frozen=True)
class Line:
    """One system: nested macro-F1 with its 95 % interval; `naive` is what its own rows flatter.

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
    naive: float
    deviation: float
    complexity: float
    groups: int


@dataclass(frozen=True)
class Leaderboard:
    """Lines sorted by macro-F1; `best` is the recommended system, `warnings` say why."""

    lines: list[Line]
    best: str
    warnings: list[str]
    seconds: float

    def record(self) -> dict[str, Any]:
        """The form that `--json` promises."""
        return {
            "leaderboard": [_finite(asdict(line)) for line in self.lines],
            "best": self.best,
            "warnings": self.warnings,
            "seconds": round(self.seconds, 3),
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
    contest = _contest(systems, caution)
    lines = [_line(one) for one in systems]
    choice = contest.pick(contest.scores)
    if len(systems) > 1:
        lines.append(_selected(systems, contest, lines))
    said = [*warnings]
    if choice.pick != choice.first:
        said.append(_reason(choice, systems, caution))
    said += _few_groups(systems[0].groups)
    lines.sort(key=lambda line: -line.macro_f1)
    return Leaderboard(lines, systems[choice.pick].system, said, seconds)


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
        threshold=None if np.isnan(one.cut) else float(one.cut),
        seconds=round(float(origin.get("seconds", 0.0)), 2),
        naive=float(origin.get("naive", np.mean(of_repeat))),
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


@dataclass(frozen=True)
class _Choice:
    """The system to prefer, the one that scores highest, how much higher, and the error of that."""

    pick: int
    first: int
    gap: float
    error: float


@dataclass(frozen=True)
class _Contest:
    """Systems to pick among: their figures (S,), and each group's influence on them (S, G).

    `sizes` (G,) are the groups' shares of the rows. `error` (S, S) is the standard error of the
    difference of two figures.
    """

    scores: np.ndarray
    influence: np.ndarray
    sizes: np.ndarray
    error: np.ndarray
    complexity: np.ndarray
    caution: float

    def pick(self, scores: np.ndarray) -> _Choice:
        """The system to prefer at these figures (S,)."""
        first = int(scores.argmax())
        error = self.error[first]
        close = scores[first] - scores <= self.caution * error + 1e-12
        order = np.lexsort((-scores, self.complexity))
        pick = int(order[close[order]][0])
        return _Choice(pick, first, float(scores[first] - scores[pick]), float(error[pick]))

    def resample(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What B resamples pick (B,), their figures (B, S), and those of the groups left out.

        Figures are linear in the groups' weights, so that small shares of rows bias no F1; the mean
        over resamples is made that of all rows.
        """
        groups = np.arange(len(self.sizes))
        drawn = grouped_weights(groups, _RESAMPLES, seed=1).astype(np.float64)
        drawn = drawn[(drawn == 0).any(1)]
        if not len(drawn):
            # A single group has nothing outside it.
            return np.array([self.pick(self.scores).pick]), self.scores[None], self.scores[None]
        inside, outside = self._figures(drawn), self._figures((drawn == 0).astype(np.float64))
        return np.array([self.pick(scores).pick for scores in inside]), inside, outside

    def _figures(self, weights: np.ndarray) -> np.ndarray:
        moved = weights @ self.influence.T / (weights @ self.sizes)[:, None]
        return np.asarray(self.scores + moved - moved.mean(0))


def _contest(systems: Sequence[Predictions], caution: float) -> _Contest:
    check_shared_folds(list(systems))
    first = systems[0]
    classes = len(first.classes)
    members = np.unique(first.groups, return_inverse=True)[1]
    moves = [influence(first.labels, one.decision, classes, "macro_f1").mean(0) for one in systems]
    sums = group_sums(np.stack(moves), members)
    sizes = np.bincount(members) / len(members)
    apart = ((sums[:, None] - sums) ** 2).sum(-1)
    return _Contest(
        np.array([_mean_macro_f1(one) for one in systems]),
        sums,
        sizes,
        np.sqrt(apart * len(sizes) / max(1, len(sizes) - 1)),
        np.array([float(one.origin.get("complexity", 0.0)) for one in systems]),
        caution,
    )


def _mean_macro_f1(one: Predictions) -> float:
    return float(np.mean([_macro_f1(one.labels, row, len(one.classes)) for row in one.decision]))


def _reason(choice: _Choice, systems: Sequence[Predictions], caution: float) -> str:
    pick, first = systems[choice.pick].system, systems[choice.first].system
    return (
        f"{pick} is recommended over {first}, which scores {choice.gap:.4f} higher: it is simpler, "
        f"and {caution:g} standard error{'s' if caution != 1 else ''} of that difference "
        f"{'are' if caution != 1 else 'is'} {caution * choice.error:.4f}"
    )


def _selected(systems: Sequence[Predictions], contest: _Contest, lines: Sequence[Line]) -> Line:
    """The line of the whole procedure, picking included.

    Resamples of groups pick, and the groups that each has left out score what it picked: BBC-CV of
    Tsamardinos, Greasidou and Borboudakis, "Bootstrapping the out-of-sample predictions for
    efficient and accurate cross-validation" (2018). Two things would still flatter it:

    - The models that were scored inside have learnt from the groups outside, so a system that is
      lucky inside is lucky outside. With v the variance of a figure that comes of held-out rows and
      m the part of training rows (evaluate/variance.py), a resample has the variance 2 v + m, as
      every group weighs in by the square of its count, whose mean is 2, and its covariance with the
      groups outside is m. Of its excess e the share m / (2 v + m) is seen outside too. The gap is
      what is left, e 2 v / (2 v + m), so the leak is gap m / 2 v.
    - Pooled decisions flatter models that differ (`fold_shift`).

    The interval is that of the picked lines, from the figure less the leak to the figure with it.
    """
    picked, inside, outside = contest.resample()
    share = np.bincount(picked, minlength=len(systems)) / len(picked)
    each = np.arange(len(picked))
    scored = float(outside[each, picked].mean())
    gap = float(inside[each, picked].mean()) - scored
    leak = max(0.0, gap) * _leak(systems, share)
    low, high = (
        share @ [getattr(line, side) - line.macro_f1 for line in lines] for side in ("low", "high")
    )
    figure = scored - leak + min(0.0, float(share @ [_shift(one) for one in systems]))
    return Line(
        system=SELECTED,
        features="",
        macro_f1=float(np.clip(figure, 0, 1)),
        low=float(np.clip(scored - leak + low, 0, max(figure, 0))),
        high=float(np.clip(scored + high, figure, 1)),
        accuracy=float(share @ [line.accuracy for line in lines]),
        threshold=None,
        seconds=0.0,
        naive=max(line.macro_f1 for line in lines),
        deviation=float("nan"),
        complexity=float("inf"),
        groups=lines[0].groups,
    )


def _shift(one: Predictions) -> float:
    return fold_shift(one.labels, one.decision, one.fold, len(one.classes), "macro_f1")


def _leak(systems: Sequence[Predictions], share: np.ndarray) -> float:
    """What of the gap between inside and outside the training rows have hidden, m / 2 v."""
    errors = [
        standard_error(one.labels, one.decision, one.groups, len(one.classes), fold=one.fold)
        for one in systems
    ]
    held_out = float(share @ [error.held_out for error in errors])
    return float(share @ [error.training for error in errors]) / (2 * held_out or 1.0)
