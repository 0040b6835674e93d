"""Heads: from the unnormalised embedding to one logit per class."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries
from archiveprobe.finetune.settings import Model


def make_head(width: int, classes: int, settings: Model, *, seed: int = 0) -> Any:
    """Embeddings (n, width) to logits (n, classes), with torch's own random start.

    Equal seeds give equal heads, and nobody else's draws move. For the CLIP paper, `hidden` 256 and
    `dropouts` 0.5 and 0.3, it is eq. (1): h = Dropout(0.5)(ReLU(W1 f + b1)), y = Dropout(0.3)(W2 h
    + b2), the second one on the logits.
    """
    torch = libraries.torch()
    nn = torch.nn
    widths = (width, *settings.hidden, classes)
    dropouts = settings.dropouts or (0.0,) * (len(widths) - 1)
    parts: list[Any] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for number, dropout in enumerate(dropouts):
            parts.append(nn.Linear(widths[number], widths[number + 1]))
            if number < len(settings.hidden):
                parts.append(nn.ReLU())
            if dropout:
                parts.append(nn.Dropout(dropout))
    return nn.Sequential(*parts)


def probe_weights(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, d) and bias (K,) of a fitted linear probe, from what its `arrays()` gives.

    They are for the embedding as it is stored: the probe has its standardisation folded in. The
    candidates of its path count as it weighs them.

    Raises:
        InputError: the probe is not linear.
    """
    if not {"weights", "coef", "intercept"} <= set(arrays):
        raise InputError(
            'the head can start from a linear probe only: use "logistic" or "ridge", or set '
            'start = "random"'
        )
    weights = np.tensordot(arrays["weights"], arrays["coef"], 1).T
    bias = np.tensordot(arrays["weights"], arrays["intercept"], 1)
    return np.ascontiguousarray(weights), np.ascontiguousarray(bias)


def start_head(head: Any, weights: np.ndarray, bias: np.ndarray) -> None:
    """Let a linear head begin as a linear probe (LP-FT): weights (K, d), bias (K,).

    Raises:
        InputError: the head has hidden layers, or the probe another shape.
    """
    torch = libraries.torch()
    layers = [part for part in head if isinstance(part, torch.nn.Linear)]
    if len(layers) != 1:
        raise InputError('start = "probe": the probe is linear, so leave out hidden')
    wanted = tuple(layers[0].weight.shape)
    if weights.shape != wanted or bias.shape != wanted[:1]:
        raise InputError(
            f"the probe's weights are {weights.shape}, the head's {wanted}: probe the same "
            "backbone alone, on pooled embeddings, with the task's labels"
        )
    with torch.no_grad():
        layers[0].weight.copy_(torch.from_numpy(np.ascontiguousarray(weights)))
        layers[0].bias.copy_(torch.from_numpy(np.ascontiguousarray(bias)))
