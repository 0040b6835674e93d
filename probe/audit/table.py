"""The audits there are: one entry adds one, and the tests that walk the table cover it."""

from collections.abc import Callable
from dataclasses import dataclass

from archiveprobe.probe.audit.data import AuditData, Finding
from archiveprobe.probe.audit.duplicates import audit_duplicates
from archiveprobe.probe.audit.labels import audit_labels
from archiveprobe.probe.audit.shift import audit_shift
from archiveprobe.probe.audit.shortcuts import audit_shortcuts


@dataclass(frozen=True)
class Audit:
    """An audit: its key in the JSON of `audit --json`, what it looks for, and its function."""

    key: str
    what: str
    run: Callable[[AuditData], Finding]


AUDITS = (
    Audit("duplicates", "near-duplicates, within and across the split", audit_duplicates),
    Audit("suspect_labels", "labels that are likely wrong", audit_labels),
    Audit("shortcuts", "labels that properties of the files tell", audit_shortcuts),
    Audit("shift", "rows to predict that differ from the labelled ones", audit_shift),
)
