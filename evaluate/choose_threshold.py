"""The threshold of a stored system: shown, found in another way, or fixed by hand."""

from collections.abc import Mapping
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
from archiveprobe.evaluate.thresholding import Curve, Threshold
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

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`; the curve has every distinct threshold."""
        curve = self.curve
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
                for threshold, f1, precision, recall in zip(
                    *(
                        [None if np.isnan(value) else float(value) for value in values]
                        for values in (
                            curve.thresholds,
                            curve.macro_f1,
                            curve.precision,
                            curve.recall,
                        )
                    ),
                    strict=True,
                )
            ],
        }

    def lines(self) -> list[dict[str, Any]]:
        """Return the curve at round thresholds and at the chosen one, for people."""
        shown = np.sort(np.append(_SHOWN, self.threshold.value))
        return [
            {
                "threshold": f"{threshold:.3f}",
                "macro-F1": f"{_at(self.curve, self.curve.macro_f1, threshold):.4f}",
                "precision": f"{_at(self.curve, self.curve.precision, threshold):.3f}",
                "recall": f"{_at(self.curve, self.curve.recall, threshold):.3f}",
                "": "<- chosen" if threshold == self.threshold.value else "",
            }
            for threshold in shown
        ]


def _at(curve: Curve, values: np.ndarray, threshold: float) -> float:
    """Return the staircase at a threshold: its value at the last step not above it."""
    return float(values[max(int(np.searchsorted(curve.thresholds, threshold, "right")) - 1, 0)])


def report_threshold(
    task: Task, system: str, *, method: str | None = None, fixed: float | None = None
) -> ThresholdReport:
    """Show the threshold of a stored system; with `method` or `fixed`, set it anew and keep that.

    Raises:
        InputError: no such system, it is out of date, or it has no threshold; a threshold outside 0
        to 1.
    """
    run = load_run(task, system)
    stored = run.predictions()
    _check(stored, run.record, fixed)
    dataset = load_dataset(task)
    check_up_to_date(run, dataset, f"run `archiveprobe probe {task.file}` again")
    by_fold, p = _scales(stored, run)
    used = method or str(run.record["threshold_rule"])
    chosen = _threshold(
        stored, p, used, stored.threshold if method is None and fixed is None else fixed
    )
    if method is not None or fixed is not None:
        stored = _with_threshold(stored, by_fold, p, chosen, dataset.unreadable)
        record = {**run.record, "threshold": chosen.value, "threshold_rule": chosen.method}
        arrays = run.arrays() if MODEL in run.files else None
        save_run(task, system, record, stored, arrays)
    score, *interval = nested_score(stored, stored.decision)
    half = thresholding.decide(stored.oof[..., stored.positive], 0.5, stored.positive)
    return ThresholdReport(
        system,
        chosen,
        score,
        (interval[0], interval[1]),
        float(stored.origin["optimistic"]),
        nested_score(stored, np.where(half < 0, dataset.unreadable, half))[0],
        thresholding.curve(stored.labels, p, stored.positive),
    )


def _check(stored: Predictions, record: Mapping[str, Any], fixed: float | None) -> None:
    if len(stored.classes) > 2:
        raise InputError(
            f"{stored.system}: with {len(stored.classes)} labels the likeliest wins, there is no "
            "threshold"
        )
    if np.isnan(stored.threshold):
        raise InputError(
            f"{stored.system} has no threshold of its own, its members vote: fix the thresholds of "
            + ", ".join(member["system"] for member in record.get("members", ()))
        )
    if fixed is not None and not 0 < fixed < 1:
        raise InputError(f"threshold must lie between 0 and 1, got {fixed:g}")


def _scales(stored: Predictions, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Find what thresholds are chosen on: probabilities (R, folds, n), and (R, n) for the
    final one; both are the out-of-fold ones where no calibration was recorded.
    """
    if "calibration" not in stored.origin:
        p = stored.oof[..., stored.positive]
        return p, p
    try:
        calibrated = CrossFitted(np.array(stored.origin["calibration"], np.float64))
        logits = calibrated.undo(stored.oof, stored.fold)
        final = Calibration(**run.record["calibration"]).apply(logits)
        return calibrated.of_every_fold(logits)[..., stored.positive], final[..., stored.positive]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{run.folder} is damaged ({error}): run that system again") from None


def _threshold(stored: Predictions, p: np.ndarray, method: str, fixed: float | None) -> Threshold:
    """Choose the threshold by a method; with `fixed`, take that value."""
    by_method = method if method in thresholding.THRESHOLD_RULES else "half"
    chosen = thresholding.final(stored.labels, p, stored.groups, stored.positive, by_method)
    if fixed is None:
        return chosen
    if np.isclose(chosen.value, fixed):
        return replace(chosen, value=fixed)
    return Threshold(fixed, fixed, fixed, float("nan"), BY_HAND)


def _with_threshold(
    stored: Predictions, by_fold: np.ndarray, p: np.ndarray, threshold: Threshold, unreadable: int
) -> Predictions:
    if threshold.method == BY_HAND:
        thresholds = np.full_like(stored.thresholds, threshold.value)
        decision = thresholding.decide(
            stored.oof[..., stored.positive], threshold.value, stored.positive
        )
    else:
        nested = thresholding.nested(
            stored.labels, by_fold, stored.fold, stored.groups, stored.positive, threshold.method
        )
        thresholds, decision = nested.thresholds, nested.decision
    decision = np.where(decision < 0, unreadable, decision)
    optimistic = thresholding.decide(p.mean(0)[None], threshold.value, stored.positive)
    optimistic = np.where(optimistic < 0, unreadable, optimistic)
    origin = {
        **stored.origin,
        "threshold_rule": threshold.method,
        "optimistic": nested_score(stored, optimistic)[0],
    }
    return replace(
        stored, thresholds=thresholds, threshold=threshold.value, decision=decision, origin=origin
    )
