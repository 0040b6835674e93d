"""The answers of a review put to use: as corrections of the task, or as a table of their own."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.wording import number_of, quote_few
from archiveprobe.evaluate.task_state import read_state
from archiveprobe.predict.tables import write_answers
from archiveprobe.review.decisions import DECISION, UNSURE, Decision
from archiveprobe.review.sheet import sheet_target
from archiveprobe.review.store import Review
from archiveprobe.task.corrections import (
    CHANGE,
    Correction,
    corrections_file,
    read_corrections,
    record_corrections,
)

COLUMNS = ("id", "answer", "reviewer", "time", "image")


@dataclass(frozen=True)
class Used:
    """What was made of the answers that count: how many rows of the file have which of them.

    `disputed` counts images on which two reviewers differ: they are left out. `changed` counts the
    rows that are others than before, `taken_back` those among them whose answer was; `others` names
    the rows that somebody has corrected in another way, which stay.
    """

    file: Path
    answers: Mapping[str, int]
    disputed: int
    changed: int
    taken_back: int = 0
    others: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return the form of `--json`."""
        return {
            "file": str(self.file),
            "answers": dict(self.answers),
            "disputed": self.disputed,
            "changed": self.changed,
            "taken_back": self.taken_back,
            "others": list(self.others),
        }

    def summary(self) -> str:
        """Say it in a sentence."""
        rows = number_of(sum(self.answers.values()), "row")
        counts = ", ".join(f"{count} {answer}" for answer, count in self.answers.items())
        said = f"{self.file}: {rows} with an answer{f' ({counts})' if counts else ''}"
        if self.taken_back:
            said += f"; {number_of(self.taken_back, 'answer')} taken back"
        if self.disputed:
            said += f"; {number_of(self.disputed, 'image')} left out, two reviewers differ"
        if self.others:
            ids = quote_few(self.others)
            said += f"; corrected by somebody else in another way, which stays: {ids}"
        return said


def correct_task(review: Review) -> Used:
    """Record the answers that count as corrections of the task, for every row with these images.

    Rows that the table labels are left alone, and so is what others have corrected. What an
    earlier call has recorded follows the review: an answer that was changed since is changed, one
    that was taken back goes.

    Raises:
        InputError: the review is about an archive, not about rows; or see `record_corrections`.
    """
    if review.source is not None:
        raise InputError(
            f"the review {review.name} is about {review.source}, which has no rows of "
            f"{review.task.file}: write its answers as a table with --answers"
        )
    decided = _decided(review)
    before = read_corrections(review.task)
    own = {
        (line.content["image"], line.content["reviewer"], line.time)
        for line in review.log.lines
        if line.kind == DECISION
    }
    answers: Counter[str] = Counter()
    new, gone, others = [], [], []
    state = read_state(review.task)
    for row, entry in zip(state.rows, state.entries, strict=True):
        if row.table_label is not None or entry.digest is None:
            continue
        decision, there = decided.get(entry.digest), before.get(row.id)
        if there is not None and (entry.digest, there.who, there.when) not in own:
            if decision is not None and _label(decision) != there.label:
                others.append(row.id)
            continue
        if decision is not None:
            answers[decision.answer] += 1
            new.append(_correction(row.id, decision))
        elif there is not None:
            gone.append(row.id)
    changed = record_corrections(review.task, new, remove=gone)
    return Used(
        corrections_file(review.task),
        answers,
        len(review.state.disputed()),
        changed,
        len(gone),
        tuple(others),
    )


def write_decided(review: Review, file: Path) -> Used:
    """Write the answer that counts of every image that was looked at as a table.

    Raises:
        InputError: nothing was answered yet, or the file cannot be written.
    """
    target = sheet_target(review.task, file)
    decided = _decided(review)
    if not decided:
        raise InputError(f"the review {review.name} has no answer yet: the table would be empty")
    cells = [
        [each.id, each.answer, each.reviewer, each.time, image] for image, each in decided.items()
    ]
    write_answers(target.in_form(None, None, []), COLUMNS, cells)
    answers = Counter(each.answer for each in decided.values())
    return Used(target.named, answers, len(review.state.disputed()), len(cells))


def _decided(review: Review) -> dict[str, Decision]:
    """Return the decision that counts by image, without images on which two reviewers differ."""
    disputed = set(review.state.disputed())
    answers = review.state.answers()
    return {image: each for image, each in answers.items() if image not in disputed}


def _label(decision: Decision) -> str:
    return "" if decision.answer == UNSURE else decision.answer


def _correction(id_: str, decision: Decision) -> Correction:
    is_unsure = decision.answer == UNSURE
    return Correction(
        id_,
        _label(decision),
        decision=UNSURE if is_unsure else CHANGE,
        who=decision.reviewer,
        when=decision.time,
    )
