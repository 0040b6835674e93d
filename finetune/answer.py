"""A stored fine-tuned system, ready to answer: its networks, and the pictures it is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache.spec import differences
from embed.device import check_device, default_device
from embed.views import View, view_set
from finetune.loader import PictureRows
from finetune.model import Network, backbone_of, build_network
from finetune.outcome import read_weights
from finetune.pixels import Wanted, load_pixels
from finetune.recipe import Recipe
from finetune.verdict import averaged, logits_of, voted
from task.config import Task
from task.errors import InputError

_AT_ONCE = 512


@dataclass(frozen=True)
class TunedSystem:
    """What answers: one network that takes turns with several states, and how views are combined.

    `states` are (file, SHA-256) of what was trained, one per network.
    """

    recipe: Recipe
    network: Network
    states: Sequence[tuple[Path, str]]
    positive: int

    @property
    def views(self) -> tuple[View, ...]:
        """The views that are looked at."""
        return view_set(self.recipe.predict.views)

    def logits(
        self,
        root: Path,
        files: Sequence[tuple[str, str]],
        work: Path,
        *,
        device: str | None = None,
        workers: int = 0,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits (m, K) of files, (path below root, digest or ""), and a hard vote's answers (m,).

        Rows without a picture are NaN, or a blank picture's where the recipe says so.

        Raises:
            InputError: the weights are gone or have changed, or no such device.
            CacheError: the disk takes no more pixels.
        """
        device = device or default_device()
        check_device(device)
        network = self.network.to(device)
        wanted = Wanted(1, network.preprocess.geometry, self.views)
        by_view: list[np.ndarray] = []
        states = [read_weights(*each) for each in self.states]
        for start in range(0, len(files), _AT_ONCE):
            blank = self.recipe.rows.unreadable == "blank"
            part = files[start : start + _AT_ONCE]
            with load_pixels(root, part, wanted, work, workers=workers, blank=blank) as pixels:
                source = PictureRows(pixels, _nothing_drawn, network.preprocess)
                rows = np.arange(len(part))
                found = []
                for (file, _), state in zip(self.states, states, strict=True):
                    network.load_state(state, str(file))
                    views = range(len(self.views))
                    found.append(logits_of(network, source, rows, views, device=device))
                by_view.append(averaged(np.stack(found), 0))
        if not by_view:
            return np.empty((0, len(self.recipe.predict.views))), None
        logits = np.concatenate(by_view)
        vote = self.recipe.predict.combine == "vote"
        answer = voted(logits, self.views, self.positive) if vote else None
        return averaged(logits, 1), answer


def load_tuned(task: Task, record: Mapping[str, Any]) -> TunedSystem:
    """The system that a run.json of kind "finetune" describes.

    Raises:
        InputError: the backbone, its weights or its preprocessing are not those it was trained on.
        KeyError, TypeError, ValueError: it is no such record.
    """
    recipe = Recipe(name=str(record["system"]), **record["recipe"])
    backbone = backbone_of(recipe.model, task)
    # All that is trained is in the states, so with "all" nothing else need be fetched.
    whole = recipe.model.unfreeze == "all"
    given = replace(backbone, weights="random") if whole else backbone
    network = build_network(
        recipe.model, given, len(record["classes"]), seed=recipe.seed, untrained=whole
    )
    made_of = record["made_of"]
    now = {"preprocess": network.preprocess.record()}
    then = {"preprocess": made_of["preprocess"]}
    if not whole:
        now["weights"], then["weights"] = {"sha256": network.digest}, {"sha256": made_of["weights"]}
    changed = differences(then, now)
    if changed:
        told = "; ".join(f"{field} was {old!r}, is {new!r}" for field, old, new in changed[:3])
        raise InputError(
            f"{record['system']} was trained on another {backbone.described}: {told}: bring that "
            "one back, or run finetune again"
        )
    states = [(task.work / str(each["file"]), str(each["sha256"])) for each in record["networks"]]
    return TunedSystem(recipe, network, states, int(record["positive"]))


def _nothing_drawn(picture: np.ndarray, epoch: int, row: int | str) -> Any:
    raise NotImplementedError("an answer draws nothing")
