"""The labelled rows that a system gets wrong out of fold, the most confident first."""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.wording import number_of
from archiveprobe.evaluate.dataset import Dataset, load_dataset
from archiveprobe.evaluate.majority import majority_decision
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_status import check_up_to_date
from archiveprobe.evaluate.system_store import load_run
from archiveprobe.predict.columns import STATUS, probability, probability_columns
from archiveprobe.predict.tables import WrittenAnswers, answer_target, write_answers
from archiveprobe.task.config import Task

_CONFIDENCE = "confidence"
_AFTER = (_CONFIDENCE, "folds", "repeats_wrong", "repeats", "group", "split", STATUS)


@dataclass(frozen=True, kw_only=True)
class Mistakes(WrittenAnswers):
    """Holds of how many labelled rows these are, and counts by label and answer."""

    labelled: int
    pairs: dict[tuple[str, str], int]

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return {**super().record(), "labelled": self.labelled, "mistakes": self.lines()}

    def summary(self) -> str:
        """Return what was written, in a sentence."""
        unreadable = number_of(self.unreadable, "image")
        lost = f", of them {unreadable} that cannot be read" if self.unreadable else ""
        return (
            f"{self.system} gets {self.rows} of {number_of(self.labelled, 'labelled row')} wrong"
            f"{lost}: {self.file}"
        )

    def lines(self) -> list[dict[str, Any]]:
        """Return how many rows of a label have which wrong answer, for people."""
        return [
            {"label": label, "answer": answer, "rows": count}
            for (label, answer), count in self.pairs.items()
        ]


def write_mistakes(
    task: Task, system: str, file: Path, *, spreadsheet_safe: bool = False
) -> Mistakes:
    """Write the labelled rows that most repeats of the folds decide wrongly, at nested thresholds.

    The file has id, path, label, answer, `p_<label>` (the mean over repeats, as `confidence`, which
    is that of the answer), the folds of the row, one for each repeat, in how many repeats it was
    wrong, its near-duplicate group, split and status. Rows whose image cannot be read have no
    probability and come last.

    Raises:
        InputError: no such system, it is out of date, or the file must not or cannot be written.
    """
    started = time.monotonic()
    target = answer_target(task, file, spreadsheet_safe)
    dataset = load_dataset(task)
    run = load_run(task, system)
    check_up_to_date(run, dataset)
    stored = run.predictions()
    answer, proba = majority_decision(stored), stored.oof.mean(0)
    confidence = proba[np.arange(len(answer)), answer]
    wrong = np.flatnonzero(answer != stored.labels)
    # NaN, where there is no image, is sorted to the end.
    places = wrong[np.argsort(-confidence[wrong], kind="stable")]
    of_classes = probability_columns(dataset.classes)
    target = target.in_form(None, None, [*of_classes, _CONFIDENCE])
    rows = [_cells(dataset, stored, at, answer[at], proba[at]) for at in places]
    write_answers(target, ["id", "path", "label", "answer", *of_classes, *_AFTER], rows)
    names = [(dataset.classes[stored.labels[at]], dataset.classes[answer[at]]) for at in places]
    return Mistakes(
        file=target.named,
        system=system,
        rows=len(rows),
        unreadable=int(np.isnan(confidence[wrong]).sum()),
        copy=target.named_copy,
        seconds=time.monotonic() - started,
        snapshot=dataset.snapshot_digest,
        notes=[*dataset.corrections.remarks(), *target.notes()],
        labelled=len(dataset),
        pairs=dict(Counter(names).most_common()),
    )


def _cells(
    dataset: Dataset, stored: Predictions, at: int, answer: int, proba: np.ndarray
) -> list[str]:
    """Return what the file says of the labelled row at a place."""
    entry, label = dataset.labelled.entries[at], stored.labels[at]
    known = bool(np.isfinite(proba).all())
    return [
        str(dataset.labelled.ids[at]),
        entry.path,
        dataset.classes[label],
        dataset.classes[answer],
        *map(probability, proba),
        probability(proba[answer]),
        " ".join(map(str, stored.fold[:, at])),
        str((stored.decision[:, at] != label).sum()),
        str(len(stored.fold)),
        str(dataset.groups[at]),
        dataset.splits[at] or "",
        "bad_embedding" if entry.usable and not known else entry.status,
    ]
