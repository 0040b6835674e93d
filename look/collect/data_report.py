"""What is wrong with the data, found anew: which labels are suspect depends on the systems.

On 2,000 images it takes some five seconds, of which shortcuts take three and the shift two, so no
stored audit is read, and none is written.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from archiveprobe.api.state import Pinned
from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify, Progress
from archiveprobe.look.collect.groups import MOST_PAIRED, group_numbers, numbered_groups
from archiveprobe.look.collect.missing import missing_of
from archiveprobe.look.collect.parts import Missing, Part
from archiveprobe.probe.audit.data import AuditData, audit_data
from archiveprobe.probe.audit.duplicates import find_duplicates
from archiveprobe.probe.audit.labels import audit_labels
from archiveprobe.probe.audit.shift import Shift, shift_of, tell_apart
from archiveprobe.probe.audit.shortcuts import audit_shortcuts

_EXAMPLES = 12


@dataclass
class DataReport:
    """Holds columns and figures of the data, and the shift, which the leaderboard heeds.

    `label` (N,) is that of every row, -1 where it is to be predicted.
    """

    label: np.ndarray
    columns: dict[str, np.ndarray]
    figures: dict[str, Any]
    missing: list[Missing] = field(default_factory=list)
    shift: Shift = field(default_factory=Shift)

    @property
    def part(self) -> Part:
        """Return what the page shows of it."""
        group = self.columns["group"]
        groups = {"count": int(group.max(initial=-1)) + 1, "rows": int((group >= 0).sum())}
        return Part(self.columns, {"data": {**self.figures, "groups": groups}}, self.missing)

    @property
    def order(self) -> np.ndarray:
        """Return the place in the table (N,) of every row of an audit's data."""
        return np.argsort(self.label < 0, kind="stable")


def collect_data(
    pinned: Pinned, label: np.ndarray, notify: Notify, progress: Progress
) -> DataReport:
    """Look for copies, suspect labels, shortcuts and shift, as far as labels and caches allow."""
    unreadable = Counter(entry.status for entry in pinned.entries if not entry.usable)
    columns: dict[str, np.ndarray] = {
        "suspect": np.full(len(label), np.nan, np.float32),
        "suggested": np.full(len(label), -1, np.int8),
    }
    figures = {
        "unreadable": dict(sorted(unreadable.items())),
        "suspects": {"judge": None, "count": 0},
        "shortcuts": [],
        "shift": None,
        "warnings": [],
    }
    report = DataReport(label, columns, figures)
    if pinned.dataset is not None:
        try:
            data = audit_data(pinned.dataset, notify=notify)
            with progress("auditing", len(_AUDITS)) as advance:
                for audit in _AUDITS:
                    audit(data, report)
                    advance()
        except InputError as error:
            again = f"archiveprobe embed {pinned.task.shell_path}"
            report.missing.append(missing_of(error, again, what="no audit"))
    if "group" not in columns:
        columns["group"] = group_numbers(pinned)
    return report


def _copies(data: AuditData, report: DataReport) -> None:
    """Find near-duplicates by hash and embeddings, where every pair can be compared."""
    if len(data) > MOST_PAIRED:
        what = f"of {len(data)} images, only equal files and groups of the folds count as copies"
        report.missing.append(Missing(what, f"archiveprobe audit {data.dataset.task.shell_path}"))
        return
    found = find_duplicates(data, data.unit_embeddings(np.arange(len(data))))
    place = dict(zip(data.ids.tolist(), report.order.tolist(), strict=True))
    groups = [[place[id_] for id_ in group.ids] for group in found.groups]
    report.columns["group"] = numbered_groups(groups, len(data))


def _suspects(data: AuditData, report: DataReport) -> None:
    finding = audit_labels(data)
    place = dict(zip(data.ids.tolist(), report.order.tolist(), strict=True))
    suspects = finding.details["suspects"]
    for suspect in suspects:
        at = place[suspect["id"]]
        report.columns["suspect"][at] = suspect["score"]
        report.columns["suggested"][at] = data.dataset.classes.index(suspect["suggested"])
    report.figures["suspects"] = {"judge": finding.details["judge"], "count": len(suspects)}
    report.figures["warnings"] += finding.warnings


def _shortcuts(data: AuditData, report: DataReport) -> None:
    finding = audit_shortcuts(data)
    report.figures["shortcuts"] = finding.value
    report.figures["warnings"] += finding.warnings


def _shift(data: AuditData, report: DataReport) -> None:
    """Tell rows to predict from labelled ones, with examples of what is unlike the other side."""
    sides = tell_apart(data)
    report.shift = shift_of(sides)
    empty = np.empty(0, np.intp)
    examples = (empty, empty) if sides is None else sides.examples(_EXAMPLES)
    names = ("labelled", "to_predict")
    report.figures["shift"] = report.shift.record() | {
        "examples": {
            name: report.order[places].tolist()
            for name, places in zip(names, examples, strict=True)
        }
    }


_AUDITS = (_copies, _suspects, _shortcuts, _shift)
