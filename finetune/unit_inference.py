"""Fine-tuned networks look at the images of a unit that are in memory."""

from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from archiveprobe.embed.faults import Parts
from archiveprobe.embed.forward import ForwardThreads
from archiveprobe.embed.job import crops_per_pass
from archiveprobe.embed.prepare import Preparation, PreparedImage
from archiveprobe.embed.tuned import read_weights
from archiveprobe.embed.unit_encoder import views_of_image
from archiveprobe.embed.views import Rendered, render
from archiveprobe.finetune.augment import normalise
from archiveprobe.finetune.images import blank_image
from archiveprobe.finetune.inference import TunedSystem, average, computing_at
from archiveprobe.finetune.loader import Notify
from archiveprobe.finetune.model import Network

if TYPE_CHECKING:
    import torch

_BATCH = 32


class UnitNetworks:
    """The networks of a fine-tuned system, on a device.

    They are loaded when an image is first looked at, and stay on the device. Threads may ask for
    several units at once, which then take turns.
    """

    def __init__(self, system: TunedSystem, device: str, notify: Notify = lambda _: None) -> None:
        self._system, self._device, self._notify = system, device, notify
        self._batch = min(_BATCH, crops_per_pass(device, None))
        self._turn = Lock()
        self._loaded: str | None = None

    def logits(
        self,
        images: Sequence[PreparedImage],
        preparation: Preparation,
        threads: ForwardThreads,
    ) -> np.ndarray:
        """Return logits (m, V, K) of the images of a unit, of which equal ones are looked at once.

        Passes run in `threads`, on a CPU one thread each. Rows without an image are NaN, or a
        blank image's where the recipe says so.

        Raises:
            InputError: the backbone or the weights are gone or have changed.
        """
        system = self._system
        geometry, views = system.look
        rendered = {
            image.digest: views_of_image(image, geometry, views, preparation)
            for image in images
            if image.views
        }
        if system.answers_blank:
            rendered[""] = render(blank_image(1), geometry, views, seed="")
        logits = np.full((len(images), len(views), system.classes), np.nan)
        if rendered:
            place = {key: at for at, key in enumerate(rendered)}
            keys = [image.digest if image.views else "" for image in images]
            rows = [at for at, key in enumerate(keys) if key in place]
            with self._turn, system.at_work(self._device):
                distinct = self._of_distinct(list(rendered.values()), threads)
            logits[rows] = distinct[[place[keys[at]] for at in rows]]
        return logits

    def _of_distinct(self, images: Sequence[Rendered], threads: ForwardThreads) -> np.ndarray:
        """Return logits (n, V, K), averaged over the networks."""
        of_networks = []
        for file, state in self._states:
            if self._loaded != file:
                self._network.load_state(state, file)
                self._loaded = file
            of_networks.append(self._of_network(images, threads))
        return average(np.stack(of_networks), 0)

    def _of_network(self, images: Sequence[Rendered], threads: ForwardThreads) -> np.ndarray:
        starts = range(0, len(images), self._batch)
        passes = [
            [
                threads.submit(self._look, images[start : start + self._batch], view)
                for start in starts
            ]
            for view in range(len(self._system.views))
        ]
        by_view = [np.concatenate([done.result() for done in of_view]) for of_view in passes]
        return np.stack(by_view, 1)

    def _look(self, images: Sequence[Rendered], view: int) -> np.ndarray:
        """Return logits (b, K) float64 of a batch through one view, by parts that fit memory."""
        parts = Parts(self._batch, self._notify)
        result = parts.compute(lambda part: self._look_at(images[part], view), len(images))
        # What the next batches begin with.
        self._batch = min(self._batch, parts.size)
        return result

    def _look_at(self, images: Sequence[Rendered], view: int) -> np.ndarray:
        import torch

        crops = [image.crops[image.crop[view]] for image in images]
        seen = [
            crop[:, ::-1] if image.mirror[view] else crop
            for image, crop in zip(images, crops, strict=True)
        ]
        pixels = torch.from_numpy(np.stack(seen)).to(self._device)
        with torch.inference_mode(), computing_at(self._device, self._system.precision):
            logits = self._network(normalise(pixels, self._network.preprocess))
            return np.asarray(logits.float().cpu().numpy(), np.float64)

    @cached_property
    def _network(self) -> Network:
        return self._system.network.to(self._device)

    @cached_property
    def _states(self) -> list[tuple[str, dict[str, Any]]]:
        """Read the states of all networks; on the device, so that they take turns quickly."""
        return [
            (str(file), self._on_device(read_weights(file, digest)))
            for file, digest in self._system.states
        ]

    def _on_device(self, state: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
        return {name: tensor.to(self._device) for name, tensor in state.items()}
