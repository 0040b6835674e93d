"""What happens at which step: the learning rates, and the rows of every batch.

Nothing here keeps a state. Rates follow from the step, orders from seed and epoch, so a resumed run
goes on as the first would have.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries
from archiveprobe.finetune.settings import Schedule


@dataclass(frozen=True)
class Rates:
    """The learning rates of an optimiser over a whole run of `steps` steps."""

    scheduler: Any
    steps: int

    def set(self, step: int) -> float:
        """Set every group's rate for a step (counted from 0) and give the head's."""
        self.scheduler.step_update(step)
        group = self.scheduler.optimizer.param_groups[0]
        return float(group["lr"] / group["lr_scale"])


def make_rates(optimiser: Any, settings: Schedule, steps_per_epoch: int) -> Rates:
    """timm's schedule over the groups of `finetune.optimiser`, by step: warm-up, then the rest."""
    steps = settings.epochs * steps_per_epoch
    warm = min(round(settings.warm_up * steps_per_epoch), steps - 1)
    highest = optimiser.param_groups[0]["initial_lr"]
    common = {
        "warmup_t": warm,
        "warmup_lr_init": settings.warm_up_start * highest,
        "warmup_prefix": True,
        "t_in_epochs": False,
    }
    timm = libraries.timm_part("scheduler")
    if settings.kind == "cosine":
        scheduler = timm.CosineLRScheduler(
            optimiser, t_initial=steps - warm, lr_min=settings.last_rate, **common
        )
    else:
        scheduler = timm.StepLRScheduler(optimiser, decay_t=steps + 1, decay_rate=1.0, **common)
    return Rates(scheduler, steps)


def generator(*words: str | int) -> np.random.Generator:
    """Random numbers that depend on these words only; others for any other words."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def epoch_order(y: np.ndarray, sampler: str, seed: int, epoch: int) -> np.ndarray:
    """Places in y (n,), class indices, in the order of an epoch.

    "shuffle" has each place once; "balanced" draws n with replacement, every class equally often on
    average.

    Raises:
        InputError: "balanced", and there is only one class.
    """
    rng = generator("order", seed, epoch)
    if sampler == "shuffle":
        return rng.permutation(len(y))
    counts = np.bincount(y)
    if np.count_nonzero(counts) < 2:
        raise InputError(
            "the rows to learn from have one class only: use fewer folds, or label more"
        )
    weights = 1.0 / counts[y]
    return rng.choice(len(y), len(y), p=weights / weights.sum())


def occurrences(order: np.ndarray) -> np.ndarray:
    """How often each entry of an order (n,) came before in it: 0 for a first one."""
    # Sorted, equal entries stand together and in their order; each counts from its run's first.
    by_value = np.argsort(order, kind="stable")
    ranked = order[by_value]
    first = np.searchsorted(ranked, ranked, "left")
    counts = np.empty(len(order), np.int64)
    counts[by_value] = np.arange(len(order)) - first
    return counts


def batches(order: np.ndarray, size: int) -> list[np.ndarray]:
    """The order cut into batches. A lone last row joins the batch before: batch norm needs two."""
    cuts = list(range(size, len(order), size))
    if cuts and len(order) - cuts[-1] == 1 and size > 1:
        cuts.pop()
    return np.split(order, cuts)
