"""Answers for the images of a task that have no label: its rows to predict."""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify
from archiveprobe.evaluate.dataset import Dataset, load_dataset
from archiveprobe.predict.checks import changed_answers, check_images
from archiveprobe.predict.columns import STATUS, USABLE, probability, probability_columns
from archiveprobe.predict.systems import Resources, load_system
from archiveprobe.predict.tables import WrittenAnswers, answer_target, write_answers
from archiveprobe.task.config import Task
from archiveprobe.task.manifest import Entry


@dataclass(frozen=True, kw_only=True)
class Predicted(WrittenAnswers):
    """Holds how many rows have each status, and how many readable images each label."""

    status: dict[str, int]
    labels: dict[str, int]

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return {**super().record(), "status": self.status, "labels": self.labels}

    def summary(self) -> str:
        """Return what was written, in a sentence."""
        lost = ", ".join(f"{count} {why}" for why, count in self._lost().items())
        without = f"; no label for {self.unreadable} that cannot be read ({lost})" if lost else ""
        return f"{self.rows} rows by {self.system} in {self.file}{without}"

    def lines(self) -> list[dict[str, Any]]:
        """Return how many images have each label, or why they have none, for people."""
        counts = self.labels | {f"({why})": count for why, count in self._lost().items()}
        return [{"label": label, "images": count} for label, count in counts.items()]

    def _lost(self) -> dict[str, int]:
        return {why: count for why, count in self.status.items() if why not in USABLE}


@dataclass(frozen=True)
class ImageAnswers:
    """Holds what a system says of images: label (None where one cannot be read), proba (m, K)."""

    entries: list[Entry]
    status: list[str]
    labels: list[str | None]
    classes: list[str]
    proba: np.ndarray


def predict(
    task: Task,
    system: str,
    file: Path,
    *,
    spreadsheet_safe: bool = False,
    resources: Resources | None = None,
    notify: Notify = lambda _: None,
) -> Predicted:
    """Answer for the rows to predict.

    The file has a row for every image: id, digest (SHA-256 of its bytes), status, label and
    `p_<label>` columns; label and probabilities are empty where the status says why there is no
    image. `spreadsheet_safe` writes a second file, whose cells no spreadsheet takes for a formula.

    Raises:
        InputError: no such system or a stale one, nothing to predict, a damaged cache, or a file
            that cannot be written.
    """
    started = time.monotonic()
    target = answer_target(task, file, spreadsheet_safe)
    dataset = load_dataset(task)
    for remark in dataset.corrections.remarks():
        notify(remark)
    answers = answer_images(dataset, system, resources)
    columns = ["id", "digest", STATUS, "label", *probability_columns(answers.classes)]
    lines = [
        # An image that nobody saw has no label: an answer there would be counted as one.
        [entry.id, entry.digest, state, label or "", *map(probability, p)]
        for entry, state, label, p in zip(
            answers.entries, answers.status, answers.labels, answers.proba, strict=True
        )
    ]
    target = target.in_form(None, None, probability_columns(answers.classes))
    write_answers(target, columns, lines)
    counts = Counter(answers.labels)
    return Predicted(
        file=target.named,
        system=system,
        rows=len(lines),
        unreadable=counts[None],
        copy=target.named_copy,
        seconds=time.monotonic() - started,
        snapshot=dataset.snapshot_digest,
        notes=target.notes(),
        status=dict(Counter(answers.status).most_common()),
        labels={name: counts[name] for name in answers.classes},
    )


def answer_images(
    dataset: Dataset, system: str, resources: Resources | None = None
) -> ImageAnswers:
    """Answer for the rows to predict.

    Raises:
        InputError: as `predict`.
    """
    task, rows = dataset.task, dataset.unlabelled
    loaded = load_system(dataset, system, resources)
    if not len(rows):
        raise InputError(
            f"nothing to predict in {task.place}: every row has a label; name a folder of new "
            "images"
        )
    check_images(dataset, rows)
    answers = loaded.answer(rows)
    changed_answers(loaded, rows.ids.tolist(), answers.proba)
    return ImageAnswers(
        list(rows.entries),
        [
            "bad_embedding" if entry.usable and not known else entry.status
            for entry, known in zip(rows.entries, answers.readable, strict=True)
        ],
        answers.labels(dataset.classes),
        list(dataset.classes),
        answers.proba,
    )
