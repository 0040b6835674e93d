"""A recipe on a task: its parts, each trained once and kept in work/finetune/<system>/<part>."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from archiveprobe.base import files
from archiveprobe.base.errors import InputError
from archiveprobe.base.progress import Notify, Progress, silent
from archiveprobe.evaluate.dataset import PARTS, Dataset
from archiveprobe.finetune.checkpoint import Checkpoints
from archiveprobe.finetune.fits import Fit, Fits, Options
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.split import (
    FULL,
    MERGED,
    Part,
    by_fold,
    by_split,
    fold_of,
    full,
    median_epoch,
    name_of_fold,
    with_selection,
)
from archiveprobe.finetune.train import Stop
from archiveprobe.finetune.trained_parts import TrainedPart, load_part, mean_of_parts

__all__ = ["Options", "RecipeRun"]

SELECTION_RUN = "selection"
# Settings that parts of earlier versions do not know.
_LATER = {
    "model": ("lora_rank", "lora_alpha", "lora_layers", "grad_checkpointing"),
    "optimizer": ("micro_batch",),
    "rows": ("selection",),
    "seeds": ("count", "combine"),
}


class RecipeRun:
    """The parts of a recipe on a task; of the options only those that say how to train matter."""

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
        self._notify = notify
        self.fits = Fits(dataset, recipe, options, notify, progress)
        self.device, self.system, self.folder = (
            self.fits.device,
            self.fits.system,
            self.fits.folder,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.fits.__exit__(*error)

    def part(self, name: str) -> TrainedPart:
        """Return a part, trained unless it was before, with answers for the rows to predict."""
        stop = self._stop() if name == FULL else None
        known = self._load(name, stop)
        if known is None:
            return self._train(name, stop)
        self._notify(f"{name}: trained before")
        for network in known.networks:
            network.state()
        self._remove_leftovers(self.folder / name)
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
        names = map(name_of_fold, range(self.dataset.folds))
        return [part for name in names if (part := self._finished(name))]

    def untrained_folds(self, names: Sequence[str]) -> list[str]:
        """Return which of the named parts are folds that are not trained."""
        return [
            name for name in names if fold_of(name) is not None and self._finished(name) is None
        ]

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
        rows, shape = len(self.dataset), self.fits.answer_shape
        settings, folder = self._settings(name, stop), self.folder / name
        seeds = self.recipe.seeds
        if seeds.count == 1 or seeds.combine != "mean":
            return load_part(folder, settings, rows, shape)
        found = []
        for seed in self._seeded:
            own = {**settings, "seed": seed}
            part = load_part(self._seed_folder(name, seed), own, rows, shape)
            if part is None:
                return None
            found.append(part)
        return mean_of_parts(folder, found)

    def _train(self, name: str, stop: Stop | None) -> TrainedPart:
        """Train a part: once, or with several seeds whose answers or weights are averaged."""
        origin, seeds = self.fits.start.origin, self.recipe.seeds
        for finished in self.finished_folds():
            finished.check_origin(origin, f"{name} would")
        readable = np.asarray(self.fits.inputs[1].readable)[: len(self.dataset)]
        rows, settings = self._rows(name, readable), self._settings(name, stop)
        folder = self.folder / name
        if seeds.count > 1 or self.recipe.rows.selection == "learned":
            # Other folders come first; a state here of other settings is refused before that.
            Checkpoints(folder / "state", settings).check()
        if seeds.count == 1:
            return self._learn(Fit(folder, settings, self.recipe, rows, stop))
        fits = [
            Fit(self._seed_folder(name, seed), {**settings, "seed": seed}, recipe, rows, stop)
            for seed, recipe in self._seeded.items()
        ]
        answering = seeds.combine == "mean"
        parts = [self._stored_or(self._learn, fit, answering=answering) for fit in fits]
        if answering:
            return mean_of_parts(folder, parts)
        part = self.fits.mix(Fit(folder, settings, self.recipe, rows, stop), parts)
        self._remove_leftovers(folder)
        return part

    @cached_property
    def _seeded(self) -> dict[int, Recipe]:
        """Return the recipe with every one of its seeds."""
        first = self.recipe.seed
        seeds = [(first + more) % 2**32 for more in range(self.recipe.seeds.count)]
        return {seed: self.recipe.model_copy(update={"seed": seed}) for seed in seeds}

    def _seed_folder(self, name: str, seed: int) -> Path:
        return self.folder / name / f"seed-{seed}"

    def _stored_or(
        self, train_it: Callable[[Fit, bool], TrainedPart], fit: Fit, *, answering: bool
    ) -> TrainedPart:
        """Return what a fit gave before, else train it."""
        known = load_part(fit.folder, fit.settings, len(self.dataset), self.fits.answer_shape)
        if known is None:
            return train_it(fit, answering)
        self._notify(f"{self.fits.label(fit.folder)}: trained before")
        known.state()
        return known

    def _learn(self, fit: Fit, answering: bool = True) -> TrainedPart:
        """Train; where the recipe says so again, on the rows too that have chosen the epoch."""
        if self.recipe.rows.selection == "held-out" or not len(fit.rows.validation):
            return self.fits.fit(fit, answering)
        first = replace(fit, folder=fit.folder / SELECTION_RUN)
        chosen = self._stored_or(self.fits.fit, first, answering=False).record
        self._notify(
            f"{self.fits.label(fit.folder)}: epoch {chosen.epoch} was chosen; training again, also "
            f"on the {len(fit.rows.validation)} rows that chose it"
        )
        stop = Stop(chosen.epoch, chosen.alpha)
        again = replace(fit, rows=with_selection(fit.rows), stop=stop)
        part = self.fits.fit(again, answering, selection=chosen.history)
        self._remove(first.folder)
        return part

    def _remove_leftovers(self, folder: Path) -> None:
        """Remove what a finished part no longer needs, also where a run was killed before it did.

        Seeds whose probabilities are averaged stay: they are the networks that answer.
        """
        Checkpoints(folder / "state", {}).clear()
        self._remove(folder / SELECTION_RUN)
        for inner in sorted(folder.glob("seed-*")):
            if self.recipe.seeds.combine == "mean":
                self._remove_leftovers(inner)
            else:
                self._remove(inner)

    def _remove(self, folder: Path) -> None:
        with files.explained(f"tidy {folder}"):
            for inner in [*folder.rglob("*/"), folder] if folder.is_dir() else []:
                files.remove_files(inner)

    def _up_to_date(self, part: TrainedPart) -> TrainedPart:
        """Return a finished part with answers for the rows to predict as they are now."""
        if part.members:
            return mean_of_parts(part.folder, [self._up_to_date(each) for each in part.members])
        return self.fits.renewed(part)

    def _rows(self, name: str, readable: np.ndarray) -> Part:
        if name == FULL:
            return full(self.dataset, readable)
        fold = fold_of(name)
        if fold is None:
            return by_split(self.dataset, self.recipe.rows, readable)
        return by_fold(self.dataset, fold, self.recipe.rows, readable, seed=self.recipe.seed)

    def _stop(self) -> Stop:
        """Return when the final fit stops: where the folds did, in the middle."""
        self.check_folds()
        records = [each.record for part in self.finished_folds() for each in part.networks]
        alphas = [record.alpha for record in records if record.alpha is not None]
        alpha = float(np.median(alphas)) if alphas else None
        return Stop(median_epoch([record.epoch for record in records]), alpha)

    def _settings(self, name: str, stop: Stop | None) -> dict[str, Any]:
        """Return what a part depends on; a stored one of other settings is never gone on with."""
        dataset = self.dataset
        settings: dict[str, Any] = {
            "recipe": _settings_of(self.recipe),
            "backbone": self.fits.backbone.described,
            "part": name,
            "snapshot": {name: dataset.parts[name] for name in PARTS},
        }
        if self.recipe.model.head_init == "probe":
            # The head begins as a probe on that cache.
            in_use = dataset.snapshot.cache(dataset.task.asks(self.fits.backbone.name))
            settings["snapshot"]["cache"] = in_use and in_use.fingerprint
        if self._options.precision != "fp32":
            # Parts of earlier versions were trained in it and answered in fp32.
            settings["answers_in"] = self._options.precision
        if stop is not None:
            settings["stop"] = {"epochs": stop.epochs, "alpha": stop.alpha}
        return settings


def _settings_of(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's settings; parts of earlier versions do not know some, which are left out
    where they are at their defaults.
    """
    settings: dict[str, Any] = recipe.model_dump(mode="json", exclude={"name"})
    for section, keys in _LATER.items():
        fields = type(getattr(recipe, section)).model_fields
        for key in keys:
            if settings[section][key] == fields[key].default:
                del settings[section][key]
        if not settings[section]:
            del settings[section]
    return settings
