"""Recall first: the highest threshold that surely finds a share of the positive label.

Three aims of a system take about a second, so they are computed for the best systems only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.choose_threshold import threshold_for
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_store import Run
from archiveprobe.evaluate.threshold_report import LabelThreshold
from archiveprobe.evaluate.thresholding import numbered

MOST_SYSTEMS = 5
RECALLS = (0.9, 0.95, 0.98)


def aims_of(run: Run, stored: Predictions, unreadable: int) -> list[dict[str, Any]] | None:
    """Return what every recall asks for; None where no threshold decides, or it is damaged.

    "threshold" is the final one, "recall" with its interval and "precision" come from thresholds
    that were found on other rows, "review" counts rows to predict above the final one. "bound" is
    the recall that the labelled rows surely show; where an aim is out of reach, "problem" says why
    and all figures are None.
    """
    if len(stored.classes) != 2 or stored.answer is not None or np.isnan(stored.threshold):
        return None
    rules = [numbered("recall", recall) for recall in RECALLS]
    try:
        return [_record(rule, _aim(run, stored, rule, unreadable)) for rule in rules]
    except InputError:
        return None


def _aim(run: Run, stored: Predictions, rule: str, unreadable: int) -> LabelThreshold:
    return threshold_for(stored, run, rule, stored.positive, unreadable)


def _record(rule: str, found: LabelThreshold) -> dict[str, Any]:
    record: dict[str, Any] = dict.fromkeys(_FIGURES)
    threshold, load = found.threshold, found.load
    if threshold is not None and load is not None:
        record |= {
            "threshold": float(threshold.value),
            "bound": float(threshold.bound) if np.isfinite(threshold.bound) else None,
            "recall": load.recall.estimate,
            "low": load.recall.low,
            "high": load.recall.high,
            "precision": load.precision.estimate,
            "precision_low": load.precision.low,
            "precision_high": load.precision.high,
            "review": load.review,
            "to_predict": load.to_predict,
            "cannot_be_read": load.unreadable,
            "per_thousand": load.per_thousand,
        }
    return {"rule": rule, **record, "problem": found.problem}


_FIGURES: Sequence[str] = (
    "threshold bound recall low high precision precision_low precision_high review to_predict "
    "cannot_be_read per_thousand"
).split()
