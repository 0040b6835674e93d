"""What is wrong with the data: duplicates, suspect labels, shortcuts, and a shift to other rows."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import write_whole
from archiveprobe.evaluate.dataset import Dataset, load_dataset
from archiveprobe.evaluate.system_status import OUT_OF_DATE, overview
from archiveprobe.probe.audit_duplicates import EMBEDDINGS, Duplicates, Group, find_duplicates
from archiveprobe.probe.audit_labels import Suspect, Suspects, as_corrections, find_suspects
from archiveprobe.probe.audit_rows import (
    AuditRows,
    Notify,
    cached_backbones,
    gather,
    unit_embeddings,
)
from archiveprobe.probe.audit_shift import Shift, shift
from archiveprobe.probe.audit_shortcuts import Shortcut, find_shortcuts
from archiveprobe.task.config import Task
from archiveprobe.task.folds import regroup

_STEPS = 4
_NAMED = 3


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    `groups` are near-duplicates; `suspects` labels that are likely wrong, by `judge`; `regrouped`
    says that the folds were cut anew, which puts the systems in `stale` out of date. `files` were
    written; `snapshot` is the digest of the state that all this is about.
    """

    groups: tuple[Group, ...]
    threshold: float | None
    suspects: tuple[Suspect, ...]
    judge: str | None
    shortcuts: tuple[Shortcut, ...]
    shift: Shift
    warnings: tuple[str, ...]
    regrouped: bool
    stale: tuple[str, ...]
    files: tuple[Path, ...]
    snapshot: str = ""
    partial: str | None = None

    def record(self) -> dict[str, Any]:
        """The form that `--json` promises: counts, then what they count."""
        return {
            "duplicates": len(self.groups),
            "suspect_labels": len(self.suspects),
            "shortcuts": [one.record() for one in self.shortcuts],
            "shift": self.shift.record(),
            "warnings": list(self.warnings),
            "duplicate_groups": [one.record() for one in self.groups],
            "copy_threshold": self.threshold,
            "suspects": [one.record() for one in self.suspects],
            "judge": self.judge,
            "regrouped": self.regrouped,
            "stale": list(self.stale),
            "snapshot": self.snapshot,
            "partial": self.partial,
        }

    def lines(self) -> list[dict[str, Any]]:
        """A table for people: what was looked for, what was found, and what it is about."""
        lines = [*self._duplicate_lines(), self._label_line(), *map(_shortcut_line, self.shortcuts),
                 self._shift_line()]  # fmt: skip
        if self.partial is None:
            return lines
        return [{**line, "about": f"{line['about']} ({self.partial})"} for line in lines]

    def _duplicate_lines(self) -> list[dict[str, Any]]:
        counts = {
            "near-duplicate groups": list(self.groups),
            "- found by embeddings only": [
                one for one in self.groups if one.found_by == EMBEDDINGS
            ],
            "- with different labels": [one for one in self.groups if one.conflicting],
            "- both labelled and to predict": [one for one in self.groups if one.straddles],
        }
        return [
            _cells(name, str(len(found)), f"{sum(len(one.ids) for one in found)} rows")
            for name, found in counts.items()
        ]

    def _label_line(self) -> dict[str, Any]:
        if self.judge is None:
            return _cells("suspect labels", "-", "not looked for")
        return _cells("suspect labels", str(len(self.suspects)), f"by {self.judge}")

    def _shift_line(self) -> dict[str, Any]:
        one = self.shift
        if one.auc is None:
            return _cells("shift to the rows to predict", "-", "too few rows to tell")
        telling = ", ".join(f"{each.name} {each.auc:.2f}" for each in one.properties[:_NAMED])
        found = f"AUC {one.auc:.3f} ({one.low:.3f} - {one.high:.3f})"
        return _cells("shift to the rows to predict", found, telling or "no property stands out")


def _cells(name: str, found: str, about: str) -> dict[str, Any]:
    return {"looked for": name, "found": found, "about": about}


def _shortcut_line(one: Shortcut) -> dict[str, Any]:
    name = f"shortcut: {one.name}"
    if one.macro_f1 is None:
        return _cells(name, "-", "the same everywhere")
    found = f"macro-F1 {one.macro_f1:.3f} ({one.low:.3f} - {one.high:.3f})"
    return _cells(name, found, f"chance {one.chance:.3f}{', above it' if one.flagged else ''}")


