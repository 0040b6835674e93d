"""A stored fine-tuned system, ready to answer: its networks, and the images it is shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.cache.spec import differences
from archiveprobe.embed.device import check_device, default_device
from archiveprobe.embed.views import View, view_set
from archiveprobe.finetune.loader import PictureRows
from archiveprobe.finetune.model import Network, backbone_of, build_network
from archiveprobe.finetune.outcome import read_weights
from archiveprobe.finetune.pixels import Pixels, Wanted, load_pixels
from archiveprobe.finetune.recipe import Recipe
from archiveprobe.finetune.verdict import averaged, logits_of, voted
from archiveprobe.task.config import Task

_AT_ONCE = 512


@dataclass(frozen=True)
class TunedSystem:
    """What answers: one network that takes turns with several states, and how views are combined.

    `states` are (file, SHA-256) of what was trained, one per network; `made_of` says what the
    backbone was. The network is built when an image is first looked at.
    """

    task: Task
    recipe: Recipe
    classes: int
    positive: int
    states: Sequence[tuple[Path, str]]
    made_of: Mapping[str, Any]

    @property
    def views(self) -> tuple[View, ...]:
        """The views that are looked at."""
        return view_set(self.recipe.predict.views)

    @cached_property
    def network(self) -> Network:
        """The network, without a state.

        Raises:
            InputError: the backbone, its weights or its preprocessing are not those it was trained
                on.
        """
        backbone = backbone_of(self.recipe.model, self.task)
        # All that is trained is in the states, so with "all" nothing else need be fetched.
        whole = self.recipe.model.unfreeze == "all"
        given = replace(backbone, weights="random") if whole else backbone
        network = build_network(
            self.recipe.model, given, self.classes, seed=self.recipe.seed, untrained=whole
        )
        now = {"preprocess": network.preprocess.record()}
        then = {"preprocess": self.made_of["preprocess"]}
        if not whole:
            now["weights"] = {"sha256": network.digest}
            then["weights"] = {"sha256": self.made_of["weights"]}
        changed = differences(then, now)
        if changed:
            told = "; ".join(f"{field} was {old!r}, is {new!r}" for field, old, new in changed[:3])
            raise InputError(
                f"{self.recipe.name} was trained on another {backbone.described}: {told}: bring "
                "that one back, or run finetune again"
            )
        return network

    def logits(
        self,
        root: Path,
        files: Sequence[tuple[str, str]],
        work: Path,
        *,
        device: str | None = None,
        workers: int = 0,
        advance: Callable[[], None] = lambda: None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits (m, K) of files, (path below root, digest or ""), and a hard vote's answers (m,).

        Rows without an image are NaN, or a blank image's where the recipe says so. `advance` is
        called per distinct image.

        Raises:
            InputError: the backbone or the weights are gone or have changed, or no such device.
            InputError: the disk takes no more pixels.
        """
        device = device or default_device()
        check_device(device)
        network = self.network.to(device)
        wanted = Wanted(1, network.preprocess.geometry, self.views)
        blank = self.recipe.rows.unreadable == "blank"
        states = [read_weights(*each) for each in self.states]
        by_view = [np.empty((0, len(self.views), self.classes))]
        for start in range(0, len(files), _AT_ONCE):
            part = files[start : start + _AT_ONCE]
            with load_pixels(
                root, part, wanted, work, workers=workers, blank=blank, advance=advance
            ) as pixels:
                by_view.append(self._seen(network, states, pixels, device))
        logits = np.concatenate(by_view)
        vote = self.recipe.predict.combine == "vote"
        answer = voted(logits, self.views, self.positive) if vote else None
        return averaged(logits, 1), answer

    def _seen(
        self, network: Network, states: Sequence[Mapping[str, Any]], pixels: Pixels, device: str
    ) -> np.ndarray:
        """Logits (b, V, K): the mean of all networks."""
        source = PictureRows(pixels, _nothing_drawn, network.preprocess)
        rows, views = np.arange(len(pixels)), range(len(self.views))
        found = []
        for (file, _), state in zip(self.states, states, strict=True):
            network.load_state(state, str(file))
            found.append(logits_of(network, source, rows, views, device=device))
        return averaged(np.stack(found), 0)


def load_tuned(task: Task, record: Mapping[str, Any]) -> TunedSystem:
    """The system that a run.json of kind "finetune" describes.

    Raises:
        InputError: its recipe is of another version.
        KeyError, TypeError, ValueError: it is no such record.
    """
    made_of = record["made_of"]
    states = [
        (_inside(task.work, str(one["file"])), str(one["sha256"])) for one in record["networks"]
    ]
    if not states:
        raise ValueError("it has no networks")
    return TunedSystem(
        task,
        Recipe(name=str(record["system"]), **record["recipe"]),
        len(record["classes"]),
        int(record["positive"]),
        states,
        {"weights": str(made_of["weights"]), "preprocess": dict(made_of["preprocess"])},
    )


def _inside(work: Path, file: str) -> Path:
    if "\0" in file or ".." in Path(file).parts or Path(file).is_absolute():
        raise ValueError(f"{file!r} is no file of a network")
    return work / file


def _nothing_drawn(image: np.ndarray, epoch: int, row: int | str, occurrence: int = 0) -> Any:
    raise NotImplementedError("an answer draws nothing")
