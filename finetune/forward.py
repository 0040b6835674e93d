"""Forward passes of fine-tuned networks, on images and tokens as backbones do: embed/forward.py.

Every crop of a batch is copied and sent once, however many views show it, and mirrored there.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from archiveprobe.base.progress import Notify
from archiveprobe.embed.arithmetic import computing_on
from archiveprobe.embed.forward import Batch
from archiveprobe.embed.models import Model
from archiveprobe.embed.networks import ImageNetwork
from archiveprobe.embed.views import Rendered
from archiveprobe.finetune.model import Network

if TYPE_CHECKING:
    import torch

# Views of one pass, by the kind of device.
_BATCH = {"cpu": 32, "cuda": 256, "mps": 32}


@contextmanager
def computing_at(device: str, precision: str) -> Iterator[None]:
    """Let a network compute on a device: autocast where `precision` is "bf16", fp32 as it is."""
    import torch

    half = torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=precision == "bf16")
    with computing_on(device), half:
        yield


class ViewNetwork(ImageNetwork):
    """A network in eval mode as what batches go through; its embeddings are logits (n, K).

    With `precision` "bf16" under autocast.
    """

    def __init__(self, network: Network, device: str, precision: str) -> None:
        def read(module: Any, inputs: "torch.Tensor") -> Any:
            with computing_at(device, precision):
                return module(inputs)

        network.to(device)
        model = Model(network.module, network.preprocess, network.digest)
        super().__init__(network.described, model, device, read=read)

    def _input(
        self, crops: "torch.Tensor", mirror: np.ndarray, crop: np.ndarray | None
    ) -> "torch.Tensor":
        # Cached tokens, of which every view has its own.
        if crops.is_floating_point():
            return crops.float()
        return super()._input(crops, mirror, crop)


class ForwardPasses:
    """How networks compute views on a device: `size` at a time, fewer once memory has run out."""

    def __init__(
        self,
        device: str = "cpu",
        precision: str = "fp32",
        notify: Notify = lambda _: None,
        size: int | None = None,
    ) -> None:
        self.device, self.precision = device, precision
        self.size = size or _BATCH[device.partition(":")[0]]
        self._notify = notify

    def network(self, network: Network) -> ViewNetwork:
        """Return a network as what batches go through."""
        return ViewNetwork(network, self.device, self.precision)

    def batches(self, images: Iterable[Rendered]) -> Iterator[Batch]:
        """Yield batches of images, in order."""
        batch = Batch(self.size, self._notify)
        for number, image in enumerate(images):
            if not batch.has_room(image):
                yield batch
                # Of a size that memory asked for since.
                batch = Batch(self.size, self._notify)
            batch.add(number.to_bytes(8), image)
        if not batch.empty:
            yield batch

    def keep_size(self, batch: Batch) -> None:
        """Go on with the size of a batch that was computed, if memory asked for a smaller one."""
        self.size = min(self.size, batch.size)

    def logits(self, network: Network, images: Iterable[Rendered]) -> np.ndarray:
        """Return logits (n, V, K) float64 of images through their views, at least one."""
        seen, found = self.network(network), []
        for batch in self.batches(images):
            batch.gather(seen.allocate)
            found += [logits for _, logits in batch.embed(seen.embed)]
            self.keep_size(batch)
        return np.stack(found).astype(np.float64)