def run_audit(
    task: Task,
    *,
    apply: bool = False,
    partial: bool = False,
    notify: Notify = lambda _: None,
    progress: Callable[[str, int], Any] | None = None,
) -> Audit:
    """Look for faults of the data; with `apply`, cut the folds anew along the duplicates found.

    Writes work/audit/: audit.json, duplicates.csv and suspect_labels.csv.

    Raises:
        InputError: nothing is embedded yet, or the folds cannot be cut anew.
        InputError: a cache is damaged.
    """
    dataset = load_dataset(task, partial=partial)
    if apply:
        _check_regroupable(dataset)
    backbones = list(cached_backbones(dataset, notify))
    rows = gather(dataset)
    warnings = [] if dataset.partial is None else [f"{dataset.partial}, the others wait for embed"]
    with nullcontext(lambda: None) if progress is None else progress("auditing", _STEPS) as advance:
        embeddings = unit_embeddings(dataset, backbones, np.arange(len(rows)))
        duplicates = find_duplicates(rows, embeddings)
        del embeddings
        advance()
        suspects = _suspects(dataset, backbones, warnings)
        advance()
        shortcuts = find_shortcuts(rows)
        advance()
        moved = shift(dataset)
        advance()
    regrouped = apply and _apply(dataset, rows, duplicates)
    warnings += _about_duplicates(dataset, duplicates, regrouped)
    warnings += _about_shortcuts(shortcuts)
    warnings += [moved.warning] if moved.warning else []
    old = [one.system for one in overview(task) if one.state.startswith(OUT_OF_DATE)]
    if old:
        warnings.append(
            f"systems that are {OUT_OF_DATE}: {_few(old)}: run "
            f"`archiveprobe probe {task.file}` again"
        )
    found = Audit(
        groups=duplicates.groups,
        threshold=duplicates.threshold,
        suspects=suspects.rows if suspects else (),
        judge=suspects.system if suspects else None,
        shortcuts=tuple(shortcuts),
        shift=moved,
        warnings=tuple(warnings),
        regrouped=regrouped,
        stale=tuple(old),
        files=tuple(task.work / "audit" / name for name in _FILES),
        snapshot=dataset.snapshot_digest,
        partial=dataset.partial,
    )
    _write(found)
    return found


def _suspects(dataset: Dataset, backbones: Sequence[str], warnings: list[str]) -> Suspects | None:
    try:
        return find_suspects(dataset, backbones)
    except InputError as error:
        warnings.append(f"suspect labels were not looked for: {error}")
        return None


def _check_regroupable(dataset: Dataset) -> None:
    task = dataset.task
    if dataset.partial is not None:
        raise InputError(
            f"folds are cut anew along all images only: run `archiveprobe embed {task.file}` first"
        )
    if task.folds.group == "none":
        raise InputError(
            f'folds.group is "none" in {task.file}, so no group is kept together: set it to '
            f'"near-duplicates", delete {task.work / "folds.csv"}, and run audit --apply again'
        )


def _apply(dataset: Dataset, rows: AuditRows, duplicates: Duplicates) -> bool:
    """Regroup the folds; False where they have these groups already."""
    task = dataset.task
    group_of = dict(zip(map(str, rows.ids), duplicates.number.tolist(), strict=True))
    known = {entry.id: entry for entry in rows.entries}
    entries = [known[row.id] for row in dataset.rows]
    return regroup(task, dataset.rows, entries, [group_of[row.id] for row in dataset.rows])


def _about_duplicates(dataset: Dataset, found: Duplicates, regrouped: bool) -> list[str]:
    said = []
    straddling = [one for one in found.groups if one.straddles]
    if straddling:
        said.append(
            f"{_count(straddling)} of near-duplicates across labelled rows and rows to predict: "
            f"{_examples(straddling)}: copies flatter figures there, look at them"
        )
    conflicting = [one for one in found.groups if one.conflicting]
    if conflicting:
        said.append(
            f"{_count(conflicting)} of near-duplicates with different labels: "
            f"{_examples(conflicting)}: look at them, and put the right labels into corrections"
        )
    leaking = 0 if regrouped else across_folds(dataset, found.number[: len(dataset)])
    if leaking:
        what = "1 group" if leaking == 1 else f"{leaking} groups"
        said.append(
            f"{what} of near-duplicates across folds, which flatters every system: run "
            f"`archiveprobe audit {dataset.task.file} --apply`"
        )
    return said


def across_folds(dataset: Dataset, number: np.ndarray) -> int:
    """How many groups, by the number (n,) of every labelled row, are spread over folds."""
    first = np.unique(number, return_index=True, return_inverse=True)
    home = dataset.fold[:, first[1]][:, first[2]]
    return len(np.unique(number[(home != dataset.fold).any(0)]))


def _about_shortcuts(shortcuts: Sequence[Shortcut]) -> list[str]:
    return [
        f"labels can be told by {one.name}: macro-F1 {one.macro_f1:.3f} ({one.low:.3f} - "
        f"{one.high:.3f}) against {one.chance:.3f} by chance: a system may learn it instead of "
        "what the images show"
        for one in shortcuts
        if one.flagged
    ]


def _count(groups: Sequence[Group]) -> str:
    return "1 group" if len(groups) == 1 else f"{len(groups)} groups"


def _examples(groups: Sequence[Group]) -> str:
    return _few([" = ".join(one.ids[:_NAMED]) for one in groups])


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


_FILES = ("audit.json", "duplicates.csv", "suspect_labels.csv")


def _write(found: Audit) -> None:
    record = json.dumps(found.record(), indent=2, ensure_ascii=False, allow_nan=False)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["group", "id", "label", "found_by"])
    for number, group in enumerate(found.groups):
        for id_, label in zip(group.ids, group.labels, strict=True):
            writer.writerow([number, id_, label or "", group.found_by])
    contents = (
        f"{record}\n".encode("utf-8", "surrogateescape"),
        out.getvalue().encode("utf-8", "surrogateescape"),
        as_corrections(found.suspects),
    )
    for file, content in zip(found.files, contents, strict=True):
        write_whole(file, content)
