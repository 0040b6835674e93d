"""A stored ensemble: its members' answers, combined as they were when it was stored."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.combine import METHODS, apply_weights
from archiveprobe.evaluate.dataset import Rows
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_store import Run
from archiveprobe.predict.system import Question, Source, System
from archiveprobe.task.config import Task


def ensemble_source(task: Task, run: Run, load: Callable[[str], System]) -> Source:
    """What a stored ensemble answers from; `load` reloads a member by name.

    Raises:
        InputError: a member is missing, damaged or out of date.
        KeyError, TypeError, ValueError, AttributeError: the record is none of an ensemble.
    """
    entries = run.record["members"]
    method = str(run.record["method"])
    if method not in METHODS:
        raise ValueError(f"a combination by {method!r} is unknown")
    members = [load(str(entry["system"])) for entry in entries]
    weights = np.array([float(entry["weight"]) for entry in entries])
    ties = str(run.record.get("ties", "mean"))

    def logits(asked: Question) -> tuple[np.ndarray, np.ndarray | None]:
        rows, answers = asked.rows, []
        for member, weight in zip(members, weights, strict=True):
            if METHODS[method].space is not None and not weight:
                answers.append(_standing_in(member, rows))
                continue
            found = member.answer(rows, asked.archive, afresh=asked.afresh)
            voted = None if member.stored.answer is None else found.decision
            answers.append(
                replace(member.stored, test_ids=rows.ids, test=found.proba, answer=voted)
            )
        return apply_weights(answers, method, weights, ties)

    agreement = max(member.source.agreement for member in members)
    return Source(logits, _caches(task, run, members), agreement)


def _caches(task: Task, run: Run, members: Sequence[System]) -> dict[str, str]:
    caches: dict[str, str] = {}
    for member in members:
        for name, digest in member.source.caches.items():
            if caches.setdefault(name, digest) != digest:
                raise InputError(
                    f"the members of {run.system} were trained on different caches of {name}: "
                    f"run `archiveprobe probe {task.file}` again"
                )
    return caches


def _standing_in(member: System, rows: Rows) -> Predictions:
    """For a member that does not count, and need not be asked."""
    k = len(member.stored.classes)
    test = np.full((len(rows), k), 1 / k)
    return replace(member.stored, test_ids=rows.ids, test=test, answer=None)
