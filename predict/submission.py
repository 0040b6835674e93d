"""The submission: a file in the template's form that cannot be out of order."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import quote_few
from archiveprobe.evaluate.dataset import Dataset, Rows, load_dataset
from archiveprobe.predict.checks import (
    Share,
    SpotCheck,
    changed_answers,
    is_memorized,
    shares,
    spot_check,
    training_duplicates,
)
from archiveprobe.predict.systems import Answers, System, load_system
from archiveprobe.predict.tables import (
    Cells,
    Form,
    WrittenAnswers,
    output_files,
    wanted,
    write_answers,
    write_spreadsheet_copy,
)
from archiveprobe.probe.audit.shift import find_shift
from archiveprobe.task.config import Task


@dataclass(frozen=True, kw_only=True)
class Submission(WrittenAnswers):
    """Holds what the reader of a submission should know before handing it in.

    `unreadable` rows have no image and got `answer`; `reasons` counts why.
    """

    answer: str
    shares: list[Share]
    spot_check: SpotCheck
    reasons: dict[str, int]
    warnings: list[str]

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return {
            **super().record(),
            "reasons": self.reasons,
            "shares": [asdict(share) for share in self.shares],
            "canary": asdict(self.spot_check),
            "warnings": self.warnings,
        }

    def lines(self) -> list[dict[str, Any]]:
        """Return the shares, a line each, for people."""
        return [
            {
                "label": share.label,
                "share of answers": f"{share.share:.3f}",
                "of labelled rows": f"{share.training:.3f}",
                "95 % range": f"{share.low:.3f} - {share.high:.3f}",
            }
            for share in self.shares
        ]

    def summary(self) -> str:
        """Return what was written, in a sentence."""
        lost = ""
        if self.unreadable:
            why = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
            lost = f"; {self.unreadable} cannot be read and got {self.answer!r} ({why})"
        return (
            f"{self.rows} rows by {self.system} in {self.file}, read back and in order; "
            f"{self.spot_check.rows} answered again from their {_BY[self.spot_check.by]}{lost}"
        )


_BY = {"images": "images", "manifest": "images' digests (the files are not here)"}


def submit(
    task: Task,
    system: str,
    file: Path,
    *,
    spreadsheet_safe: bool = False,
    warnings: Sequence[str] = (),
) -> Submission:
    """Answer the rows to predict by a stored system, in the form of the task's template.

    `spreadsheet_safe` writes a second file, whose cells no spreadsheet takes for a formula.

    Raises:
        InputError: no such system or a stale one, rows that are not embedded, a template that
            does not fit, or a file that cannot be written. Nothing is half-written then.
        InputError: a cache is damaged.
    """
    started = time.monotonic()
    target, copy = output_files(task, file, spreadsheet_safe)
    dataset = load_dataset(task)
    loaded = load_system(dataset, system)
    table = {row.id: row for row in dataset.rows}
    form, ids = wanted(task, table)
    rows = _rows(dataset, ids)
    lacking = {entry.id: entry.status for entry in rows.entries if not entry.usable}
    answers = loaded.answer(rows)
    unread = [id_ for id_, read in zip(ids, answers.readable, strict=True) if not read]
    reasons = Counter(lacking.get(id_, "bad_embedding") for id_ in unread)
    blank = Counter(status for id_, status in lacking.items() if id_ not in set(unread))
    changed = changed_answers(loaded, ids, answers.proba)
    lines = _lines(form, loaded, ids, answers)
    seen: list[SpotCheck] = []

    def check(header: Sequence[str], cells: Cells) -> None:
        written = read_back(task, form, ids, header, cells)
        seen.append(spot_check(loaded, rows, written, table, answers, changed))

    write_answers(target, form.columns, lines, check=check, separator=form.separator)
    write_spreadsheet_copy(copy, form.columns, lines, separator=form.separator)
    of_labels = shares(loaded.stored, answers.decision)
    messages = [*warnings, *_blank(blank), *_warnings(dataset, loaded, rows, of_labels, changed)]
    return Submission(
        file=target,
        system=system,
        rows=len(ids),
        unreadable=len(unread),
        copy=copy,
        seconds=time.monotonic() - started,
        snapshot=dataset.snapshot_digest,
        answer=dataset.classes[dataset.unreadable],
        shares=of_labels,
        spot_check=seen[0],
        reasons=dict(reasons.most_common()),
        warnings=messages,
    )


def _rows(dataset: Dataset, ids: Sequence[str]) -> Rows:
    place = {str(id_): at for at, id_ in enumerate(dataset.unlabelled.ids)}
    return dataset.unlabelled.select([place[id_] for id_ in ids])


def _blank(status: Counter[str]) -> list[str]:
    """Warn of rows that a network answered as blank images, as its recipe says."""
    if not status:
        return []
    why = ", ".join(f"{count} {reason}" for reason, count in status.most_common())
    return [f"{status.total()} rows cannot be read and are answered as blank images ({why})"]


def _lines(form: Form, system: System, ids: Sequence[str], answers: Answers) -> Cells:
    classes = [str(name) for name in system.stored.classes]
    return [
        form.fill(
            id_,
            classes[decision],
            {f"p_{name}": probability(p) for name, p in zip(classes, row, strict=True)},
        )
        for id_, decision, row in zip(ids, answers.decision, answers.proba, strict=True)
    ]


def probability(value: float) -> str:
    """Write a probability as text, exact to 1e-6 and empty where there is none."""
    return "" if np.isnan(value) else f"{value:.7f}"


def read_back(
    task: Task, form: Form, ids: Sequence[str], header: Sequence[str], cells: Cells
) -> dict[str, str]:
    """Read the label of every id from the header and lines of a written submission.

    Raises:
        InputError: the file is not what was to be written.
    """
    at_id, at_label = form.columns.index(form.id), form.columns.index(form.label)
    right = tuple(header) == form.columns and all(len(row) == len(header) for row in cells)
    if not right or [row[at_id] for row in cells] != list(ids) or len(set(ids)) != len(ids):
        raise InputError("the file read back does not have its rows in order: nothing was written, "
                         "run again")  # fmt: skip
    strange = {row[at_label] for row in cells} - set(task.labels)
    if strange:
        raise InputError(
            f"the file read back holds labels that {task.file} does not know: "
            f"{quote_few(sorted(strange))}: nothing was written, run again"
        )
    return {row[at_id]: row[at_label] for row in cells}


def _warnings(
    dataset: Dataset,
    system: System,
    rows: Rows,
    of_labels: Sequence[Share],
    changed: Sequence[str],
) -> list[str]:
    messages = _shift_warning(dataset)
    if changed:
        messages.append(
            f"{len(changed)} images have changed since {system.name} was trained, and were "
            f"answered again: {quote_few(changed)}"
        )
    trained = training_duplicates(dataset, rows)
    if trained:
        messages.append(
            f"{len(trained)} rows to predict show, byte by byte, the image of a labelled row: "
            f"{quote_few(trained)}"
        )
    if is_memorized(system, dataset):
        messages.append(
            f"{system.name} was trained on the very rows that its figures are about: do not "
            f"use them, run `{system.again}`"
        )
    messages += [
        f"{share.share:.1%} of the answers are {share.label!r}, where {share.low:.1%} to "
        f"{share.high:.1%} were to be expected (95 of 100 sets of {len(rows)} rows like the "
        "labelled ones): the images may come from another distribution, or rows are out of order"
        for share in of_labels
        if not share.expected
    ]
    return messages


def _shift_warning(dataset: Dataset) -> list[str]:
    """Return the audit's warning of a shift, stored by `probe` or measured now."""
    try:
        warning = find_shift(dataset).warning
    except InputError:
        # Other backbones of the task than the system's own are no reason to refuse its answers.
        return []
    return [warning] if warning else []
