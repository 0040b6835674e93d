"""A network in training: batches in, weights moved, the state after every epoch."""

from dataclasses import asdict
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import memory_for
from archiveprobe.embed import libraries
from archiveprobe.evaluate.metrics import macro_f1
from archiveprobe.finetune.augment import mix, mixed_share
from archiveprobe.finetune.average import make_average
from archiveprobe.finetune.checkpoint import capture, restore
from archiveprobe.finetune.lesson import Course, Ends, Epoch, Lesson
from archiveprobe.finetune.loader import Loader
from archiveprobe.finetune.losses import criterion, soft_targets
from archiveprobe.finetune.model import Network
from archiveprobe.finetune.optimiser import make_optimiser
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.schedule import batches, epoch_order, make_rates
from archiveprobe.finetune.stateful import Averaged, Tuned, in_layout_of
from archiveprobe.finetune.verdict import argmax_at_centre

_SHOWN_IDS = 8
_LOSSES_AT_ONCE = 32


class Training:
    """A network in training, with all that changes along the way."""

    def __init__(
        self,
        network: Network,
        lesson: Lesson,
        recipe: Recipe,
        ends: Ends | None,
        device: str,
        loader: Loader,
        precision: str = "fp32",
    ) -> None:
        self.network, self.lesson, self.recipe, self.ends = network, lesson, recipe, ends
        self._device, self._loader, self._precision = device, loader, precision
        # To look at every loss at once would let a GPU wait for the host in every step.
        self._at_once = 1 if device == "cpu" else _LOSSES_AT_ONCE
        learnt = lesson.labels[lesson.part.learn]
        self._y = libraries.torch().from_numpy(lesson.labels.astype(np.int64))
        self._steps = len(self._batches(0))
        self._optimiser = make_optimiser(network.body, network.head, recipe.optimiser)
        self._rates = make_rates(self._optimiser, recipe.schedule, self._steps)
        self._average = make_average(
            network.module, recipe.ema, recipe.schedule.epochs * self._steps
        )
        self._loss = criterion(recipe.loss, learnt, lesson.classes, lesson.positive, device)
        self._learning = [each for part in network.parameters().values() for each in part]

    def over(self, course: Course) -> bool:
        """Whether there is no further epoch."""
        schedule, done = self.recipe.schedule, len(course.history)
        if self.ends is not None:
            return done >= self.ends.epochs
        patience = schedule.epochs if schedule.patience is None else schedule.patience
        return done >= schedule.epochs or done - course.best >= patience

    def epoch(self, epoch: int) -> Epoch:
        """Learn from every batch of an epoch, counted from 0."""
        self.network.train()
        learnt: list[np.ndarray] = []
        losses: list[float] = []
        waiting: list[Any] = []
        rate = 0.0
        drawn = self._loader.epoch(self._batches(epoch), epoch, self._following(epoch))
        for step, (which, inputs) in enumerate(drawn):
            rate = self._rates.set(epoch * self._steps + step)
            waiting.append(self._guarded(which, inputs, epoch, step))
            learnt.append(which)
            if len(waiting) == self._at_once or len(learnt) == self._steps:
                losses += self._finite(waiting, learnt, epoch)
                waiting.clear()
        if not all(bool(each.isfinite().all()) for each in self._learning):
            what = f"the weights are no numbers after step {(epoch + 1) * self._steps}"
            raise self._lost(what, learnt[-1])
        score = self._rated_on_held_out(epoch) if self._watched() else None
        sizes = [len(rows) for rows in learnt]
        mean = sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
        return Epoch(epoch + 1, mean, score, rate)

    def _finite(self, waiting: list[Any], learnt: list[np.ndarray], epoch: int) -> list[float]:
        """The losses of the last steps, fetched from the device together."""
        values: list[float] = libraries.torch().stack(waiting).tolist()
        for at, loss in enumerate(values, len(learnt) - len(values)):
            if not np.isfinite(loss):
                step = epoch * self._steps + at + 1
                what = f"the loss of step {step} (epoch {epoch + 1}) is {loss}"
                raise self._lost(what, learnt[at])
        return values

    def rated(self, done: Epoch) -> float | None:
        """How good an epoch is by what the recipe watches; more is better."""
        watch = self.recipe.schedule.watch
        if self.ends is not None or watch == "none":
            return None
        return done.macro_f1 if watch == "macro-f1" else -done.loss

    def selected(self, network: Network) -> float:
        """Macro-F1 of a network on the rows that select, through the centre view."""
        rows = self.lesson.part.select
        network.eval()
        decision = argmax_at_centre(
            network, self.lesson.source, rows, self.recipe, device=self._device
        )
        return macro_f1(self.lesson.labels[rows], decision, self.lesson.classes)

    def state(self) -> dict[str, Any]:
        """The weights that would predict: the average's where there is one."""
        return self._answering().state(whole=False)

    def captured(self, course: Course) -> dict[str, Any]:
        """The tree of a checkpoint."""
        average = None if self._average is None else Averaged(self.network, self._average)
        return capture(Tuned(self.network), self._optimiser, average, course=asdict(course))

    def restored(self, state: Any) -> dict[str, Any]:
        """Take over a checkpoint; its progress."""
        average = None if self._average is None else Averaged(self.network, self._average)
        progress = restore(state, Tuned(self.network), self._optimiser, average)
        in_layout_of(self._optimiser)
        return progress

    def _watched(self) -> bool:
        return self.ends is None and len(self.lesson.part.select) > 0

    def _answering(self) -> Network:
        if self._average is None:
            return self.network
        return Averaged(self.network, self._average).network

    def _batches(self, epoch: int) -> list[np.ndarray]:
        learn = self.lesson.part.learn
        order = epoch_order(
            self.lesson.labels[learn], self.recipe.rows.sampler, self.recipe.seed, epoch
        )
        return batches(learn[order], self.recipe.optimiser.batch)

    def _following(self, epoch: int) -> list[np.ndarray]:
        """The batches of the epoch after this one, if there may be one."""
        epochs = self.recipe.schedule.epochs if self.ends is None else self.ends.epochs
        return self._batches(epoch + 1) if epoch + 1 < epochs else []

    def _guarded(self, which: np.ndarray, inputs: Any, epoch: int, step: int) -> Any:
        what = f"with batches of {self.recipe.optimiser.batch} on {self._device}"
        with memory_for(what, self._onwards(epoch)):
            return self._step(which, inputs, epoch, step)

    def _rated_on_held_out(self, epoch: int) -> float:
        with memory_for(f"rating epoch {epoch + 1} on {self._device}", self._onwards(epoch)):
            return self.selected(self._answering())

    def _onwards(self, epoch: int) -> str:
        onwards = f"goes on after epoch {epoch}" if epoch else "starts with the first epoch"
        return (
            f"free some and run the same command again, which {onwards}; or lower optimiser.batch "
            "or model.size in a copy of the recipe under another name, which is trained from the "
            "start"
        )

    def _step(self, which: np.ndarray, inputs: Any, epoch: int, step: int) -> Any:
        recipe, torch = self.recipe, libraries.torch()
        share = mixed_share(recipe.augment.mixup, recipe.seed, epoch, step)
        inputs = mix(inputs.to(self._device, non_blocking=True), share)
        y = self._y[which].to(self._device)
        targets = soft_targets(y, self.lesson.classes, recipe.loss.smoothing, share)
        self._optimiser.zero_grad()
        kind, half = self._device.partition(":")[0], self._precision == "bf16"
        with torch.autocast(kind, torch.bfloat16, enabled=half):
            logits = self.network(inputs)
        loss = self._loss(logits.float(), targets)
        loss.backward()
        if recipe.optimiser.gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._learning, recipe.optimiser.gradient_norm)
        self._optimiser.step()
        if self._average is not None:
            self._average.update(self.network.module)
        return loss.detach()

    def _lost(self, what: str, which: np.ndarray) -> InputError:
        ids = [str(each) for each in self.lesson.ids[which]]
        more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
        return InputError(
            f"{self.lesson.part.name}: {what}, with the images {', '.join(ids[:_SHOWN_IDS])}"
            f"{more}: lower the rates, or set optimiser.gradient_norm, in a copy of the recipe "
            "under another name; the state of the epoch before is kept"
        )
