"""The threshold of a stored system: shown, found by another rule, or fixed by hand."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate import thresholding
from archiveprobe.evaluate.calibration import Calibration, CrossFitted
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.leaderboard import nested_score
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_status import check_up_to_date
from archiveprobe.evaluate.system_store import MODEL, Run, load_run, save_run
from archiveprobe.evaluate.thresholding import THRESHOLD_RULES, Curve, Threshold, decide
from archiveprobe.task.config import Task

BY_HAND = "fixed"
_SHOWN = np.arange(0.05, 1, 0.05)


@dataclass(frozen=True)
class ThresholdReport:
    """Holds a threshold, its spread, its score on rows it has not seen, and the curve around it.

    `macro_f1` with [low, high] comes from nested thresholds, `optimistic` from the threshold on the
    rows that chose it, `at_half` from a threshold of 0.5 that nobody chose.
    """

    system: str
    threshold: Threshold
    macro_f1: float
    interval: tuple[float, float]
    optimistic: float
    at_half: float
    curve: Curve
    shown: Curve

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`; the curve has every distinct threshold."""
        return {
            "system": self.system,
            "threshold": self.threshold.value,
            "low": self.threshold.low,
            "high": self.threshold.high,
            "method": self.threshold.method,
            "macro_f1": self.macro_f1,
            "interval": list(self.interval),
            "optimistic": self.optimistic,
            "at_half": self.at_half,
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


def report_threshold(
    task: Task, system: str, *, method: str | None = None, fixed: float | None = None
) -> ThresholdReport:
    """Show the threshold of a stored system; with `method` or `fixed`, set it again and store that.

    Raises:
        InputError: no such system, it is out of date, or it has no threshold; a threshold outside 0
        to 1.
    """
    run = load_run(task, system)
    stored = run.predictions()
    _check(stored, run, fixed)
    dataset = load_dataset(task)
    check_up_to_date(run, dataset)
    by_fold, p = _probabilities(stored, run)
    rule = method or str(run.record["threshold_rule"])
    changes = method is not None or fixed is not None
    chosen = _threshold(stored, p, rule, fixed if changes else stored.threshold)
    if changes:
        stored = _with_threshold(stored, by_fold, p, chosen, dataset.unreadable)
        record = {**run.record, "threshold": chosen.value, "threshold_rule": chosen.method}
        save_run(task, system, record, stored, run.arrays() if MODEL in run.files else None)
    score, low, high = nested_score(stored, stored.decision)
    half = _decide(stored, stored.oof[..., stored.positive], 0.5, dataset.unreadable)
    return ThresholdReport(
        system,
        chosen,
        score,
        (low, high),
        float(stored.origin["optimistic"]),
        nested_score(stored, half)[0],
        thresholding.curve(stored.labels, p, stored.positive),
        thresholding.curve(stored.labels, p, stored.positive, _shown_with(chosen.value)),
    )


def _shown_with(chosen: float) -> np.ndarray:
    """Return the round thresholds and the chosen one, each once."""
    return np.sort(np.append(_SHOWN[~np.isclose(_SHOWN, chosen)], chosen))


def _points(curve: Curve) -> Iterator[list[float | None]]:
    """Yield threshold, macro-F1, precision and recall of every point, None where undefined."""
    columns = (curve.thresholds, curve.macro_f1, curve.precision, curve.recall)
    for values in np.stack(columns, 1).tolist():
        yield [None if np.isnan(value) else value for value in values]


def _check(stored: Predictions, run: Run, fixed: float | None) -> None:
    if len(stored.classes) > 2:
        raise InputError(
            f"{stored.system}: with {len(stored.classes)} labels the likeliest wins, there is no "
            "threshold"
        )
    if np.isnan(stored.threshold):
        raise InputError(
            f"{stored.system} has no threshold of its own, its members vote: fix the thresholds of "
            + ", ".join(member["system"] for member in run.record.get("members", ()))
        )
    if fixed is not None and not 0 < fixed < 1:
        raise InputError(f"threshold must lie between 0 and 1, got {fixed:g}")


def _probabilities(stored: Predictions, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Compute what thresholds are chosen on: nested ones (R, folds, n), the final one (R, n).

    Both are the out-of-fold probabilities (R, n) where no calibration was recorded.
    """
    positive = stored.positive
    if "calibration" not in stored.origin:
        p = stored.oof[..., positive]
        return p, p
    try:
        calibrated = CrossFitted(np.array(stored.origin["calibration"], np.float64))
        logits = calibrated.undo(stored.oof, stored.fold)
        final = Calibration(**run.record["calibration"]).apply(logits)
        return calibrated.of_every_fold(logits)[..., positive], final[..., positive]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{run.folder} is damaged ({error}): run that system again") from None


def _threshold(stored: Predictions, p: np.ndarray, rule: str, fixed: float | None) -> Threshold:
    """Choose the threshold by a rule; with `fixed`, take that value."""
    known_rule = rule if rule in THRESHOLD_RULES else "half"
    chosen = thresholding.final(stored.labels, p, stored.groups, stored.positive, known_rule)
    if fixed is None:
        return chosen
    if np.isclose(chosen.value, fixed):
        return replace(chosen, value=fixed)
    return Threshold(fixed, fixed, fixed, float("nan"), BY_HAND)


def _decide(stored: Predictions, p: np.ndarray, threshold: float, unreadable: int) -> np.ndarray:
    """Decide at one threshold; rows without a probability get the `unreadable` answer."""
    return np.where(np.isnan(p), unreadable, decide(p, threshold, stored.positive))


def _with_threshold(
    stored: Predictions, by_fold: np.ndarray, p: np.ndarray, threshold: Threshold, unreadable: int
) -> Predictions:
    """Decide every row again: at the fixed threshold, or at nested ones of the same rule."""
    if threshold.method == BY_HAND:
        thresholds = np.full_like(stored.thresholds, threshold.value)
        decision = decide(stored.oof[..., stored.positive], threshold.value, stored.positive)
    else:
        nested = thresholding.nested(
            stored.labels, by_fold, stored.fold, stored.groups, stored.positive, threshold.method
        )
        thresholds, decision = nested.thresholds, nested.decision
    optimistic = _decide(stored, p.mean(0)[None], threshold.value, unreadable)
    origin = {
        **stored.origin,
        "threshold_rule": threshold.method,
        "optimistic": nested_score(stored, optimistic)[0],
    }
    return replace(
        stored,
        thresholds=thresholds,
        threshold=threshold.value,
        decision=np.where(decision < 0, unreadable, decision),
        origin=origin,
    )
