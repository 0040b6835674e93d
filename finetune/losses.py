"""Losses over soft targets, so that smoothing, MixUp and class weights go together."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries
from archiveprobe.finetune.settings import Loss

# Below it 1 - p counts as zero: a fractional gamma has no derivative there.
_TINY = 1e-12


@dataclass(frozen=True)
class Criterion:
    """A loss. `weights` (classes,) weigh the classes, on the device of the logits.

    Cross-entropy divides by the weights of the targets in the batch, which is what torch does where
    they are not smoothed; focal loss by its rows, as its authors do.
    """

    kind: str
    gamma: float
    weights: Any

    def __call__(self, logits: Any, targets: Any) -> Any:
        """The mean loss of logits (n, classes) against soft targets (n, classes)."""
        total = self.rows(logits, targets).sum()
        if self.kind == "focal":
            return total / len(targets)
        return total / (targets * self.weights).sum()

    def rows(self, logits: Any, targets: Any) -> Any:
        """The loss of every row (n,), before it is divided by anything."""
        # Half precision would round probabilities near one up to it.
        log_p = logits.float().log_softmax(-1)
        loss = -(targets * self.weights * log_p)
        if self.kind == "focal":
            loss = loss * (-log_p.expm1()).clamp_min(_TINY) ** self.gamma
        return loss.sum(-1)


def criterion(
    loss: Loss, y: np.ndarray, classes: int, positive: int, device: Any = "cpu"
) -> Criterion:
    """The loss of a recipe for training rows of class indices y (n,).

    Raises:
        InputError: a class to be balanced has no row.
    """
    weights = libraries.torch().tensor(
        class_weights(loss, y, classes, positive), dtype=libraries.torch().float32, device=device
    )
    return Criterion(loss.kind, loss.gamma, weights)


def class_weights(loss: Loss, y: np.ndarray, classes: int, positive: int) -> np.ndarray:
    """The weights (classes,) of a recipe: alpha and 1 - alpha, balanced, or all one.

    Raises:
        InputError: as `criterion`.
    """
    if loss.alpha is not None:
        weights = np.full(classes, 1 - loss.alpha)
        weights[positive] = loss.alpha
        return weights
    if loss.class_weights == "balanced":
        return len(y) / (classes * _counts(y, classes))
    return np.ones(classes)


def soft_targets(y: Any, classes: int, smoothing: float, mixed: float = 1.0) -> Any:
    """Targets (n, classes) of class indices y (n,), smoothed towards 1 / classes.

    With `mixed` below one each row gets that share of its own target and the rest of that of its
    partner from the other end of the batch, as `augment.mix` does with the pixels.
    """
    return libraries.timm_part("data.mixup").mixup_target(y, classes, mixed, smoothing)


def _counts(y: np.ndarray, classes: int) -> np.ndarray:
    counts = np.bincount(y, minlength=classes)
    if not counts.all():
        raise InputError(
            f"class {int(counts.argmin())} has no row to learn from, so classes cannot be "
            'balanced: use fewer folds, or class_weights = "none" and sampler = "shuffle"'
        )
    return counts
