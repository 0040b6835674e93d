"""A recipe on a task: its parts, each trained once and kept in work/finetune/<system>/<part>."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Self

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import memory_for
from archiveprobe.base.progress import Progress, silent
from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.decoding import default_workers
from archiveprobe.embed.device import default_device
from archiveprobe.embed.view_sets import view_set
from archiveprobe.evaluate.dataset import PARTS, Dataset
from archiveprobe.evaluate.system_status import FROM_CACHE
from archiveprobe.finetune.checkpoint import Checkpoints
from archiveprobe.finetune.data import image_rows, start_at_probe, token_rows
from archiveprobe.finetune.inference import logits_of
from archiveprobe.finetune.loader import InputRows, Notify
from archiveprobe.finetune.model import Network, backbone_of, build_network
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.split import Part, by_fold, by_split, full, median_epoch
from archiveprobe.finetune.tracking import Training, tracking
from archiveprobe.finetune.train import Epoch, Stop, TrainingData, train
from archiveprobe.finetune.trained_parts import (
    Origin,
    TrainedPart,
    load_part,
    origin_of,
    save_part,
    update_part,
)

SPLIT, MERGED, FULL = "split", "merged", "full"
_MEMORY_REMEDY = "free some and run the same command again, or name a smaller network in a recipe"


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


class RecipeRun:
    """A recipe on a task: its parts, and the network and rows that are loaded once one is needed.

    Of the options only those that say how to train are looked at.
    """

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        options: Options,
        *,
        notify: Notify = lambda _: None,
        progress: Progress = silent,
    ) -> None:
        self.dataset, self.recipe, self._options = dataset, recipe, options
        self.device = options.device or default_device()
        self.system = recipe.name + (FROM_CACHE if options.from_cache else "")
        self.folder = dataset.task.work / "finetune" / self.system
        self._notify, self._progress = notify, progress
        self._views = range(len(view_set(recipe.predict.views)))
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._resources.__exit__(*error)

    @property
    def computing(self) -> dict[str, str]:
        """Return what the last bits of a network depend on beside the recipe and the rows."""
        return {"device": self.device, "precision": self._options.precision}

    @cached_property
    def backbone(self) -> Backbone:
        """Return the backbone."""
        return backbone_of(self.recipe.model, self.dataset.task)

    def part(self, name: str) -> TrainedPart:
        """Return a part, trained unless it was before, with answers for the rows to predict."""
        stop = self._stop() if name == FULL else None
        known = self._load(name, stop)
        if known is None:
            return self._train(name, stop)
        self._notify(f"{name}: trained before")
        known.state()
        # Left where a run was killed between the two.
        Checkpoints(self.folder / name / "state", {}).clear()
        return self._up_to_date(known)

    def check_folds(self, asked: Sequence[str] = ()) -> None:
        """Check that the final fit will find every fold trained, those `asked` for included.

        Raises:
            InputError: it will not.
        """
        ready = {part.name for part in self.finished_folds()} | set(asked)
        if len(ready) < self.dataset.folds:
            raise InputError(
                f"{len(ready)} of {self.dataset.folds} folds of {self.system} are trained, and the "
                "final fit takes their median epoch: run with --fold all first"
            )

    def finished_folds(self) -> list[TrainedPart]:
        """Return the folds that are trained."""
        names = [f"fold-{fold}" for fold in range(self.dataset.folds)]
        return [part for name in names if (part := self._finished(name))]

    def untrained_folds(self, names: Sequence[str]) -> list[str]:
        """Return which of the named parts are folds that are not trained."""
        return [name for name in names if name.startswith("fold-") and self._finished(name) is None]

    def answering(self) -> list[TrainedPart]:
        """Return the networks for the rows to predict.

        That of all labelled rows, if it is trained for the epochs that the folds now say, else
        those of the folds.
        """
        folds = self.finished_folds()
        finals: list[tuple[str, Stop | None]] = []
        if len(folds) == self.dataset.folds:
            finals.append((FULL, self._stop()))
        if self.recipe.rows.merged:
            finals.append((MERGED, None))
        for name, stop in finals:
            final = self._finished(name, stop)
            if final is not None:
                return [self._up_to_date(final)]
        return [self._up_to_date(part) for part in folds]

    def _finished(self, name: str, stop: Stop | None = None) -> TrainedPart | None:
        try:
            return self._load(name, stop)
        except InputError:
            # Of other settings, or damaged: asking for that very part says so.
            return None

    def _load(self, name: str, stop: Stop | None) -> TrainedPart | None:
        shape = len(self._views), len(self.dataset.classes)
        settings = self._settings(name, stop)
        return load_part(self.folder / name, settings, len(self.dataset), shape)

    @cached_property
    def _start(self) -> tuple[Network, dict[str, Any], Origin]:
        """The network as it was built, its first state, and what names both.

        The network is one object that takes turns: it learns a fold, and it answers with a finished
        fold's weights. So its start is read once, before anything else is loaded.
        """
        if self.backbone.weights == "random":
            self._notify(f"{self.backbone.name}: from random weights")
        with memory_for(f"building {self.backbone.name} and its head", _MEMORY_REMEDY):
            network = build_network(
                self.recipe.model,
                self.backbone,
                len(self.dataset.classes),
                seed=self.recipe.seed,
            )
            return network, network.state(whole=False), origin_of(network)

    @cached_property
    def _inputs(self) -> tuple[Network, InputRows]:
        """The network as it is trained, and its inputs: labelled rows, then those to predict."""
        network, options = self._start[0], self._options
        ways: dict[str, Any] = {
            "workers": options.workers,
            "notify": self._notify,
            "progress": self._progress,
        }
        if options.from_cache:
            return token_rows(
                self.dataset, self.recipe, network, self.backbone, device=self.device, **ways
            )
        rows = image_rows(
            self.dataset, self.recipe, network, shared=self._drawing_workers() > 0, **ways
        )
        return network, self._resources.enter_context(rows)

    def _drawing_workers(self) -> int:
        """Return how many processes draw images: none where the network takes the cores itself."""
        workers = self._options.workers
        if self._options.from_cache or (workers is None and self.device == "cpu"):
            return 0
        return default_workers() if workers is None else workers

    def _train(self, name: str, stop: Stop | None) -> TrainedPart:
        initial, origin = self._start[1:]
        for finished in self.finished_folds():
            finished.check_origin(origin, f"{name} would")
        dataset, recipe = self.dataset, self.recipe
        network, inputs = self._inputs
        n, to_predict = len(dataset), dataset.unlabelled
        rows = self._rows(name, np.asarray(inputs.readable)[:n])
        network.load_state(initial)
        if recipe.model.head_init == "probe":
            start_at_probe(dataset, recipe, network, self.backbone, rows.train)
        settings = self._settings(name, stop)
        started_from = {
            "rows": {"train": _digest(rows.train), "validation": _digest(rows.validation)},
            "weights": network.digest,
            "start": origin["start"],
            # Of several GPUs any one goes on with it.
            "precision": self._options.precision,
            "device": self.device.partition(":")[0],
        }
        folder = self.folder / name
        checkpoints = Checkpoints(folder / "state", {**settings, **started_from})
        epochs = recipe.schedule.epochs if stop is None else stop.epochs
        curves = tracking(
            self._options.track,
            Training(dataset.task.name, self.system, name, settings["recipe"], folder),
            self._notify,
        )
        with self._progress(name, epochs) as advance, curves as draw:

            def on_epoch(epoch: Epoch) -> None:
                advance()
                draw(epoch)

            trained = train(
                network,
                TrainingData(
                    inputs,
                    dataset.labels,
                    dataset.labelled.ids,
                    len(dataset.classes),
                    dataset.positive,
                    rows,
                ),
                recipe,
                stop=stop,
                **self.computing,
                workers=self._drawing_workers(),
                checkpoints=checkpoints,
                on_epoch=on_epoch,
                notify=self._notify,
            )
        answered = np.concatenate([rows.validation, rows.held_out, n + np.arange(len(to_predict))])
        answers = self._answer(network, inputs, answered)
        logits = np.full((n + len(to_predict), *answers.shape[1:]), np.nan)
        logits[answered] = answers
        part = save_part(folder, settings, trained, logits, origin, to_predict.digest)
        checkpoints.clear()
        kept = f"epoch {trained.epoch} of {len(trained.history)}"
        self._notify(f"{name}: {kept} is kept, {trained.seconds:.0f} s of training")
        return part

    def _up_to_date(self, part: TrainedPart) -> TrainedPart:
        """Return a finished part with answers for the rows to predict as they are now."""
        n, to_predict = len(self.dataset), self.dataset.unlabelled
        known = part.record.to_predict == to_predict.digest
        if known and len(part.logits) == n + len(to_predict):
            return part
        self._notify(f"{part.name}: other rows to predict than before, answering them")
        part.check_origin(self._start[2], "it would now")
        network, inputs = self._inputs
        network.to(self.device).load_state(part.state())
        answers = self._answer(network, inputs, n + np.arange(len(to_predict)))
        return update_part(part, np.concatenate([part.logits[:n], answers]), to_predict.digest)

    def _answer(self, network: Network, inputs: InputRows, rows: np.ndarray) -> np.ndarray:
        """Return logits (r, V, K) of rows through all views."""
        with memory_for(f"answering on {self.device}", _MEMORY_REMEDY):
            return logits_of(network, inputs, rows, self._views, **self.computing)

    def _rows(self, name: str, readable: np.ndarray) -> Part:
        if name == FULL:
            return full(self.dataset, readable)
        if name in (SPLIT, MERGED):
            return by_split(self.dataset, self.recipe.rows, readable)
        fold = int(name.removeprefix("fold-"))
        return by_fold(self.dataset, fold, self.recipe.rows, readable, seed=self.recipe.seed)

    def _stop(self) -> Stop:
        """Return when the final fit stops: where the folds did, in the middle."""
        self.check_folds()
        records = [part.record for part in self.finished_folds()]
        alphas = [record.alpha for record in records if record.alpha is not None]
        alpha = float(np.median(alphas)) if alphas else None
        return Stop(median_epoch([record.epoch for record in records]), alpha)

    def _settings(self, name: str, stop: Stop | None) -> dict[str, Any]:
        """Return what a part depends on; a stored one of other settings is never gone on with."""
        dataset = self.dataset
        recipe = self.recipe.model_dump(mode="json", exclude={"name"})
        if recipe["optimizer"]["micro_batch"] is None:
            # Parts of earlier versions know no such setting.
            del recipe["optimizer"]["micro_batch"]
        settings: dict[str, Any] = {
            "recipe": recipe,
            "backbone": self.backbone.described,
            "part": name,
            "snapshot": {name: dataset.parts[name] for name in PARTS},
        }
        if self.recipe.model.head_init == "probe":
            # The head begins as a probe on that cache.
            in_use = dataset.snapshot.cache(dataset.task.asks(self.backbone.name))
            settings["snapshot"]["cache"] = in_use and in_use.fingerprint
        if self._options.precision != "fp32":
            # Parts of earlier versions were trained in it and answered in fp32.
            settings["answers_in"] = self._options.precision
        if stop is not None:
            settings["stop"] = {"epochs": stop.epochs, "alpha": stop.alpha}
        return settings


def _digest(rows: np.ndarray) -> str:
    return sha256(rows.astype("<i8").tobytes()).hexdigest()
