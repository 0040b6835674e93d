"""Shortcuts: can what ought not to matter, such as the size of a file, tell the labels apart?"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from archiveprobe.evaluate.intervals import intervals
from archiveprobe.evaluate.metrics import macro_f1
from archiveprobe.probe.audit.data import AuditData, Finding, line
from archiveprobe.probe.audit.properties import (
    SUBJECTS,
    columns_of,
    properties,
    tree_probabilities,
)

ALL = "all together"
# Enough for figures to two digits, however large the archive is.
_MOST_ROWS = 20_000
_PERMUTATIONS = 400
_REPLICATES = 1000


@dataclass(frozen=True)
class Shortcut:
    """How well one kind of property tells the labels apart, out of fold.

    `macro_f1` with its 95 % interval; `chance` is the mean macro-F1 of the same decisions given to
    the rows at random, and `chance_high` its 97.5 % point. None where the property does not vary,
    or a label is too rare to be held out.
    """

    name: str
    macro_f1: float | None = None
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    chance_high: float | None = None

    @property
    def flagged(self) -> bool:
        """Say whether the whole interval lies above what chance gives 39 times of 40.

        Both are uncertain: an interval above mean chance would flag one in twenty properties that
        say nothing of the label.
        """
        return self.low is not None and self.low > (self.chance_high or 0.0)

    def record(self) -> dict[str, Any]:
        """Return the form that `--json` promises."""
        record = asdict(self)
        del record["chance_high"]
        return record | {"flagged": self.flagged}


def audit_shortcuts(data: AuditData) -> Finding:
    """Report properties of the files that tell the labels."""
    shortcuts = find_shortcuts(data)
    warnings = [
        f"labels can be predicted from {shortcut.name}: macro-F1 {shortcut.macro_f1:.3f} "
        f"[{shortcut.low:.3f}, {shortcut.high:.3f}] against {shortcut.chance:.3f} by chance: a "
        "system may learn it instead of what the images show"
        for shortcut in shortcuts
        if shortcut.flagged
    ]
    return Finding(
        value=[shortcut.record() for shortcut in shortcuts],
        lines=[_line(shortcut) for shortcut in shortcuts],
        warnings=warnings,
    )


def _line(shortcut: Shortcut) -> dict[str, str]:
    name = f"shortcut: {shortcut.name}"
    if shortcut.macro_f1 is None:
        return line(name, "-", "the same everywhere")
    result = f"macro-F1 {shortcut.macro_f1:.3f} [{shortcut.low:.3f}, {shortcut.high:.3f}]"
    above = ", above it" if shortcut.flagged else ""
    return line(name, result, f"chance {shortcut.chance:.3f}{above}")


def find_shortcuts(data: AuditData) -> list[Shortcut]:
    """Try every kind of property, and all of them together, on the folds of the task."""
    # Labelled rows whose image was decoded, a random part where there are very many.
    places = np.flatnonzero(data.usable[: len(data.dataset)])
    if len(places) > _MOST_ROWS:
        places = np.sort(np.random.default_rng(0).choice(places, _MOST_ROWS, replace=False))
    columns = properties([data.entries[place] for place in places])
    subjects = {subject: columns_of(columns, subject) for subject in SUBJECTS}
    subjects[ALL] = list(columns.values())
    return [_measure(name, own, data, places) for name, own in subjects.items()]


def _measure(
    name: str, columns: Sequence[np.ndarray], data: AuditData, places: np.ndarray
) -> Shortcut:
    dataset = data.dataset
    y, k = dataset.labels[places], len(dataset.classes)
    proba = None
    if len(np.unique(y)) == k:
        proba = tree_probabilities(columns, y, dataset.fold[0, places])
    if proba is None:
        return Shortcut(name)
    decision, groups = proba.argmax(1), dataset.groups[places]
    found = intervals(y, decision, groups, k, names=("macro_f1",), replicates=_REPLICATES)
    low, high = found["macro_f1"] or (None, None)
    # The same decisions in random order keep how often each is made, and know nothing of the rows.
    rng = np.random.default_rng(0)
    chance = [macro_f1(y, rng.permutation(decision), k) for _ in range(_PERMUTATIONS)]
    return Shortcut(
        name,
        macro_f1(y, decision, k),
        low,
        high,
        float(np.mean(chance)),
        float(np.quantile(chance, 0.975)),
    )
