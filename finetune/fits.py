"""Fits of a recipe's network: trained once, or mixed from several seeds, and what it answers."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Self, TypedDict

import numpy as np

from archiveprobe.base.memory import memory_for
from archiveprobe.base.progress import Notify, Progress
from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.device import default_device
from archiveprobe.embed.faults import network_at_work
from archiveprobe.embed.view_sets import view_set
from archiveprobe.evaluate.dataset import Dataset
from archiveprobe.evaluate.system_status import FROM_CACHE
from archiveprobe.finetune.checkpoint import Checkpoints
from archiveprobe.finetune.data import image_rows, start_at_probe, token_rows
from archiveprobe.finetune.forward import ForwardPasses
from archiveprobe.finetune.inference import centre_of, logits_of
from archiveprobe.finetune.loader import InputRows, default_drawing
from archiveprobe.finetune.mixing import State, greedy_soup, mean_of, update_batch_norms
from archiveprobe.finetune.model import Network, backbone_of, build_network
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.split import Part, with_selection
from archiveprobe.finetune.tokens import token_network
from archiveprobe.finetune.tracking import Training, tracking
from archiveprobe.finetune.train import Epoch, Stop, Trained, TrainingData, rate, train
from archiveprobe.finetune.trained_parts import (
    MixedSeed,
    Origin,
    TrainedPart,
    middle_of,
    origin_of,
    save_part,
    update_part,
)

_MEMORY_REMEDY = "free some and run the same command again, or name a smaller network in a recipe"


class Computing(TypedDict):
    """What the last bits of a network depend on beside the recipe and the rows."""

    device: str
    precision: str


@dataclass(frozen=True)
class Options:
    """What to train, where and how.

    `recipe` is a name or the path of a file; `overrides` are settings `KEY=VALUE` for its own.
    `fold` is a number or "all", `full` the final fit on all labelled rows; `device` None: a GPU
    where there is one; `devices`, with commas: folds side by side; `workers` None: one process per
    core; `track` names trackers.
    """

    recipe: str
    overrides: tuple[str, ...] = ()
    fold: str | None = None
    full: bool = False
    from_cache: bool = False
    device: str | None = None
    workers: int | None = None
    precision: str = "fp32"
    track: tuple[str, ...] = ()
    devices: str | None = None


@dataclass(frozen=True)
class Fit:
    """One training of a network: the folder of what it leaves, and all that it depends on."""

    folder: Path
    settings: dict[str, Any]
    recipe: Recipe
    rows: Part
    stop: Stop | None


class Start(NamedTuple):
    """The network as it was built, its first state, and what names both."""

    network: Network
    state: State
    origin: Origin


class Fits:
    """A recipe's network and the rows of a task, which are loaded once a fit needs them.

    Of the options only those that say how to train are looked at.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        options: Options,
        notify: Notify,
        progress: Progress,
    ) -> None:
        self._dataset, self._recipe, self._options = dataset, recipe, options
        self.device = options.device or default_device()
        self.system = recipe.name + (FROM_CACHE if options.from_cache else "")
        self.folder = dataset.task.work / "finetune" / self.system
        self._notify, self._progress = notify, progress
        self._passes = ForwardPasses(**self.computing, notify=notify)
        self._views = range(len(view_set(recipe.predict.views)))
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._resources.__exit__(*error)

    @property
    def answer_shape(self) -> tuple[int, int]:
        """Return the shape (V, K) of a row's logits."""
        return len(self._views), len(self._dataset.classes)

    @property
    def computing(self) -> Computing:
        """Return where and how the network computes."""
        return Computing(device=self.device, precision=self._options.precision)

    @cached_property
    def backbone(self) -> Backbone:
        """Return the backbone."""
        return backbone_of(self._recipe.model, self._dataset.task)

    @cached_property
    def start(self) -> Start:
        """What all parts start from.

        The network is one object that takes turns: it learns a fold, and it answers with a finished
        fold's weights. So its start is read once, before anything else is loaded.
        """
        if self.backbone.weights == "random":
            self._notify(f"{self.backbone.name}: from random weights")
        network = self._build()
        with memory_for(f"keeping the start of {self.backbone.name}", _MEMORY_REMEDY):
            return Start(network, network.state(whole=False), origin_of(network))

    def _build(self, *, merged: bool = False) -> Network:
        model, classes = self._recipe.model, len(self._dataset.classes)
        with memory_for(f"building {self.backbone.name} and its head", _MEMORY_REMEDY):
            return build_network(
                model, self.backbone, classes, seed=self._recipe.seed, merged=merged
            )

    @cached_property
    def inputs(self) -> tuple[Network, InputRows]:
        """The network as it is trained, and its inputs: labelled rows, then those to predict."""
        network, options = self.start.network, self._options
        ways: dict[str, Any] = {
            "workers": options.workers,
            "notify": self._notify,
            "progress": self._progress,
        }
        if options.from_cache:
            return token_rows(
                self._dataset, self._recipe, network, self.backbone, device=self.device, **ways
            )
        rows = image_rows(
            self._dataset, self._recipe, network, shared=self._drawing_workers() > 0, **ways
        )
        return network, self._resources.enter_context(rows)

    @cached_property
    def _finished(self) -> Network:
        """The network that takes over the states of parts, in which LoRA is merged."""
        if self._recipe.model.lora_rank is None:
            return self.inputs[0]
        network = self._build(merged=True)
        return token_network(network) if self._options.from_cache else network

    def _drawing_workers(self) -> int:
        """Return how many processes draw images ahead; 0: this one draws them, step by step."""
        if self._options.from_cache:
            return 0
        if self._options.workers is not None:
            return self._options.workers
        draws = len(self._dataset) * self._recipe.schedule.epochs
        return default_drawing(self.device, draws)

    def fit(
        self, fit: Fit, answering: bool = True, *, selection: Sequence[Epoch] = ()
    ) -> TrainedPart:
        """Train a network once, and keep it with its answers."""
        origin = self.start.origin
        dataset, recipe, rows = self._dataset, fit.recipe, fit.rows
        label = self.label(fit.folder)
        network, inputs = self.inputs
        inputs = inputs.with_seed(recipe.seed)
        network.load_state(self.start.state)
        if recipe.model.head_init == "probe":
            start_at_probe(dataset, recipe, network, self.backbone, rows.train)
        started_from = {
            "rows": {"train": _digest(rows.train), "validation": _digest(rows.validation)},
            "weights": network.digest,
            "start": origin["start"],
            # Of several GPUs any one goes on with it.
            "precision": self._options.precision,
            "device": self.device.partition(":")[0],
        }
        checkpoints = Checkpoints(fit.folder / "state", {**fit.settings, **started_from})
        epochs = recipe.schedule.epochs if fit.stop is None else fit.stop.epochs
        curves = tracking(
            self._options.track,
            Training(dataset.task.name, self.system, label, fit.settings["recipe"], fit.folder),
            self._notify,
        )
        with self._progress(label, epochs) as advance, curves as draw:

            def on_epoch(epoch: Epoch) -> None:
                advance()
                draw(epoch)

            with self._at_work("train"):
                trained = train(
                    network,
                    self._data(inputs, replace(rows, name=label)),
                    recipe,
                    stop=fit.stop,
                    **self.computing,
                    workers=self._drawing_workers(),
                    checkpoints=checkpoints,
                    on_epoch=on_epoch,
                    notify=self._notify,
                )
        logits = self._answers(network, inputs, rows, answering)
        digest = dataset.unlabelled.digest
        part = save_part(
            fit.folder, fit.settings, trained, logits, origin, digest, selection=selection
        )
        checkpoints.clear()
        kept = f"epoch {trained.epoch} of {len(trained.history)}"
        self._notify(f"{label}: {kept} is kept, {trained.seconds:.0f} s of training")
        return part

    def mix(self, fit: Fit, parts: Sequence[TrainedPart]) -> TrainedPart:
        """Average the weights of the seeds of a part, and keep the network that comes of it."""
        network, inputs = self._finished, self.inputs[1]
        rows = fit.rows
        if self._recipe.rows.selection == "learned":
            rows = with_selection(rows)
        data = self._data(inputs, rows)
        centre = centre_of(view_set(self._recipe.predict.views))
        states = [part.state() for part in parts]

        def load_mean(some: Sequence[State]) -> None:
            network.to(self.device).load_state(mean_of(some))
            if len(some) > 1:
                update_batch_norms(network, inputs, rows.train, centre, self._passes)

        def score(some: Sequence[State]) -> float:
            load_mean(some)
            return rate(network, data, self._recipe, self._passes)

        used: Sequence[int] = range(len(parts))
        # The final fit holds no row out to choose by.
        if self._recipe.seeds.combine == "greedy-soup" and len(rows.validation):
            with self._at_work("mix"):
                used = greedy_soup(states, score)
        with self._at_work("mix"):
            load_mean([states[at] for at in used])
        middle = middle_of(parts).record
        trained = Trained(
            network.eval().state(whole=False),
            middle.epoch,
            middle.history,
            middle.alpha,
            sum(part.record.seconds for part in parts),
        )
        seeds = [
            MixedSeed(
                seed=int(part.record.settings["seed"]),
                epoch=part.record.epoch,
                sha256=part.digest,
                used=at in set(used),
            )
            for at, part in enumerate(parts)
        ]
        logits = self._answers(network, inputs, rows)
        digest = self._dataset.unlabelled.digest
        part = save_part(
            fit.folder, fit.settings, trained, logits, self.start.origin, digest, seeds=seeds
        )
        self._notify(f"{fit.folder.name}: mean of the weights of {len(used)} of {len(parts)} seeds")
        return part

    def renewed(self, part: TrainedPart) -> TrainedPart:
        """Return a finished part with answers for the rows to predict as they are now."""
        n, to_predict = len(self._dataset), self._dataset.unlabelled
        known = part.record.to_predict == to_predict.digest
        if known and len(part.logits) == n + len(to_predict):
            return part
        self._notify(
            f"{self.label(part.folder)}: other rows to predict than before, answering them"
        )
        part.check_origin(self.start.origin, "it would now")
        network, inputs = self._finished, self.inputs[1]
        with self._at_work("answer"):
            network.to(self.device).load_state(part.state())
        answers = self._answer(network, inputs, n + np.arange(len(to_predict)))
        return update_part(part, np.concatenate([part.logits[:n], answers]), to_predict.digest)

    def label(self, folder: Path) -> str:
        """Return what a fit is called, by its folder: its part, with its seed where it has some."""
        return folder.relative_to(self.folder).as_posix()

    def _data(self, inputs: InputRows, rows: Part) -> TrainingData:
        dataset = self._dataset
        ids, classes = dataset.labelled.ids, len(dataset.classes)
        return TrainingData(inputs, dataset.labels, ids, classes, dataset.positive, rows)

    def _answers(
        self, network: Network, inputs: InputRows, rows: Part, answering: bool = True
    ) -> np.ndarray:
        """Return logits (n + m, V, K) of the rows that were not trained on, NaN for others."""
        n, m = len(self._dataset), len(self._dataset.unlabelled)
        logits = np.full((n + m, len(self._views), len(self._dataset.classes)), np.nan)
        if answering:
            answered = np.concatenate([rows.validation, rows.held_out, n + np.arange(m)])
            logits[answered] = self._answer(network, inputs, answered)
        return logits

    def _answer(self, network: Network, inputs: InputRows, rows: np.ndarray) -> np.ndarray:
        """Return logits (r, V, K) of rows through all views."""
        with self._at_work("answer"):
            return logits_of(network, inputs, rows, self._views, self._passes)

    def _at_work(self, what: str) -> AbstractContextManager[None]:
        """Say in one line why the network cannot do something. Raises InputError."""
        where = f"{self.backbone.described} on {self.device}"
        return network_at_work(where, what, remedy=_MEMORY_REMEDY)


def _digest(rows: np.ndarray) -> str:
    return sha256(rows.astype("<i8").tobytes()).hexdigest()
