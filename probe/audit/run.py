"""The audit: every entry of the table on one snapshot, its report and its files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiveprobe.base.files import write_whole
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.base.wording import first_few
from archiveprobe.evaluate.dataset import load_dataset
from archiveprobe.evaluate.system_status import OUT_OF_DATE, overview
from archiveprobe.probe.audit.data import Finding, audit_data
from archiveprobe.probe.audit.table import AUDITS
from archiveprobe.task.config import Task


@dataclass(frozen=True)
class AuditReport:
    """What an audit found, by the keys of the table.

    `stale` systems are out of date, since the folds were assigned again or for another reason;
    `files` were written; `snapshot` is the digest of the state that all this is about, and
    `corrections` count the labels that were corrected, None where there is no file of them.
    """

    findings: Mapping[str, Finding]
    warnings: tuple[str, ...]
    stale: tuple[str, ...]
    files: tuple[Path, ...]
    snapshot: str
    partial: str | None = None
    corrections: Mapping[str, int] | None = None

    @property
    def regrouped(self) -> bool:
        """Say whether the folds were assigned again."""
        return bool(self.record()["regrouped"])

    def record(self) -> dict[str, Any]:
        """Return the form that `--json` promises: the value of every audit, then the details."""
        findings = self.findings.values()
        return {
            **{key: finding.value for key, finding in self.findings.items()},
            "warnings": list(self.warnings),
            **{key: value for finding in findings for key, value in finding.details.items()},
            "stale": list(self.stale),
            "snapshot": self.snapshot,
            "partial": self.partial,
            "corrections": self.corrections,
        }

    def lines(self) -> list[dict[str, str]]:
        """Return a table for people: what was looked for, what was found, what it is about."""
        about = "" if self.partial is None else f" ({self.partial})"
        return [
            {**row, "about": row["about"] + about}
            for finding in self.findings.values()
            for row in finding.lines
        ]


def run_audit(
    task: Task,
    *,
    apply: bool = False,
    partial: bool = False,
    notify: Notify = lambda _: None,
    progress: Progress = silent,
) -> AuditReport:
    """Look for faults of the data; with `apply`, assign the folds again along the duplicates found.

    Writes work/audit/: audit.json and the files of the audits.

    Raises:
        InputError: nothing is embedded yet, or the folds cannot be assigned again.
        InputError: a cache is damaged.
    """
    dataset = load_dataset(task, partial=partial)
    data = audit_data(dataset, apply=apply, notify=notify)
    findings = {}
    with progress("auditing", len(AUDITS)) as advance:
        for key, audit in AUDITS.items():
            findings[key] = audit(data)
            advance()
    warnings = [] if dataset.partial is None else [f"{dataset.partial}, the others wait for embed"]
    warnings += [warning for finding in findings.values() for warning in finding.warnings]
    corrections = dataset.corrections.remarks()
    stale = [row.system for row in overview(task) if row.state.startswith(OUT_OF_DATE)]
    if corrections and stale:
        corrections[0] += ": `probe` uses them, and systems trained before are out of date"
    warnings = [*corrections, *warnings]
    if stale:
        warnings.append(
            f"systems that are {OUT_OF_DATE}: {first_few(stale)}: run "
            f"`archiveprobe probe {task.shell_path}` again"
        )
    contents = {name: text for finding in findings.values() for name, text in finding.files.items()}
    report = AuditReport(
        findings,
        tuple(warnings),
        tuple(stale),
        tuple(task.work / "audit" / name for name in ("audit.json", *contents)),
        dataset.snapshot_digest,
        dataset.partial,
        dataset.corrections.record(),
    )
    record = json.dumps(report.record(), indent=2, ensure_ascii=False, allow_nan=False)
    contents = {"audit.json": f"{record}\n".encode("utf-8", "surrogateescape"), **contents}
    for file in report.files:
        write_whole(file, contents[file.name])
    return report
