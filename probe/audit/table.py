"""The audits there are: one entry adds one, and the tests that walk the table cover it."""

from collections.abc import Callable, Mapping

from archiveprobe.probe.audit.data import AuditData, Finding
from archiveprobe.probe.audit.duplicates import audit_duplicates
from archiveprobe.probe.audit.labels import audit_labels
from archiveprobe.probe.audit.shift import audit_shift
from archiveprobe.probe.audit.shortcuts import audit_shortcuts

AUDITS: Mapping[str, Callable[[AuditData], Finding]] = {
    "duplicates": audit_duplicates,
    "suspect_labels": audit_labels,
    "shortcuts": audit_shortcuts,
    "shift": audit_shift,
}
"""By the key under which the finding's value stands in the JSON of `audit --json`."""
