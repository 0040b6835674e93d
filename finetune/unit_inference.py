"""Fine-tuned networks look at the images of a unit that are in memory."""

from collections.abc import Sequence
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from archiveprobe.base.progress import Notify
from archiveprobe.embed.forward import ForwardThreads, PendingBatches
from archiveprobe.embed.job import crops_per_pass
from archiveprobe.embed.prepare import Preparation, PreparedImage
from archiveprobe.embed.tuned import read_weights
from archiveprobe.embed.unit_encoder import views_of_image
from archiveprobe.embed.views import Rendered, render
from archiveprobe.finetune.forward import ForwardPasses, ViewNetwork
from archiveprobe.finetune.images import blank_image
from archiveprobe.finetune.inference import TunedSystem, average

if TYPE_CHECKING:
    import torch


class UnitNetworks:
    """The networks of a fine-tuned system, on a device.

    They are loaded when an image is first looked at, and stay on the device. Threads may ask for
    several units at once, which then take turns.
    """

    def __init__(self, system: TunedSystem, device: str, notify: Notify = lambda _: None) -> None:
        self._system, self._device = system, device
        self._where = f"{system.recipe.name} on {device}"
        # Passes run side by side on a CPU, so they are as small as those of `embed`.
        self._passes = ForwardPasses(device, system.precision, notify, crops_per_pass(device, None))
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
        """Return logits (n, V, K), averaged over the networks; a batch is gathered once for all."""
        seen, of_networks = self._seen, []
        batches = list(self._passes.batches(images))
        for file, state in self._states:
            if self._loaded != file:
                self._system.network.load_state(state, file)
                self._loaded = file
            pending = PendingBatches(threads, self._where)
            for batch in batches:
                pending.submit(batch, seen)
            rows = [logits for _, some in pending.results() for _, logits in some]
            of_networks.append(np.stack(rows).astype(np.float64))
        for batch in batches:
            self._passes.keep_size(batch)
        return average(np.stack(of_networks), 0)

    @cached_property
    def _seen(self) -> ViewNetwork:
        return self._passes.network(self._system.network)

    @cached_property
    def _states(self) -> list[tuple[str, dict[str, Any]]]:
        """Read the states of all networks; on the device, so that they take turns quickly."""
        return [
            (str(file), self._on_device(read_weights(file, digest)))
            for file, digest in self._system.states
        ]

    def _on_device(self, state: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
        return {name: tensor.to(self._device) for name, tensor in state.items()}
