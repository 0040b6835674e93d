"""The cut of a stored system: shown, found in another way, or fixed by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate import threshold
from archiveprobe.evaluate.calibration import Calibration, CrossFitted
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.leaderboard import nested_figure
from archiveprobe.evaluate.overview import check_up_to_date
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.runs import MODEL, Run, load_run, save_run
from archiveprobe.evaluate.threshold import Curve, Cut
from archiveprobe.task.config import Task

BY_HAND = "fixed"
_SHOWN = np.arange(0.05, 1, 0.05)


@dataclass(frozen=True)
class CutReport:
    """A cut with its spread, what it is worth on rows it has not seen, and the curve around it.

    `macro_f1` with [low, high] comes from nested cuts, `naive` from the cut on the rows that chose
    it, `at_half` from a cut of 0.5 that nobody chose.
    """

    system: str
    cut: Cut
    macro_f1: float
    interval: tuple[float, float]
    naive: float
    at_half: float
    curve: Curve

    def record(self) -> dict[str, Any]:
        """The form of `--json`; the curve has every distinct cut."""
        curve = self.curve
        return {
            "system": self.system,
            "threshold": self.cut.value,
            "low": self.cut.low,
            "high": self.cut.high,
            "method": self.cut.method,
            "macro_f1": self.macro_f1,
            "interval": list(self.interval),
            "naive": self.naive,
            "at_half": self.at_half,
            "curve": [
                {"cut": cut, "macro_f1": f1, "precision": precision, "recall": recall}
                for cut, f1, precision, recall in zip(
                    *(
                        [None if np.isnan(value) else float(value) for value in values]
                        for values in (curve.cuts, curve.macro_f1, curve.precision, curve.recall)
                    ),
                    strict=True,
                )
            ],
        }

    def lines(self) -> list[dict[str, Any]]:
        """The curve at round cuts and at the chosen one, for people."""
        shown = np.sort(np.append(_SHOWN, self.cut.value))
        return [
            {
                "cut": f"{cut:.3f}",
                "macro-F1": f"{_at(self.curve, self.curve.macro_f1, cut):.4f}",
                "precision": f"{_at(self.curve, self.curve.precision, cut):.3f}",
                "recall": f"{_at(self.curve, self.curve.recall, cut):.3f}",
                "": "<- the cut" if cut == self.cut.value else "",
            }
            for cut in shown
        ]


def _at(curve: Curve, values: np.ndarray, cut: float) -> float:
    """The staircase at a cut: its value at the last step not above it."""
    return float(values[max(int(np.searchsorted(curve.cuts, cut, "right")) - 1, 0)])


def report_cut(
    task: Task, system: str, *, method: str | None = None, fixed: float | None = None
) -> CutReport:
    """Show the cut of a stored system; with `method` or `fixed`, set it anew and keep that.

    Raises:
        InputError: no such system, it is out of date, or it has no cut; a cut outside 0 to 1.
    """
    run = load_run(task, system)
    one = run.predictions()
    _check(one, run.record, fixed)
    dataset = load_dataset(task)
    check_up_to_date(run, dataset, f"run `archiveprobe probe {task.file}` again")
    seen, p = _scales(one, run)
    used = method or str(run.record["cut_method"])
    found = _cut(one, p, used, one.cut if method is None and fixed is None else fixed)
    if method is not None or fixed is not None:
        one = _with_cut(one, seen, p, found, dataset.unreadable)
        record = {**run.record, "cut": found.value, "cut_method": found.method}
        arrays = run.arrays() if MODEL in run.files else None
        save_run(task, system, record, one, arrays)
    score, *interval = nested_figure(one, one.decision)
    half = threshold.decide(one.oof[..., one.positive], 0.5, one.positive)
    return CutReport(
        system,
        found,
        score,
        (interval[0], interval[1]),
        float(one.origin["naive"]),
        nested_figure(one, np.where(half < 0, dataset.unreadable, half))[0],
        threshold.curve(one.labels, p, one.positive),
    )


def _check(one: Predictions, record: Mapping[str, Any], fixed: float | None) -> None:
    if len(one.classes) > 2:
        raise InputError(f"{one.system}: with {len(one.classes)} labels the likeliest one wins, "
                         "there is no cut")  # fmt: skip
    if np.isnan(one.cut):
        raise InputError(
            f"{one.system} has no cut of its own, its members vote: fix the cuts of "
            + ", ".join(member["system"] for member in record.get("members", ()))
        )
    if fixed is not None and not 0 < fixed < 1:
        raise InputError(f"a cut of {fixed:g} decides nothing: give one between 0 and 1")


def _scales(one: Predictions, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """The positive class's probabilities that cuts are found on: (R, folds, n), and (R, n) for the
    final one; both are the out-of-fold ones where no calibration was recorded.
    """
    if "calibration" not in one.origin:
        p = one.oof[..., one.positive]
        return p, p
    try:
        held = CrossFitted(np.array(one.origin["calibration"], np.float64))
        logits = held.undo(one.oof, one.fold)
        final = Calibration(**run.record["calibration"]).apply(logits)
        return held.seen(logits)[..., one.positive], final[..., one.positive]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{run.folder} is damaged ({error}): run that system again") from None


def _cut(one: Predictions, p: np.ndarray, method: str, fixed: float | None) -> Cut:
    """The cut by a method; with `fixed`, that value, and a spread where it came from a method."""
    by_method = method if method in threshold.CUTS else "half"
    found = threshold.final(one.labels, p, one.groups, one.positive, by_method)
    if fixed is None:
        return found
    if np.isclose(found.value, fixed):
        return replace(found, value=fixed)
    return Cut(fixed, fixed, fixed, float("nan"), BY_HAND)


def _with_cut(
    one: Predictions, seen: np.ndarray, p: np.ndarray, cut: Cut, unreadable: int
) -> Predictions:
    if cut.method == BY_HAND:
        cuts = np.full_like(one.cuts, cut.value)
        decision = threshold.decide(one.oof[..., one.positive], cut.value, one.positive)
    else:
        nested = threshold.nested(one.labels, seen, one.fold, one.groups, one.positive, cut.method)
        cuts, decision = nested.cuts, nested.decision
    decision = np.where(decision < 0, unreadable, decision)
    naive = threshold.decide(p.mean(0)[None], cut.value, one.positive)
    naive = np.where(naive < 0, unreadable, naive)
    origin = {
        **one.origin,
        "cut_method": cut.method,
        "naive": nested_figure(one, naive)[0],
    }
    return replace(one, cuts=cuts, cut=cut.value, decision=decision, origin=origin)
