"""Losses over soft targets, so that label smoothing, MixUp and class weights go together."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from archiveprobe.base.errors import InputError

if TYPE_CHECKING:
    import torch

    from archiveprobe.finetune.recipe import Loss

Criterion = Callable[..., "torch.Tensor"]
"""(logits (n, K), targets (n, K)) -> the mean loss; with `whole` (N, K), the targets of a batch of
which these rows are a piece, their share of the batch's mean.
"""
# Below it 1 - p counts as zero: a fractional gamma has no derivative there.
_TINY = 1e-12


def cross_entropy(
    logits: "torch.Tensor",
    targets: "torch.Tensor",
    weights: "torch.Tensor",
    gamma: float,
    whole: "torch.Tensor | None" = None,
) -> "torch.Tensor":
    """Return the weighted mean of -sum_k w_k t_k log p_k; `gamma` is not used.

    The sum is divided by the weights of the targets in the batch. torch divides so for class
    indices, but for soft targets by the number of rows, so its own function does not serve.
    """
    del gamma
    log_p = logits.float().log_softmax(-1)
    total = ((targets if whole is None else whole) * weights).sum()
    return -(targets * weights * log_p).sum(-1).sum() / total


def focal_loss(
    logits: "torch.Tensor",
    targets: "torch.Tensor",
    weights: "torch.Tensor",
    gamma: float,
    whole: "torch.Tensor | None" = None,
) -> "torch.Tensor":
    """Return the mean of -sum_k w_k t_k (1 - p_k)^gamma log p_k (Lin et al., 2017).

    As its authors do, the sum is divided by the number of rows. 1 - p is taken as -expm1(log p):
    near p = 1 the plain difference has no correct digit left.
    """
    # Half precision would round probabilities near one up to it.
    log_p = logits.float().log_softmax(-1)
    focus = (-log_p.expm1()).clamp_min(_TINY) ** gamma
    rows = len(targets if whole is None else whole)
    return (-(targets * weights * log_p) * focus).sum(-1).sum() / rows


LOSSES: Mapping[str, Callable[..., "torch.Tensor"]] = MappingProxyType(
    {"cross-entropy": cross_entropy, "focal": focal_loss}
)
"""Name in a recipe -> function of (logits, targets, class weights, gamma)."""


def make_loss(
    loss: "Loss", y: np.ndarray, classes: int, positive: int, device: str = "cpu"
) -> Criterion:
    """Make the loss of a recipe for training rows of class indices y (n,).

    Raises:
        InputError: a class to be balanced has no row.
    """
    import torch

    weights = torch.tensor(class_weights(loss, y, classes, positive), dtype=torch.float32)
    weights = weights.to(device)
    return partial(LOSSES[loss.kind], weights=weights, gamma=loss.gamma)


def class_weights(loss: "Loss", y: np.ndarray, classes: int, positive: int) -> np.ndarray:
    """Return the weights (K,) of a recipe: alpha and 1 - alpha, balanced, or all one.

    Raises:
        InputError: as `make_loss`.
    """
    if loss.alpha is not None:
        weights = np.full(classes, 1 - loss.alpha)
        weights[positive] = loss.alpha
        return weights
    if loss.class_weights == "none":
        return np.ones(classes)
    counts = np.bincount(y, minlength=classes)
    if not counts.all():
        raise InputError(
            f"class {int(counts.argmin())} has no row to learn from, so classes cannot be "
            'balanced: use fewer folds, or class_weights = "none" and sampler = "shuffle"'
        )
    return len(y) / (classes * counts)


def soft_targets(
    y: "torch.Tensor", classes: int, label_smoothing: float, mixed: float = 1.0
) -> "torch.Tensor":
    """Return targets (n, K) of class indices y (n,), smoothed towards 1 / K.

    With `mixed` below one each row keeps that share of its own target and takes the rest from its
    partner at the other end of the batch, as `augment.mix` does with the pixels.
    """
    import torch

    rest = label_smoothing / classes
    targets = torch.full((len(y), classes), rest, device=y.device)
    targets.scatter_(1, y.view(-1, 1), 1.0 - label_smoothing + rest)
    return targets if mixed == 1 else targets * mixed + targets.flip(0) * (1 - mixed)
