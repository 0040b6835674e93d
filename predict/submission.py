"""The submission: a file in the template's form that cannot be out of order."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of, quote_few
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
from archiveprobe.predict.columns import TableAnswers, probability, read_answers
from archiveprobe.predict.file_forms import Cells
from archiveprobe.predict.form import Form, wanted
from archiveprobe.predict.systems import Answers, System, load_system
from archiveprobe.predict.tables import WrittenAnswers, answer_target, write_answers
from archiveprobe.probe.audit.shift import find_shift
from archiveprobe.task.config import Task
from archiveprobe.task.tables.table import Table


@dataclass(frozen=True, kw_only=True)
class Submission(WrittenAnswers):
    """Holds what the reader of a submission should know before handing it in.

    `unreadable` rows have no image and got `answer`, or the labels' shares of the labelled rows as
    probabilities; `reasons` counts why. `columns` says what the columns of answers hold.
    """

    answer: str
    columns: dict[str, str]
    shares: list[Share]
    spot_check: SpotCheck
    reasons: dict[str, int]
    warnings: list[str]

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return {
            **super().record(),
            "reasons": self.reasons,
            "columns": self.columns,
            "shares": [asdict(share) for share in self.shares],
            "spot_check": asdict(self.spot_check),
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
            lost = f"; {self.unreadable} cannot be read and got {self.answer} ({why})"
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
    target = answer_target(task, file, spreadsheet_safe)
    dataset = load_dataset(task)
    loaded = load_system(dataset, system)
    form, ids = wanted(task, {row.id: row for row in dataset.rows})
    rows = _rows(dataset, ids)
    lacking = {entry.id: entry.status for entry in rows.entries if not entry.usable}
    answers = loaded.answer(rows)
    unread = [id_ for id_, read in zip(ids, answers.readable, strict=True) if not read]
    reasons = Counter(lacking.get(id_, "bad_embedding") for id_ in unread)
    blank = Counter(lacking.values()) - reasons
    changed = changed_answers(loaded, ids, answers.proba)
    prior = label_shares(dataset.labels, len(dataset.classes))
    lines = _lines(form, loaded, ids, answers, prior)
    seen: list[SpotCheck] = []

    def check(cells: Cells) -> None:
        written = read_back(task, form, ids, cells)
        seen.append(spot_check(loaded, dataset, rows, written, answers, changed))

    target = target.in_form(form.template, form.separator, form.content.proba)
    write_answers(target, form.columns, lines, check=check)
    of_labels = shares(loaded.stored, answers.decision)
    messages = [*warnings, *dataset.corrections.remarks()]
    messages += [*_blank(blank), *_warnings(dataset, loaded, rows, of_labels, changed)]
    return Submission(
        file=target.named,
        system=system,
        rows=len(ids),
        unreadable=len(unread),
        copy=target.named_copy,
        seconds=time.monotonic() - started,
        snapshot=dataset.snapshot_digest,
        answer=unreadable_answer(form, dataset.classes[dataset.unreadable]),
        columns=form.content.record(),
        notes=[*form.notes(), *target.notes()],
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
    return [
        f"{number_of(status.total(), 'row')} without a readable image, answered as blank: {why}"
    ]


def label_shares(labels: np.ndarray, k: int) -> np.ndarray:
    """Compute each label's share (K,) of the labelled rows: the probabilities of an unseen image.

    A file that is scored needs a number in every row. Where nothing is known of an image but that
    it comes from the same archive, labels have the probabilities pi_k = n_k / n. The expected log
    loss of an answer q is -sum_k pi_k log q_k = H(pi) + KL(pi || q), and that of the Brier score
    is sum_k (q_k - pi_k)^2 and a constant: both are least for q = pi. A sure 0 or 1 instead would
    cost an unbounded log loss wherever it is wrong. For AUC the row ranks among the undecided.
    """
    return np.bincount(labels, minlength=k) / max(len(labels), 1)


def unreadable_answer(form: Form, label: str) -> str:
    """Say what rows without an image got."""
    content, parts = form.content, []
    if content.label is not None:
        parts.append(repr(content.words[label]))
    if content.proba:
        parts.append("the labels' shares of the labelled rows as probabilities")
    return " and ".join(parts)


def _lines(
    form: Form, system: System, ids: Sequence[str], answers: Answers, prior: np.ndarray
) -> Cells:
    classes = system.task.labels
    proba = np.where(answers.readable[:, None], answers.proba, prior)
    return [
        form.fill(id_, classes[decision], dict(zip(classes, map(probability, row), strict=True)))
        for id_, decision, row in zip(ids, answers.decision, proba, strict=True)
    ]


def read_back(task: Task, form: Form, ids: Sequence[str], cells: Cells) -> TableAnswers:
    """Read the answers from the header and lines of a written submission.

    Raises:
        InputError: the file is not what was to be written.
    """
    header, *lines = cells
    at_id = form.columns.index(form.content.id)
    own = [form.own_id(id_) for id_ in ids]
    right = tuple(header) == form.columns and all(len(line) == len(header) for line in lines)
    if not right or [line[at_id] for line in lines] != own or len(set(own)) != len(own):
        raise InputError("the file read back does not have its rows in order: nothing was written, "
                         "run again")  # fmt: skip
    rows = tuple(dict(zip(header, line, strict=True)) for line in lines)
    table = Table(Path("the file read back"), form.columns, rows, tuple(range(2, len(rows) + 2)))
    return read_answers(task, form.content, table)


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
            f"{number_of(len(changed), 'image')} changed since {system.name} was trained, answered "
            f"again: {quote_few(changed)}"
        )
    trained = training_duplicates(dataset, rows)
    if trained:
        messages.append(
            "images of labelled rows are, byte by byte, those of "
            f"{number_of(len(trained), 'row')} to predict: {quote_few(trained)}"
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
