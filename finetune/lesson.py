"""What a training run is given, and what is left of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from archiveprobe.finetune.split import Part
from archiveprobe.finetune.verdict import Looks


@dataclass(frozen=True)
class Lesson:
    """What a run learns: rows of a source, the classes (n,) of the labelled ones, and their ids.

    `part` says which of them are learnt and which choose the epoch; no other label is looked at.
    """

    source: Looks
    labels: np.ndarray
    ids: np.ndarray
    classes: int
    positive: int
    part: Part


@dataclass(frozen=True)
class Ends:
    """When to stop and how much of the tuning to keep, found on folds before.

    Without them the schedule's epochs are trained and the recipe's `watch` says which one is kept.
    """

    epochs: int
    tuned: float | None = None


@dataclass(frozen=True)
class Epoch:
    """One epoch, counted from 1: the mean loss of its rows, macro-F1 on the rows that select (None
    without), the head's last learning rate.
    """

    epoch: int
    loss: float
    macro_f1: float | None
    rate: float


@dataclass(frozen=True)
class Trained:
    """What is left of a run: the state of what was trained, the epoch it comes from (from 1), all
    epochs, the share of tuned weights if mixtures were tried, and the seconds.
    """

    state: Mapping[str, Any]
    epoch: int
    history: list[Epoch]
    tuned: float | None
    seconds: float


@dataclass
class Course:
    """How far a run has come; plain values, kept in every checkpoint."""

    history: list[dict[str, Any]] = field(default_factory=list)
    best: int = 0
    score: float | None = None
    seconds: float = 0.0
