"""A recipe on a task: its parts, each trained once and kept in work/finetune/<system>/<part>."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import memory_for
from archiveprobe.base.progress import Progress, silent
from archiveprobe.embed.backbones import Backbone
from archiveprobe.embed.job import Notify
from archiveprobe.embed.views import view_set
from archiveprobe.evaluate.dataset import PARTS, Dataset
from archiveprobe.finetune.checkpoint import Checkpoints
from archiveprobe.finetune.curves import curves
from archiveprobe.finetune.material import How, material, start_at_probe
from archiveprobe.finetune.model import Network, backbone_of, build_network
from archiveprobe.finetune.outcome import (
    Outcome,
    load_outcome,
    read_weights,
    renew_outcome,
    save_outcome,
)
from archiveprobe.finetune.recipe import FROM_CACHE, Recipe
from archiveprobe.finetune.split import Part, by_fold, by_split, full, median_epoch
from archiveprobe.finetune.start import Start, check_start, start_of
from archiveprobe.finetune.train import Ends, Epoch, Lesson, Trained, train
from archiveprobe.finetune.verdict import Looks, logits_of

SPLIT, MERGED, FULL = "split", "merged", "full"
_FREE = "free some and run the same command again, or name a smaller network in another recipe"


class Stage:
    """A recipe on a task: its parts, and the network and rows that are there once one is needed."""

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        how: How,
        *,
        notify: Notify = lambda _: None,
        progress: Progress = silent,
    ) -> None:
        self.dataset, self.recipe = dataset, recipe
        self.system = recipe.name + (FROM_CACHE if how.from_cache else "")
        self._how = how
        self._notify, self._progress = notify, progress
        self._held = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *given: Any) -> None:
        self._held.__exit__(*given)

    @property
    def described(self) -> str:
        """The backbone, as the leaderboard shows it."""
        return self._backbone.name

    @property
    def folder(self) -> Path:
        """Where its parts lie."""
        return self.dataset.task.work / "finetune" / self.system

    def outcome(self, name: str) -> Outcome:
        """A part, trained unless it was before."""
        ends = self._ends() if name == FULL else None
        settings = self._settings(name, ends)
        known = self._loaded(name, settings)
        if known is not None:
            self._notify(f"{name}: trained before")
            read_weights(known.weights, known.digest)
            # Left where a run was killed between the two.
            Checkpoints(self._folder(name) / "state", {}).clear()
            return self._up_to_date(known, settings)
        return self._trained(name, ends, settings)

    def check_folds(self, asked: Sequence[str] = ()) -> None:
        """Whether the final fit will find every fold trained, those `asked` for included.

        Raises:
            InputError: it will not.
        """
        ready = {one.part for one in self.finished_folds()} | set(asked)
        if len(ready) < self.dataset.folds:
            raise InputError(
                f"{len(ready)} of {self.dataset.folds} folds of {self.system} are trained, and the "
                "final fit takes their median epoch: run with --fold all first"
            )

    def finished_folds(self) -> list[Outcome]:
        """The folds that are trained."""
        return [one for name in self._folds() if (one := self._finished(name))]

    def answering(self) -> list[Outcome]:
        """The networks for the rows to predict: that of all labelled rows, if it is trained for
        the epochs that the folds now say, else those of the folds.
        """
        for name, ends in self._finals():
            final = self._finished(name, ends)
            if final is not None:
                return [self._up_to_date(final, self._settings(name, ends))]
        return [
            self._up_to_date(one, self._settings(one.part, None)) for one in self.finished_folds()
        ]

    def _finals(self) -> Iterator[tuple[str, Ends | None]]:
        if len(self.finished_folds()) == self.dataset.folds:
            yield FULL, self._ends()
        if self.recipe.rows.merged:
            yield MERGED, None

    def _finished(self, name: str, ends: Ends | None = None) -> Outcome | None:
        try:
            return self._loaded(name, self._settings(name, ends))
        except InputError:
            # Of other settings, or damaged: whoever asks for that very part is told.
            return None

    def _loaded(self, name: str, settings: dict[str, Any]) -> Outcome | None:
        shape = len(view_set(self.recipe.predict.views)), len(self.dataset.classes)
        return load_outcome(self._folder(name), settings, len(self.dataset), shape)

    def _folds(self) -> list[str]:
        return [f"fold-{fold}" for fold in range(self.dataset.folds)]

    @cached_property
    def _backbone(self) -> Backbone:
        return backbone_of(self.recipe.model, self.dataset.task)

    @cached_property
    def _built(self) -> tuple[Network, Start]:
        """The network, and what every part starts from, read before anything else is loaded."""
        classes = len(self.dataset.classes)
        if self._backbone.weights == "random":
            self._notify(f"{self._backbone.name}: from random weights")
        with memory_for(f"building {self._backbone.name} and its head", _FREE):
            network = build_network(
                self.recipe.model, self._backbone, classes, seed=self.recipe.seed
            )
            return network, start_of(network)

    @cached_property
    def _material(self) -> tuple[Network, Looks]:
        made = material(
            self.dataset,
            self.recipe,
            self._built[0],
            self._backbone,
            self._how,
            self._notify,
            self._progress,
        )
        return self._held.enter_context(made)

    def _trained(self, name: str, ends: Ends | None, settings: dict[str, Any]) -> Outcome:
        start = self._built[1]
        for finished in self.finished_folds():
            check_start(finished, start.made_of, f"{name} would")
        network, source = self._material
        n, to_predict = len(self.dataset), self.dataset.unlabelled
        part = self._part(name, np.asarray(source.readable)[:n])
        network.load_state(start.state)
        if self.recipe.model.start == "probe":
            start_at_probe(self.dataset, self.recipe, network, self._backbone, part.learn)
        digests = {"learn": _digest(part.learn), "select": _digest(part.select)}
        weights = {"weights": network.digest, "start": start.made_of["start"]}
        given = {"rows": digests, **weights, **self._how.computing}
        checkpoints = Checkpoints(self._folder(name) / "state", {**settings, **given})
        trained = self._learnt(network, source, part, ends, checkpoints)
        seen = np.concatenate([part.select, part.report, n + np.arange(len(to_predict))])
        found = self._answers(network, source, seen)
        logits = np.full((n + len(to_predict), *found.shape[1:]), np.nan)
        logits[seen] = found
        folder = self._folder(name)
        done = save_outcome(folder, settings, trained, logits, start.made_of, to_predict.digest)
        checkpoints.clear()
        epochs = f"epoch {done.epoch} of {len(done.history)}"
        self._notify(f"{name}: {epochs} is kept, {done.seconds:.0f} s of training")
        return done

    def _learnt(
        self,
        network: Network,
        source: Looks,
        part: Part,
        ends: Ends | None,
        checkpoints: Checkpoints,
    ) -> Trained:
        dataset = self.dataset
        classes, positive = len(dataset.classes), dataset.positive
        lesson = Lesson(source, dataset.labels, dataset.labelled.ids, classes, positive, part)
        epochs = self.recipe.schedule.epochs if ends is None else ends.epochs
        events = self._folder(part.name) / "events" if self._how.tensorboard else None
        with self._progress(part.name, epochs) as advance, curves(events) as draw:

            def told(epoch: Epoch) -> None:
                advance()
                draw(epoch)

            return train(
                network,
                lesson,
                self.recipe,
                ends=ends,
                **self._how.computing,
                workers=self._how.drawing,
                checkpoints=checkpoints,
                told=told,
                notify=self._notify,
            )

    def _up_to_date(self, one: Outcome, settings: dict[str, Any]) -> Outcome:
        """A finished part, with answers for the rows to predict as they are now."""
        n, to_predict = len(self.dataset), self.dataset.unlabelled
        if one.to_predict == to_predict.digest and len(one.logits) == n + len(to_predict):
            return one
        self._notify(f"{one.part}: other rows to predict than before, answering them")
        check_start(one, self._built[1].made_of, "it would now")
        network, source = self._material
        network.to(self._how.device).load_state(read_weights(one.weights, one.digest))
        found = self._answers(network, source, n + np.arange(len(to_predict)))
        logits = np.concatenate([one.logits[:n], found])
        return renew_outcome(one, settings, logits, to_predict.digest)

    def _answers(self, network: Network, source: Looks, rows: np.ndarray) -> np.ndarray:
        """Logits (r, V, K) of rows through all views."""
        views = range(len(view_set(self.recipe.predict.views)))
        with memory_for(f"answering on {self._how.device}", _FREE):
            return logits_of(network, source, rows, views, device=self._how.device)

    def _part(self, name: str, readable: np.ndarray) -> Part:
        rows = self.recipe.rows
        if name == FULL:
            return full(self.dataset, readable)
        if name in (SPLIT, MERGED):
            return by_split(self.dataset, rows, readable)
        fold = int(name.removeprefix("fold-"))
        return by_fold(self.dataset, fold, rows, readable, seed=self.recipe.seed)

    def _ends(self) -> Ends:
        """When the final fit stops: where the folds did, in the middle."""
        self.check_folds()
        folds = self.finished_folds()
        shares = [one.tuned for one in folds if one.tuned is not None]
        tuned = float(np.median(shares)) if shares else None
        return Ends(median_epoch([one.epoch for one in folds]), tuned)

    def _settings(self, name: str, ends: Ends | None) -> dict[str, Any]:
        dataset = self.dataset
        settings: dict[str, Any] = {
            "recipe": self.recipe.model_dump(mode="json", exclude={"name"}),
            "backbone": self._backbone.described,
            "part": name,
            "snapshot": {name: dataset.parts[name] for name in PARTS},
        }
        if self.recipe.model.start == "probe":
            # The head begins as a probe on that cache.
            in_use = dataset.snapshot.cache(dataset.task.asks(self._backbone.name))
            settings["snapshot"]["cache"] = in_use and in_use.fingerprint
        if ends is not None:
            settings["ends"] = {"epochs": ends.epochs, "tuned": ends.tuned}
        return settings

    def _folder(self, name: str) -> Path:
        return self.folder / name


def _digest(rows: np.ndarray) -> str:
    return sha256(rows.astype("<i8").tobytes()).hexdigest()
