"""Which numbers become the embedding: pooled, unprojected, the last blocks', or tokens."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import nearest

LAYERS = {
    "pooled": "what the network gives: (width,)",
    "unprojected": "of a CLIP tower, before the projection to the space shared with text: (width,)",
    "last4": "class token and mean patch of the last four blocks, before the final norm: "
    "(4, 2, width); (4, 1, width) where there is no class token",
    "tokens": "what the last block is given, for tuning it from the cache: (tokens, width)",
}
_LAST = 4

Read = Callable[[Any, Any], Any]


def check_layers(name: str) -> None:
    """Refuse a name that is not in LAYERS.

    Raises:
        InputError: the message names the nearest.
    """
    if name not in LAYERS:
        known = ", ".join(LAYERS)
        raise InputError(f"unknown layers {name!r}{nearest(name, LAYERS)}: use one of {known}")


def reader(module: Any, layers: str, described: str) -> Read:
    """How to read `layers` of a network: a function of the network and its input pixels.

    Changes the network where that is the way to get there: "unprojected" takes the projection away,
    the layers within leave hooks behind. Several threads may call it at the same time.

    Raises:
        InputError: the network has no projection, or no blocks.
    """
    if layers == "pooled":
        return pooled
    if layers == "unprojected":
        _drop_projection(module, described)
        return pooled
    watch = _Watch()
    if layers == "tokens":
        block = _blocks(module, described, 1)[-1]
        block.register_forward_pre_hook(lambda _, given: watch.note(given[0]))
        return lambda network, pixels: _input_of_last_block(network, pixels, watch)
    for block in list(_blocks(module, described, _LAST))[-_LAST:]:
        block.register_forward_hook(lambda _, __, output: watch.note(output))
    return lambda network, pixels: _last_blocks(network, pixels, watch)


def pooled(module: Any, pixels: Any) -> Any:
    """What the network itself gives."""
    return module(pixels)


def _drop_projection(module: Any, described: str) -> None:
    trunk = getattr(module, "trunk", None)
    if getattr(module, "proj", None) is not None:
        module.proj = None
    elif trunk is not None and "proj" in dict(module.head.named_children()):
        del module.head.proj
    elif trunk is not None and trunk.num_classes > 0:
        # Here the trunk's own classifier is the projection.
        trunk.reset_classifier(0)
    else:
        raise InputError(f'{described} has no projection: use layers = "pooled"')


def _blocks(module: Any, described: str, least: int) -> Any:
    """The transformer blocks, at least so many, of an open_clip tower or of a timm network."""
    network = getattr(module, "trunk", module)
    transformer = getattr(network, "transformer", None)
    blocks = getattr(transformer, "resblocks", None) or getattr(network, "blocks", None)
    has_tokens = transformer is not None or hasattr(network, "num_prefix_tokens")
    if blocks is None or len(blocks) < least or not has_tokens:
        more = "s" if least > 1 else ""
        raise InputError(
            f'{described} is no transformer of {least} or more block{more}: use layers = "pooled"'
        )
    return blocks


class _Watch(threading.local):
    """What hooks have seen of the pass that this thread is in; nothing outside of one.

    A hook for each pass, taken away afterwards, would see other threads' passes too.
    """

    _seen: list[Any] | None = None

    def note(self, tensor: Any) -> None:
        if self._seen is not None:
            self._seen.append(tensor)

    @contextmanager
    def over(self) -> Iterator[list[Any]]:
        """The tensors that are seen within the block, in order."""
        seen = self._seen = []
        try:
            yield seen
        finally:
            self._seen = None


def _last_blocks(module: Any, pixels: Any, watch: _Watch) -> Any:
    with watch.over() as outputs:
        module(pixels)
    network = getattr(module, "trunk", module)
    transformer = getattr(network, "transformer", None)
    if transformer is not None and not transformer.batch_first:
        outputs = [output.transpose(0, 1) for output in outputs]
    prefix = 1 if transformer is not None else network.num_prefix_tokens
    has_class = transformer is not None or getattr(network, "cls_token", None) is not None
    return _summary(outputs, prefix, has_class)


def _input_of_last_block(module: Any, pixels: Any, watch: _Watch) -> Any:
    """(n, tokens, width), class token first where there is one."""
    with watch.over() as inputs:
        module(pixels)
    transformer = getattr(getattr(module, "trunk", module), "transformer", None)
    if transformer is not None and not transformer.batch_first:
        return inputs[0].transpose(0, 1)
    return inputs[0]


def _summary(outputs: list[Any], prefix: int, has_class: bool) -> Any:
    """(n, 4, 1 or 2, width) from four (n, tokens, width)."""
    means = [output[:, prefix:].float().mean(1) for output in outputs]
    parts = [[output[:, 0].float()] for output in outputs] if has_class else [[] for _ in outputs]
    stacked = [_stack([*part, mean]) for part, mean in zip(parts, means, strict=True)]
    return _stack(stacked)


def _stack(tensors: list[Any]) -> Any:
    from archiveprobe.embed import libraries

    return libraries.torch().stack(tensors, 1)
