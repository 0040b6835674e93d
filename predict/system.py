"""A stored system that answers, whatever it is made of: a probe, an ensemble, networks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from archiveprobe.base.progress import Progress, silent
from archiveprobe.evaluate.calibration import Calibration
from archiveprobe.evaluate.dataset import Rows
from archiveprobe.evaluate.predictions import Predictions
from archiveprobe.evaluate.thresholding import decide
from archiveprobe.finetune.recipe import FROM_CACHE
from archiveprobe.task.config import Task

AGREEMENT = 1e-6


@dataclass(frozen=True)
class Means:
    """What networks may use to look at pictures; None: what there is."""

    device: str | None = None
    workers: int | None = None
    progress: Progress = silent


@dataclass(frozen=True)
class Question:
    """Rows of an archive to answer for; `afresh`: from the pictures, even where it is known."""

    rows: Rows
    archive: Task
    afresh: bool = False


Logits = Callable[[Question], tuple[np.ndarray, np.ndarray | None]]
"""Logits (m, K) of rows, NaN where there is no picture, and a hard vote's answers (m,)."""


@dataclass(frozen=True)
class Source:
    """Where a system's logits come from.

    `caches` maps every backbone whose embeddings it looks through to the digest of their cache's
    fingerprint. `agreement` is how far two computations of a probability may lie apart.
    """

    logits: Logits
    caches: Mapping[str, str]
    agreement: float = AGREEMENT


@dataclass(frozen=True)
class Answers:
    """proba (m, K), NaN where a picture cannot be judged; decision (m,), class indices."""

    proba: np.ndarray
    decision: np.ndarray

    @property
    def readable(self) -> np.ndarray:
        """(m,) whether there was a picture to judge."""
        return np.asarray(np.isfinite(self.proba).all(1))


@dataclass(frozen=True)
class System:
    """A stored system that answers for rows of any archive."""

    task: Task
    name: str
    kind: str
    stored: Predictions
    unreadable: int
    calibration: Calibration
    source: Source

    def answer(self, rows: Rows, archive: Task | None = None, *, afresh: bool = False) -> Answers:
        """Probabilities and decisions for rows of an archive, by default the task's own.

        What networks answered after training is remembered for the task's rows, unless asked for
        `afresh`.

        Raises:
            InputError: rows are not embedded yet.
            InputError: a cache is damaged.
        """
        logits, answer = self.source.logits(Question(rows, archive or self.task, afresh))
        proba = self.calibration.apply(logits)
        if answer is None:
            answer = self._decided(proba)
        known = np.isfinite(proba).all(1)
        return Answers(proba, np.where(known, answer, self.unreadable))

    def agree(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Whether probabilities (..., K) are the same, as far as they can be computed again."""
        near = np.isclose(left, right, rtol=0, atol=self.source.agreement, equal_nan=True)
        return np.asarray(near.all(-1))

    def _decided(self, proba: np.ndarray) -> np.ndarray:
        one = self.stored
        if len(one.classes) > 2 or np.isnan(one.threshold):
            return np.asarray(np.nan_to_num(proba).argmax(1))
        return decide(proba[:, one.positive], one.threshold, one.positive)


def making(task: Task, kind: str, name: str) -> str:
    """The command that makes a system of a kind anew."""
    if kind != "finetune":
        return f"probe {task.file}"
    recipe, cached, _ = name.partition(FROM_CACHE)
    return f"finetune {task.file} --recipe {recipe} --fold all{cached and ' --from-cache'}"
