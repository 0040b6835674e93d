"""What the command `threshold` answers: a threshold and its curve, or one per label."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from archiveprobe.evaluate.aims import CONFIDENCE
from archiveprobe.evaluate.review_load import ReviewLoad
from archiveprobe.evaluate.threshold_curve import Curve, Threshold

AIMS = ("recall", "precision", "cost")
"""Rules that are about one label, whatever the others are."""


@dataclass(frozen=True)
class ThresholdReport:
    """Holds a threshold, its spread, its score on rows it has not seen, and the curve around it.

    `macro_f1` with [low, high] comes from nested thresholds, `optimistic` from the threshold on the
    rows that chose it, `at_half` from a threshold of 0.5 that nobody chose. `load` is about
    `label`, the positive one; `rule` has its number ("recall 0.95").
    """

    system: str
    rule: str
    label: str
    threshold: Threshold
    macro_f1: float
    interval: tuple[float, float]
    optimistic: float
    at_half: float
    load: ReviewLoad
    curve: Curve
    shown: Curve

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`; the curve has every distinct threshold."""
        return {
            "system": self.system,
            **_threshold_record(self.rule, self.threshold),
            "macro_f1": self.macro_f1,
            "interval": list(self.interval),
            "optimistic": self.optimistic,
            "at_half": self.at_half,
            "label": self.label,
            **self.load.record(),
            "curve": [
                {"threshold": threshold, "macro_f1": f1, "precision": precision, "recall": recall}
                for threshold, f1, precision, recall in _points(self.curve)
            ],
        }

    def lines(self) -> list[dict[str, Any]]:
        """Return the curve at round thresholds and at the chosen one, for people."""
        return [
            {
                "threshold": f"{threshold:.3f}",
                "macro-F1": f"{f1:.4f}",
                "precision": "-" if precision is None else f"{precision:.3f}",
                "recall": f"{recall:.3f}",
                "": "<- chosen" if threshold == self.threshold.value else "",
            }
            for threshold, f1, precision, recall in _points(self.shown)
        ]

    def _rule_name(self) -> str:
        name, _, number = self.rule.partition(" ")
        return f"{name} {float(number):g}" if name in AIMS else name

    def summary(self) -> list[str]:
        """Return sentences about the threshold, for people."""
        threshold, (low, high) = self.threshold, self.interval
        score = f"macro-F1 {self.macro_f1:.4f} [{low:.3f}, {high:.3f}]"
        name = f"threshold {threshold.value:.3f} ({self._rule_name()})"
        if threshold.low == threshold.high:
            said = [f"{name}: {score}"]
        else:
            said = [
                f"{name}, range [{threshold.low:.3f}, {threshold.high:.3f}]",
                f"{score} with thresholds chosen on other rows, {self.optimistic:.4f} on the same "
                f"rows, {self.at_half:.4f} at 0.5",
            ]
        load = self.load
        said += [
            f"{self.label!r}: recall {load.recall}, precision {load.precision}{_aim(self.rule)}",
            load.sentence(),
        ]
        return [*said, *_promise(self.rule, threshold, self.label)]


@dataclass(frozen=True)
class LabelThreshold:
    """Holds a threshold for one label against all others; or why there is none."""

    label: str
    threshold: Threshold | None
    load: ReviewLoad | None
    problem: str | None = None


@dataclass(frozen=True)
class LabelReport:
    """Holds a threshold per label, none of which is stored, since the likeliest label wins."""

    system: str
    rule: str
    labels: Sequence[LabelThreshold]
    why: str

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return {"system": self.system, "labels": [self._record(line) for line in self.labels]}

    def _record(self, line: LabelThreshold) -> dict[str, Any]:
        if line.threshold is None or line.load is None:
            return {"label": line.label, "rule": self.rule, "problem": line.problem}
        return {
            "label": line.label,
            **_threshold_record(self.rule, line.threshold),
            **line.load.record(),
            "problem": None,
        }

    def lines(self) -> list[dict[str, Any]]:
        """Return a line per label, for people."""
        return [
            {
                "label": line.label,
                "threshold": "-" if line.threshold is None else f"{line.threshold.value:.3f}",
                "recall": "-" if line.load is None else str(line.load.recall),
                "precision": "-" if line.load is None else str(line.load.precision),
                "to review": "-"
                if line.load is None
                else f"{line.load.review} of {line.load.to_predict}",
            }
            for line in self.labels
        ]

    def summary(self) -> list[str]:
        """Return sentences about the thresholds, for people."""
        said = [line.problem for line in self.labels if line.problem]
        for line in self.labels:
            if line.threshold is not None:
                said += _promise(self.rule, line.threshold, line.label)
        return [*dict.fromkeys(said), f"nothing is stored: {self.why}"]


def _threshold_record(rule: str, threshold: Threshold) -> dict[str, Any]:
    return {
        "threshold": threshold.value,
        "low": threshold.low,
        "high": threshold.high,
        "method": threshold.method,
        "rule": rule,
        "bound": None if np.isnan(threshold.bound) else threshold.bound,
    }


def _aim(rule: str) -> str:
    """Say what a rule aims at."""
    name, _, number = rule.partition(" ")
    return f" (aimed at {name} {float(number):g})" if name in AIMS else ""


def _promise(rule: str, threshold: Threshold, label: str) -> list[str]:
    """Say what a rule that aims at a recall or a precision promises, and what not."""
    if np.isnan(threshold.bound):
        return []
    name, _, number = rule.partition(" ")
    if threshold.bound < float(number):
        return [
            f"{label!r}: too few labelled rows to be sure of {name} {number}, they show at least "
            f"{threshold.bound:.3f}: label more"
        ]
    return [
        f"{100 * CONFIDENCE:g} % of the resamples of the labelled rows reach {name} {number} at "
        "this threshold; it is no guarantee for another archive"
    ]


def _points(curve: Curve) -> Iterator[list[float | None]]:
    """Yield threshold, macro-F1, precision and recall of every point, None where undefined."""
    columns = (curve.thresholds, curve.macro_f1, curve.precision, curve.recall)
    for values in np.stack(columns, 1).tolist():
        yield [None if np.isnan(value) else value for value in values]
