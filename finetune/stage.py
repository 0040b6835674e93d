"""A recipe on a task: its parts, each trained once and kept in work/finetune/<system>/<part>."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np

from embed.backbones import Backbone
from embed.job import Notify
from embed.progress import Progress, silent
from embed.views import view_set
from evaluate.dataset import Dataset, Rows
from finetune.checkpoint import Checkpoints
from finetune.material import How, material, start_at_probe
from finetune.model import Network, backbone_of, build_network
from finetune.outcome import Outcome, load_outcome, made_of, save_outcome
from finetune.recipe import Recipe
from finetune.split import Part, by_fold, by_split, full, median_epoch
from finetune.train import Ends, Lesson, train
from finetune.verdict import Looks, logits_of
from task.errors import InputError

SPLIT, MERGED, FULL = "split", "merged", "full"


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
        self.system = recipe.name + ("@cache" if how.from_cache else "")
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

    def outcome(self, name: str) -> Outcome:
        """A part, trained unless it was before."""
        ends = self._ends() if name == FULL else None
        settings = self._settings(name, ends)
        known = load_outcome(self._folder(name), settings)
        if known is not None:
            self._notify(f"{name}: trained before")
            # Left where a run was killed between the two.
            Checkpoints(self._folder(name) / "state", {}).clear()
            return known
        return self._trained(name, ends, settings)

    def finished_folds(self) -> list[Outcome]:
        """The folds that are trained."""
        found = [self._finished(f"fold-{fold}") for fold in range(self.dataset.folds)]
        return [one for one in found if one is not None]

    def finished_final(self) -> Outcome | None:
        """The network of all rows, if it is trained for the epochs that the folds now say."""
        if len(self.finished_folds()) == self.dataset.folds:
            found = self._finished(FULL, self._ends())
            if found is not None:
                return found
        return self._finished(MERGED) if self.recipe.rows.merged else None

    def _finished(self, name: str, ends: Ends | None = None) -> Outcome | None:
        try:
            return load_outcome(self._folder(name), self._settings(name, ends))
        except InputError:
            # Of other settings, or damaged: whoever asks for that very part is told.
            return None

    @cached_property
    def _backbone(self) -> Backbone:
        return backbone_of(self.recipe.model, self.dataset.task)

    @cached_property
    def _network(self) -> Network:
        classes = len(self.dataset.classes)
        if self._backbone.weights == "random":
            self._notify(f"{self._backbone.name}: from random weights")
        return build_network(self.recipe.model, self._backbone, classes, seed=self.recipe.seed)

    @cached_property
    def _start(self) -> dict[str, Any]:
        return self._network.state(whole=False)

    @cached_property
    def _material(self) -> tuple[Network, Looks]:
        made = material(
            self.dataset,
            self.recipe,
            self._network,
            self._backbone,
            self._how,
            self._notify,
            self._progress,
        )
        return self._held.enter_context(made)

    def _trained(self, name: str, ends: Ends | None, settings: dict[str, Any]) -> Outcome:
        start = self._start
        network, source = self._material
        n = len(self.dataset)
        part = self._part(name, np.asarray(source.readable)[:n])
        self._network.load_state(start)
        if self.recipe.model.start == "probe":
            start_at_probe(self.dataset, self.recipe, self._network, self._backbone, part.learn)
        device = self._how.device
        rows = {"learn": _digest(part.learn), "select": _digest(part.select)}
        given = {**settings, "rows": rows, "weights": network.digest, "device": device}
        checkpoints = Checkpoints(self._folder(name) / "state", given)
        lesson = Lesson(
            source,
            self.dataset.labels,
            self.dataset.labelled.ids,
            len(self.dataset.classes),
            self.dataset.positive,
            part,
        )
        epochs = self.recipe.schedule.epochs if ends is None else ends.epochs
        with self._progress(name, epochs) as advance:
            trained = train(
                network,
                lesson,
                self.recipe,
                ends=ends,
                device=device,
                workers=self._how.drawing,
                checkpoints=checkpoints,
                advance=advance,
            )
        logits = self._answers(network, source, part)
        done = save_outcome(self._folder(name), settings, trained, logits, made_of(self._network))
        checkpoints.clear()
        return done

    def _answers(self, network: Network, source: Looks, part: Part) -> np.ndarray:
        """Logits (n + m, V, K) of all rows that were not learnt, NaN for the others."""
        n, m = len(self.dataset), len(self.dataset.unlabelled)
        views = range(len(view_set(self.recipe.predict.views)))
        rows = np.concatenate([part.select, part.report, np.arange(n, n + m)])
        found = logits_of(network, source, rows, views, device=self._how.device)
        out = np.full((n + m, *found.shape[1:]), np.nan)
        out[rows] = found
        return out

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
        folds = self.finished_folds()
        if len(folds) < self.dataset.folds:
            raise InputError(
                f"{len(folds)} of {self.dataset.folds} folds of {self.system} are trained, and the "
                "final fit takes their median epoch: run with --fold all first"
            )
        shares = [one.tuned for one in folds if one.tuned is not None]
        tuned = float(np.median(shares)) if shares else None
        return Ends(median_epoch([one.epoch for one in folds]), tuned)

    def _settings(self, name: str, ends: Ends | None) -> dict[str, Any]:
        dataset = self.dataset
        settings: dict[str, Any] = {
            "recipe": self.recipe.model_dump(mode="json", exclude={"name"}),
            "backbone": self._backbone.described,
            "part": name,
            "labels": dataset.labels_digest,
            "folds": dataset.folds_digest,
            "pictures": self._pictures(),
        }
        if ends is not None:
            settings["ends"] = {"epochs": ends.epochs, "tuned": ends.tuned}
        return settings

    def _pictures(self) -> str:
        rows = (self.dataset.labelled, self.dataset.unlabelled)
        words = [f"{id_} {key and key.hex()}" for each in rows for id_, key in _keyed(each)]
        return sha256("\n".join(words).encode("utf-8", "surrogateescape")).hexdigest()

    def _folder(self, name: str) -> Path:
        return self.dataset.task.work / "finetune" / self.system / name


def _keyed(rows: Rows) -> Iterator[tuple[str, bytes | None]]:
    return zip(rows.ids.tolist(), rows.keys, strict=True)


def _digest(rows: np.ndarray) -> str:
    return sha256(rows.astype("<i8").tobytes()).hexdigest()
