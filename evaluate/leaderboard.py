"""The leaderboard: systems with their intervals, the recommended one, and what picking is worth."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from archiveprobe.evaluate.intervals import FEW_GROUPS, effective_groups, intervals
from archiveprobe.evaluate.metrics import macro_f1, replicated
from archiveprobe.evaluate.model_selection import Candidates, candidates_of, expected_score
from archiveprobe.evaluate.predictions import Predictions

SELECTION = "model selection (nested)"


@dataclass(frozen=True)
class Line:
    """Holds one system's nested macro-F1 with its 95 % interval, and the optimistic score.

    `deviation` is the spread of macro-F1 over repeats (NaN with one repeat), `complexity` orders
    systems from simple to involved, `groups` counts the groups that the interval rests on. The
    rule has its number ("fixed 0.4"); None where there is no threshold.
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
    threshold_rule: str | None = None

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`, null where a number is undefined."""
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in asdict(self).items()
        }


@dataclass(frozen=True)
class Majority:
    """Holds what always answering the commonest label scores on the labelled rows."""

    label: str
    macro_f1: float
    accuracy: float


@dataclass(frozen=True)
class Leaderboard:
    """Holds lines sorted by macro-F1; `best` is the recommended system, `reason` says why.

    `best` is None where every line is at chance. `majority` is no system, but what every one of
    them has to beat. `selection` is the score to expect of the recommended system: that of picking
    it among the others, None where there is nothing to pick. `to_predict` counts unlabelled rows.
    `partial` says, where it is not None, how few of the task's rows all this is about; `snapshot`
    is the digest of the state that they are in. `corrections` counts corrected labels, see
    `corrected_labels`; None where there are none.
    """

    lines: list[Line]
    selection: Line | None
    best: str | None
    reason: str
    majority: Majority
    warnings: list[str]
    seconds: float
    to_predict: int
    partial: str | None = None
    snapshot: str = ""
    corrections: Mapping[str, Any] | None = None

    def record(self) -> dict[str, Any]:
        """Return the form that `--json` promises."""
        return {
            "leaderboard": [line.record() for line in self.lines],
            "model_selection": None if self.selection is None else self.selection.record(),
            "best": self.best,
            "reason": self.reason,
            "majority": asdict(self.majority),
            "warnings": self.warnings,
            "seconds": round(self.seconds, 3),
            "snapshot": self.snapshot,
            "corrections": self.corrections,
            **({} if self.partial is None else {"partial": self.partial}),
        }


def leaderboard(
    systems: Sequence[Predictions],
    *,
    seconds: float,
    warnings: Sequence[str] = (),
    caution: float = 1.0,
    snapshot: str = "",
) -> Leaderboard:
    """Score systems that share rows and folds, and the procedure of picking among them.

    Recommended is the simplest system that is not worse than the first by more than `caution`
    standard errors of their difference (the one-standard-error rule of Breiman et al., 1984). None
    is where no line's interval lies above chance.

    Raises:
        InputError: systems that were held out in different folds.
    """
    candidates = candidates_of(systems, caution)
    lines = [_line(system) for system in systems]
    above = np.array([line.low for line in lines]) > chance(len(systems[0].classes))
    pick = candidates.pick(candidates.scores, above) if above.any() else None
    return Leaderboard(
        sorted(lines, key=lambda line: -line.macro_f1),
        _selection(candidates, lines) if len(systems) > 1 else None,
        None if pick is None else systems[pick].system,
        _reason(candidates, pick),
        majority(systems[0]),
        [*warnings, *_missed_aims(systems), *few_groups(systems[0].groups)],
        seconds,
        len(systems[0].test_ids),
        systems[0].origin.get("partial"),
        snapshot,
    )


def _missed_aims(systems: Sequence[Predictions]) -> Iterator[str]:
    """Yield the systems whose threshold aims at more than the labelled rows show, nested."""
    for system in systems:
        name, _, number = str(system.origin.get("threshold_rule")).partition(" ")
        if name not in ("recall", "precision"):
            continue
        metric = f"{name} of {system.positive}"
        shown = replicated(system.labels, system.decision, len(system.classes), names=(metric,))[
            metric
        ][0]
        if shown < float(number):
            yield (
                f"{system.system}: its threshold aims at {name} {number}, and the labelled rows "
                f"show {shown:.3f}"
            )


def chance(classes: int) -> float:
    """Compute the highest macro-F1 that answers can expect which know nothing of the images.

    Say the K classes have the shares s_k, and answers without a look at the image are k with
    probability d_k. F1 of class k is then 2 s_k d_k / (s_k + d_k), which is concave in d_k and has
    the slope 2 s_k^2 / (s_k + d_k)^2. Where the sum over classes is highest, under sum d_k = 1, the
    slopes are equal: d_k = s_k, and every F1 is s_k. So macro-F1 is 1 / K at most, whatever the
    shares, and below it for the majority's label alone.
    """
    return 1 / classes


def majority(system: Predictions) -> Majority:
    """Score the answer that is always the commonest label."""
    counts = np.bincount(system.labels, minlength=len(system.classes))
    answer = np.full_like(system.labels, counts.argmax())
    return Majority(
        str(system.classes[counts.argmax()]),
        macro_f1(system.labels, answer, len(counts)),
        float(counts.max() / counts.sum()),
    )


def nested_score(system: Predictions, decision: np.ndarray) -> tuple[float, float, float]:
    """Score decisions (R, n) on a system's rows: macro-F1, mean over repeats, and its interval."""
    y, k, only = system.labels, len(system.classes), ("macro_f1",)
    found = intervals(y, decision, system.groups, k, names=only, fold=system.fold)
    return macro_f1(y, decision, k), *(found["macro_f1"] or (float("nan"), float("nan")))


def _line(system: Predictions) -> Line:
    k, origin = len(system.classes), system.origin
    of_repeats = [macro_f1(system.labels, decision, k) for decision in system.decision]
    score, low, high = nested_score(system, system.decision)
    return Line(
        system=system.system,
        features=str(origin.get("features", "")),
        macro_f1=score,
        low=low,
        high=high,
        accuracy=float((system.decision == system.labels).mean()),
        threshold=None if np.isnan(system.threshold) else float(system.threshold),
        seconds=round(float(origin.get("seconds", 0.0)), 2),
        optimistic=float(origin.get("optimistic", score)),
        deviation=float(np.std(of_repeats)) if len(of_repeats) > 1 else float("nan"),
        complexity=float(origin.get("complexity", 0.0)),
        groups=len(np.unique(system.groups)),
        threshold_rule=None if np.isnan(system.threshold) else origin.get("threshold_rule"),
    )


def _selection(candidates: Candidates, lines: Sequence[Line]) -> Line:
    """Score the whole procedure, picking included.

    Its interval is that of the picked lines, from the score less the leak to that with it.
    """
    expected = expected_score(candidates)
    below, above, accuracy = expected.share @ [
        (line.low - line.macro_f1, line.high - line.macro_f1, line.accuracy) for line in lines
    ]
    corrected = expected.outside - expected.leak
    score = float(np.clip(corrected + expected.shift, 0, 1))
    return Line(
        system=SELECTION,
        features=str(candidates.systems[0].origin.get("partial", "")),
        macro_f1=score,
        low=float(np.clip(corrected + below, 0, score)),
        high=float(np.clip(expected.outside + above, score, 1)),
        accuracy=float(accuracy),
        threshold=None,
        seconds=0.0,
        optimistic=max(line.macro_f1 for line in lines),
        deviation=float("nan"),
        complexity=float("inf"),
        groups=lines[0].groups,
    )


def _reason(candidates: Candidates, pick: int | None) -> str:
    """Say by what rule a system is recommended, and how far below the first it is."""
    scores, caution = candidates.scores, candidates.caution
    if pick is None:
        level = chance(len(candidates.systems[0].classes))
        return (
            f"no interval lies above {level:.3g}, the most that answers can expect which know "
            "nothing of the images"
        )
    first = int(scores.argmax())
    within = "one standard error" if caution == 1 else f"{caution:g} standard errors"
    if pick == first:
        return f"the first, and no simpler one is within {within} of it" if len(scores) > 1 else ""
    return (
        f"the simplest within {within} ({caution * candidates.error[first, pick]:.3f}) of the "
        f"first; {scores[first] - scores[pick]:.3f} below it"
    )


def few_groups(groups: np.ndarray) -> list[str]:
    """Warn where intervals promise nothing."""
    count, effective = len(np.unique(groups)), effective_groups(groups)
    if effective >= FEW_GROUPS:
        return []
    uneven = f", as uneven as {effective:.0f} equal ones" if round(effective) < count else ""
    return [
        f"the intervals rest on {count} independent groups{uneven}: with fewer than {FEW_GROUPS} "
        "they promise nothing, label images from more sources"
    ]
