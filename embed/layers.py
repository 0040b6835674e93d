"""Which numbers of a network become the embedding: one entry of LAYERS each."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import nearest

if TYPE_CHECKING:
    import torch

# A function of the network and its input.
Read = Callable[[Any, Any], "torch.Tensor"]
_LAST = 4


def check_layers(name: str) -> None:
    """Refuse a name that is not in LAYERS.

    Raises:
        InputError: the message names the nearest.
    """
    if name not in LAYERS:
        known = ", ".join(LAYERS)
        raise InputError(f"unknown layers {name!r}{nearest(name, LAYERS)}: use one of {known}")


def reader(network: Any, layers: str, described: str) -> Read:
    """Return how to read `layers` of a network: a function of the network and its input pixels.

    Changes the network where that is the way to get there: "unprojected" takes the projection away,
    the layers within leave hooks behind. Several threads may call it at the same time.

    Raises:
        InputError: the network has no projection, or no blocks.
    """
    return LAYERS[layers](network, described)


def pooled(network: Any, pixels: Any) -> Any:
    """Return what the network itself gives."""
    return network(pixels)


def _read_unprojected(network: Any, described: str) -> Read:
    trunk = getattr(network, "trunk", None)
    if getattr(network, "proj", None) is not None:
        network.proj = None
    elif trunk is not None and "proj" in dict(network.head.named_children()):
        del network.head.proj
    elif trunk is not None and trunk.num_classes > 0:
        # Here the trunk's own classifier is the projection.
        trunk.reset_classifier(0)
    else:
        raise InputError(f'{described} has no projection: use layers = "pooled"')
    return pooled


def _read_last_blocks(network: Any, described: str) -> Read:
    recorder = _Recorder()
    for block in list(_blocks(network, described, _LAST))[-_LAST:]:
        block.register_forward_hook(lambda _, __, output: recorder.record(output))
    trunk, is_clip = _trunk(network)
    prefix = 1 if is_clip else trunk.num_prefix_tokens
    has_class = is_clip or getattr(trunk, "cls_token", None) is not None

    def read(network: Any, pixels: Any) -> Any:
        """Return (n, 4, 1 or 2, width): class token (where there is one) and mean patch."""
        import torch

        blocks = []
        for tokens in recorder.run(network, pixels):
            means = tokens[:, prefix:].float().mean(1)
            parts = [tokens[:, 0].float(), means] if has_class else [means]
            blocks.append(torch.stack(parts, 1))
        return torch.stack(blocks, 1)

    return read


def _read_tokens(network: Any, described: str) -> Read:
    recorder = _Recorder()
    block = _blocks(network, described, 1)[-1]
    block.register_forward_pre_hook(lambda _, inputs: recorder.record(inputs[0]))
    return lambda network, pixels: recorder.run(network, pixels)[0]


LAYERS: dict[str, Callable[[Any, str], Read]] = {
    # What the network gives: (width,).
    "pooled": lambda *_: pooled,
    # Of a CLIP tower, before the projection to the space shared with text: (width,).
    "unprojected": _read_unprojected,
    # Class token and mean patch of the last four blocks, before the final norm: (4, 2, width);
    # (4, 1, width) where there is no class token.
    "last4": _read_last_blocks,
    # The input of the last block, for tuning it from the cache: (tokens, width).
    "tokens": _read_tokens,
}
"""Name in task.toml -> what makes the function that reads such layers; see `reader`."""


def _trunk(network: Any) -> tuple[Any, bool]:
    """Return the network below open_clip's wrapper of timm, and whether it is open_clip's own."""
    trunk = getattr(network, "trunk", network)
    return trunk, getattr(trunk, "transformer", None) is not None


def _blocks(network: Any, described: str, least: int) -> Any:
    """Return the transformer blocks, at least so many, of an open_clip tower or a timm network."""
    trunk, is_clip = _trunk(network)
    blocks = getattr(trunk.transformer if is_clip else None, "resblocks", None)
    blocks = blocks or getattr(trunk, "blocks", None)
    has_tokens = is_clip or hasattr(trunk, "num_prefix_tokens")
    if blocks is None or len(blocks) < least or not has_tokens:
        more = "s" if least > 1 else ""
        raise InputError(
            f'{described} is no transformer of {least} or more block{more}: use layers = "pooled"'
        )
    return blocks


class _Recorder(threading.local):
    """The tensors that hooks see in the forward pass of this thread; nothing outside of one.

    A hook for each pass, taken away afterwards, would see other threads' passes too.
    """

    _tensors: list[Any] | None = None

    def record(self, tensor: Any) -> None:
        if self._tensors is not None:
            self._tensors.append(tensor)

    def run(self, network: Any, pixels: Any) -> list[Any]:
        """Run the network; return the recorded tensors (n, tokens, width) in order."""
        with self._recording() as tensors:
            network(pixels)
        trunk, is_clip = _trunk(network)
        if is_clip and not trunk.transformer.batch_first:
            return [tensor.transpose(0, 1) for tensor in tensors]
        return tensors

    @contextmanager
    def _recording(self) -> Iterator[list[Any]]:
        tensors = self._tensors = []
        try:
            yield tensors
        finally:
            self._tensors = None
