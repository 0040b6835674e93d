"""From networks and the views of images to one answer: averaging, voting, a stored system."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import log_softmax, logsumexp, softmax

from archiveprobe.base.progress import Notify
from archiveprobe.embed.device import check_device, default_device
from archiveprobe.embed.faults import network_at_work
from archiveprobe.embed.preprocess import geometry_of_record
from archiveprobe.embed.tuned import check_start, read_weights
from archiveprobe.embed.unit_encoder import Look
from archiveprobe.embed.view_sets import View, view_set
from archiveprobe.evaluate.thresholding import decide
from archiveprobe.evaluate.tuned import network_file
from archiveprobe.finetune.forward import ForwardPasses
from archiveprobe.finetune.images import ImageRows, PixelSpec, load_pixels
from archiveprobe.finetune.loader import InputRows
from archiveprobe.finetune.model import Network, backbone_of, build_network
from archiveprobe.finetune.recipe import Predict, Recipe
from archiveprobe.task.config import Task

_IMAGES_AT_ONCE = 512
_CENTRES = ("center", "crop-middle")


def centre_of(views: Sequence[View]) -> int:
    """Return the place of the unmirrored centre view; the first view where there is none."""
    for at, view in enumerate(views):
        if view.crop in _CENTRES and not view.mirror:
            return at
    return 0


def logits_of(
    network: Network,
    inputs: InputRows,
    rows: np.ndarray,
    views: Sequence[int],
    passes: ForwardPasses,
) -> np.ndarray:
    """Return logits (n, V, K) float64 of rows through views, by a network in eval mode.

    Rows that are not readable are NaN.
    """
    logits = np.full((len(rows), len(views), network.classes), np.nan)
    places = np.flatnonzero(np.asarray(inputs.readable)[rows])
    if len(places):
        images = (inputs.rendered(int(row), views) for row in rows[places])
        logits[places] = passes.logits(network, images)
    return logits


def average(logits: np.ndarray, axis: int) -> np.ndarray:
    """Return logits whose softmax is the mean of the probabilities along an axis.

    log mean_i softmax(z_i) is such a vector: its exponentials sum to one already.
    """
    return np.asarray(logsumexp(log_softmax(logits, -1), axis) - np.log(logits.shape[axis]))


def vote(logits: np.ndarray, views: Sequence[View], positive: int) -> np.ndarray:
    """Return the class (n,) that most views of (n, V, K) vote for; if even, the centre decides.

    Of two classes a view votes for the positive one when its probability is above 0.5. Should the
    centre be for neither of three or more that are even, the likeliest of them on average wins.
    """
    p = np.nan_to_num(softmax(logits, -1))
    n, _, k = p.shape
    choice = p.argmax(-1)
    if k == 2:
        choice = np.where(p[..., positive] > 0.5, positive, 1 - positive)
    votes = np.stack([(choice == label).sum(1) for label in range(k)], 1)
    even = votes == votes.max(1, keepdims=True)
    likeliest = np.where(even, p.mean(1), -1).argmax(1)
    centre = choice[:, centre_of(views)]
    return np.asarray(np.where(even[np.arange(n), centre], centre, likeliest))


def decisions(predict: Predict, logits: np.ndarray, positive: int) -> np.ndarray:
    """Return the class (n,) of logits (n, V, K) of views, by a vote, a fixed threshold or argmax.

    NaN gets any class.
    """
    if predict.combine == "vote":
        return vote(logits, view_set(predict.views), positive)
    mean = np.nan_to_num(average(logits, 1))
    if predict.threshold is None:
        return np.asarray(mean.argmax(-1))
    return decide(softmax(mean, -1)[:, positive], predict.threshold, positive)


@dataclass(frozen=True)
class TunedSystem:
    """A stored fine-tuned system: one network that takes turns with several states.

    `states` are (file, SHA-256) of what was trained, one per network; `made_of` says what they
    started from. The network is built when an image is first looked at.
    """

    task: Task
    recipe: Recipe
    classes: int
    positive: int
    states: Sequence[tuple[Path, str]]
    made_of: Mapping[str, Any]
    precision: str = "fp32"

    @property
    def views(self) -> tuple[View, ...]:
        """Return the views that are looked at."""
        return view_set(self.recipe.predict.views)

    @cached_property
    def network(self) -> Network:
        """Return the network, without a state.

        Raises:
            InputError: the backbone, its weights or its preprocessing are not those it was trained
                on.
        """
        backbone = backbone_of(self.recipe.model, self.task)
        # All that is trained is in the states, so with "all" nothing else need be fetched.
        whole = self.recipe.model.trains_everything
        network = build_network(
            self.recipe.model,
            replace(backbone, weights="random") if whole else backbone,
            self.classes,
            seed=self.recipe.seed,
            untrained=whole,
            merged=True,
        )
        digest = None if whole else network.digest
        check_start(self.recipe.name, backbone.described, self.made_of, network.preprocess, digest)
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
        notify: Notify = lambda _: None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return logits (m, K) of files, (path, digest or ""), and the answers (m,) of a vote.

        Rows without an image are NaN, or a blank image's where the recipe says so. `advance` is
        called per distinct image.

        Raises:
            InputError: the backbone or the weights are gone or have changed, there is no such
                device, or the disk takes no more pixels.
        """
        device = device or default_device()
        check_device(device)
        with self.at_work(device):
            network = self.network.to(device)
        spec = PixelSpec(1, network.preprocess.geometry, self.views)
        states = [(str(file), read_weights(file, digest)) for file, digest in self.states]
        by_view = [np.empty((0, len(self.views), self.classes))]
        passes = ForwardPasses(device, self.precision, notify)
        for start in range(0, len(files), _IMAGES_AT_ONCE):
            some = files[start : start + _IMAGES_AT_ONCE]
            with load_pixels(
                root, some, spec, work, workers=workers, blank=self.answers_blank, advance=advance
            ) as pixels:
                inputs = ImageRows(pixels, network.preprocess)
                of_networks = []
                for file, state in states:
                    with self.at_work(device):
                        network.load_state(state, file)
                        rows, views = np.arange(len(pixels)), range(len(self.views))
                        of_networks.append(logits_of(network, inputs, rows, views, passes))
            by_view.append(average(np.stack(of_networks), 0))
        return self.combine(np.concatenate(by_view))

    def at_work(self, device: str) -> AbstractContextManager[None]:
        """Say in one line why the networks cannot answer on a device. Raises InputError."""
        remedy = "free memory, or name another device with --device"
        return network_at_work(f"{self.recipe.name} on {device}", "answer", remedy=remedy)

    def combine(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return logits (m, K) of those (m, V, K) of all views, and the answers (m,) of a vote."""
        voted = self.recipe.predict.combine == "vote"
        answer = vote(logits, self.views, self.positive) if voted else None
        return average(logits, 1), answer

    @property
    def look(self) -> Look:
        """Return the geometry and the views that the networks look at, without building one."""
        return geometry_of_record(self.made_of["preprocess"]), self.views

    @property
    def answers_blank(self) -> bool:
        """Return whether an image that cannot be read is answered as a blank one."""
        return self.recipe.rows.unreadable == "blank"


def load_tuned_system(task: Task, record: Mapping[str, Any]) -> TunedSystem:
    """Load the system that a run.json of kind "finetune" describes.

    Raises:
        KeyError, TypeError, ValueError: it is no such record, or its recipe is of another version.
    """
    states = [
        (network_file(task.work, str(network["file"])), str(network["sha256"]))
        for network in record["networks"]
    ]
    if not states:
        raise ValueError("it has no networks")
    made_of = record["made_of"]
    return TunedSystem(
        task,
        Recipe(name=str(record["system"]), **record["recipe"]),
        len(record["classes"]),
        int(record["positive"]),
        states,
        {"weights": str(made_of["weights"]), "preprocess": dict(made_of["preprocess"])},
        # Records of earlier versions have none: their answers are in fp32, however they trained.
        str(record.get("answers_in", "fp32")),
    )
