"""Shortcuts: can what ought not to matter, such as the size of a file, tell the labels apart?"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from archiveprobe.evaluate.intervals import intervals
from archiveprobe.evaluate.metrics import from_confusion
from archiveprobe.probe.audit_properties import (
    SUBJECTS,
    chosen,
    encoded,
    held_out_logits,
    properties,
)
from archiveprobe.probe.audit_rows import AuditRows

ALL = "all together"
# Enough for figures to two digits, however large the archive is.
_MOST_ROWS = 20_000
_PERMUTATIONS = 400
_REPLICATES = 1000


@dataclass(frozen=True)
class Shortcut:
    """How well one kind of property tells the labels apart, out of fold.

    `macro_f1` with its 95 % interval; `chance` is the mean macro-F1 of the same decisions dealt out
    among the rows at random, and `chance_high` its 97.5 % point. None where the property does not
    vary, or a label is too rare to be held out.
    """

    name: str
    macro_f1: float | None = None
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    chance_high: float | None = None

    @property
    def flagged(self) -> bool:
        """Whether the whole interval lies above what chance gives 39 times of 40.

        Both are uncertain: of 200 drawn properties that say nothing of the label it flags none,
        where an interval above mean chance would flag 5 %.
        """
        return self.low is not None and self.low > (self.chance_high or 0.0)

    def record(self) -> dict[str, Any]:
        """The form that `--json` promises."""
        return {
            "name": self.name,
            "macro_f1": self.macro_f1,
            "low": self.low,
            "high": self.high,
            "chance": self.chance,
            "flagged": self.flagged,
        }


def find_shortcuts(rows: AuditRows) -> list[Shortcut]:
    """Probe every kind of property, and all of them together, on the folds of the task."""
    places = _places(rows)
    columns = properties([rows.entries[at] for at in places])
    groups = {subject: chosen(columns, subject) for subject in SUBJECTS}
    groups[ALL] = list(columns.values())
    dataset = rows.dataset
    return [
        _probe(
            name,
            encoded(own),
            dataset.labels[places],
            dataset.fold[0, places],
            dataset.groups[places],
            len(rows.classes),
        )
        for name, own in groups.items()
    ]


def _places(rows: AuditRows) -> np.ndarray:
    """Labelled rows whose image was decoded, a drawn part where there are very many."""
    places = np.flatnonzero(rows.usable[: len(rows.dataset)])
    if len(places) > _MOST_ROWS:
        places = np.sort(np.random.default_rng(0).choice(places, _MOST_ROWS, replace=False))
    return places


def _probe(
    name: str, x: np.ndarray | None, y: np.ndarray, fold: np.ndarray, groups: np.ndarray, k: int
) -> Shortcut:
    if x is None or len(np.unique(y)) < k:
        return Shortcut(name)
    logits = held_out_logits(x, y, fold)
    if logits is None:
        return Shortcut(name)
    decision = logits.argmax(1)
    found = intervals(y, decision, groups, k, names=("macro_f1",), replicates=_REPLICATES)[
        "macro_f1"
    ]
    low, high = found or (None, None)
    dealt = _dealt_out(y, decision, k)
    return Shortcut(
        name,
        _macro_f1(y, decision, k),
        low,
        high,
        float(dealt.mean()),
        float(np.quantile(dealt, 0.975)),
    )


def _dealt_out(y: np.ndarray, decision: np.ndarray, k: int) -> np.ndarray:
    """Macro-F1 of the decisions when they are dealt out at random."""
    rng = np.random.default_rng(0)
    return np.array([_macro_f1(y, rng.permutation(decision), k) for _ in range(_PERMUTATIONS)])


def _macro_f1(y: np.ndarray, decision: np.ndarray, k: int) -> float:
    confusion = np.bincount(y * k + decision, minlength=k * k).reshape(k, k)
    return float(from_confusion(confusion)["macro_f1"])
