"""Two systems or more on the same out-of-fold rows: paired differences, and who is right where."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of
from archiveprobe.evaluate.dataset import Dataset, load_dataset
from archiveprobe.evaluate.intervals import Comparison, compare_each, intervals
from archiveprobe.evaluate.leaderboard import few_groups
from archiveprobe.evaluate.majority import majority_decision
from archiveprobe.evaluate.metrics import replicated
from archiveprobe.evaluate.predictions import Predictions, check_shared_folds
from archiveprobe.evaluate.system_status import load_systems
from archiveprobe.task.config import Task

COMPARED = {"macro_f1": "macro-F1", "accuracy": "accuracy"}
"""The metrics that systems are compared in, and their names for people."""


@dataclass(frozen=True)
class Difference:
    """Holds the figures of a system less those of a reference, each with its 95 % interval.

    The other numbers count the labelled rows that both, one or none of the two have right, by the
    decision of most repeats.
    """

    system: str
    reference: str
    macro_f1: Comparison
    accuracy: Comparison
    both_right: int
    only_system_right: int
    only_reference_right: int
    none_right: int

    @property
    def is_noise(self) -> bool:
        """Return whether the interval of the difference of macro-F1 holds zero."""
        return self.macro_f1.low <= 0 <= self.macro_f1.high

    def sentence(self) -> str:
        """Say whether the difference is noise."""
        gap = self.macro_f1.difference
        if not (self.only_system_right or self.only_reference_right or gap):
            return f"{self.system} and {self.reference} decide all of these rows alike"
        first, second = self.system, self.reference
        if gap < 0:
            first, second = second, first
        ahead = f"macro-F1 of {first} is {abs(gap):.3f} above that of {second}"
        if self.is_noise:
            return (
                f"{ahead}, which may be noise: the interval of the difference holds 0, so these "
                "rows do not show which of the two is better"
            )
        return f"{ahead}, which is more than noise: the interval of the difference leaves out 0"


def paired_differences(systems: Sequence[Predictions], reference: int) -> list[Difference]:
    """Compare every system with the one at the place `reference`, in the order of the systems.

    All are resampled together, in the replicates of one paired bootstrap over groups; see
    `intervals`. The reference itself differs by 0.

    Raises:
        InputError: systems that were held out in different folds, or for other rows.
    """
    check_shared_folds(list(systems))
    base = systems[reference]
    y, folds = base.labels, max((system.fold for system in systems), key=len)
    found = compare_each(
        y,
        [system.decision for system in systems],
        base.decision,
        base.groups,
        len(base.classes),
        names=tuple(COMPARED),
        fold=folds,
    )
    right = majority_decision(base) == y
    differences = []
    for system, figures in zip(systems, found, strict=True):
        own = majority_decision(system) == y
        counts = [int(rows.sum()) for rows in (own & right, own & ~right, ~own & right)]
        differences.append(
            Difference(system.system, base.system, **figures, both_right=counts[0],
                       only_system_right=counts[1], only_reference_right=counts[2],
                       none_right=len(y) - sum(counts))
        )  # fmt: skip
    return differences


@dataclass(frozen=True)
class Score:
    """Holds a figure of one system, the mean over repeats, and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Compared:
    """Holds two systems' scores by metric, their difference, and what all of it rests on.

    `partial` says, where it is not None, how few of the task's rows it is about.
    """

    a: dict[str, Score]
    b: dict[str, Score]
    difference: Difference
    rows: int
    groups: int
    warnings: list[str]
    snapshot: str
    partial: str | None

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        found = self.difference
        scores = {
            name: {metric: asdict(score) for metric, score in of.items()}
            for name, of in (("a", self.a), ("b", self.b))
        }
        return {
            "a": {"system": found.system, **scores["a"]},
            "b": {"system": found.reference, **scores["b"]},
            "difference": {metric: asdict(getattr(found, metric)) for metric in COMPARED},
            "noise": found.is_noise,
            "both_right": found.both_right,
            "only_a_right": found.only_system_right,
            "only_b_right": found.only_reference_right,
            "none_right": found.none_right,
            "rows": self.rows,
            "groups": self.groups,
            "warnings": self.warnings,
            "snapshot": self.snapshot,
            **({} if self.partial is None else {"partial": self.partial}),
        }

    def lines(self) -> list[dict[str, str]]:
        """Return the scores and their difference, for people."""
        found = self.difference
        about = {} if self.partial is None else {"rows": self.partial}
        cells: dict[str, dict[str, str]] = {}
        for metric, name in COMPARED.items():
            gap = getattr(found, metric)
            cells[f"{name} [95% CI]"] = {
                found.system: _cell(self.a[metric]),
                found.reference: _cell(self.b[metric]),
                "difference": f"{gap.difference:+.4f} [{gap.low:+.3f}, {gap.high:+.3f}]",
            }
        return [
            {"system": row, **{column: cells[column][row] for column in cells}, **about}
            for row in (found.system, found.reference, "difference")
        ]

    def sentences(self) -> list[str]:
        """Say who is right where the other is wrong, and whether the difference is noise."""
        found, partial = self.difference, "" if self.partial is None else f" ({self.partial})"
        return [
            f"of {number_of(self.rows, 'labelled row')}{partial}, {found.system} alone is right in "
            f"{found.only_system_right}, {found.reference} alone in {found.only_reference_right}, "
            f"both in {found.both_right}, none in {found.none_right}",
            f"{found.sentence()}{partial}",
        ]


def _cell(score: Score) -> str:
    return f"{score.value:.4f} [{score.low:.3f}, {score.high:.3f}]"


def compare_systems(task: Task, a: str, b: str, *, partial: bool = False) -> Compared:
    """Compare two stored systems on their out-of-fold decisions, at nested thresholds.

    Raises:
        InputError: a name twice, no such system, or one that is out of date or damaged.
    """
    _check_two(a, b)
    return compare_stored(load_dataset(task, partial=partial), a, b)


def _check_two(a: str, b: str) -> None:
    if a == b:
        raise InputError(f"{a} cannot be compared with itself: name two systems")


def compare_stored(dataset: Dataset, a: str, b: str) -> Compared:
    """Compare two stored systems of a dataset. See `compare_systems`."""
    _check_two(a, b)
    pair = load_systems(dataset, [a, b])
    return Compared(
        a=_scores(pair[0]),
        b=_scores(pair[1]),
        difference=paired_differences(pair, 1)[0],
        rows=len(dataset),
        groups=len(np.unique(dataset.groups)),
        warnings=[*dataset.corrections.remarks(), *few_groups(dataset.groups)],
        snapshot=dataset.snapshot_digest,
        partial=dataset.partial,
    )


def _scores(system: Predictions) -> dict[str, Score]:
    k, rows = len(system.classes), (system.labels, system.decision)
    values = replicated(*rows, k, names=tuple(COMPARED))
    around = intervals(*rows, system.groups, k, names=tuple(COMPARED), fold=system.fold)
    scores = {}
    for name in COMPARED:
        value = float(values[name][0])
        low, high = around[name] or (value, value)
        scores[name] = Score(value, low, high)
    return scores
