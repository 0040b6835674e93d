"""A stored ensemble: its members' answers, combined as they were when it was stored."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.evaluate.combine import METHODS, combine, members_of
from archiveprobe.evaluate.dataset import Rows
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.system_store import Run
from archiveprobe.predict.system import Question, Source, System
from archiveprobe.task.config import Task

# Their refit learns no weights, so combining anew is applying them.
_WEIGHTLESS = ("rank", "vote")
_OF_PROBABILITIES = ("probability", "greedy")


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
            if method not in _WEIGHTLESS and not weight:
                answers.append(_standing_in(member, rows))
                continue
            found = member.answer(rows, asked.archive, afresh=asked.afresh)
            voted = None if member.stored.answer is None else found.decision
            answers.append(
                replace(member.stored, test_ids=rows.ids, test=found.proba, answer=voted)
            )
        return _combined(method, answers, weights, ties)

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


def _combined(
    method: str, members: Sequence[Predictions], weights: np.ndarray, ties: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """What evaluate.ensemble.combine gives for the rows to predict, at weights found before."""
    if method in _WEIGHTLESS:
        done = combine(members, method, ties)
        return done.unlabelled, done.answer
    logs = members_of(members).unlabelled
    if method in _OF_PROBABILITIES:
        return np.log(np.tensordot(weights, np.exp(logs), 1)), None
    return np.tensordot(weights, logs, 1), None
