"""The residual blocks of a backbone, by name, from the input to the output."""

from collections.abc import Iterator
from typing import Any

from archiveprobe.base.errors import InputError

# Where open_clip's towers and timm's networks keep their blocks, or stages of blocks.
_PLACES = (
    ("transformer.resblocks",),
    ("blocks",),
    ("stages",),
    ("layers",),
    ("layer1", "layer2", "layer3", "layer4"),
)


def last_blocks(body: Any, count: int, described: str) -> list[str]:
    """Return the names of the last `count` residual blocks, counted over all stages.

    Not what open_clip calls its last groups: its `lock_image_tower(unlocked_groups=1)` frees the
    projection behind the blocks.

    Raises:
        InputError: the backbone has fewer such blocks, or none.
    """
    names = block_names(body, described)
    if count > len(names):
        raise InputError(
            f'{described} has {len(names)} residual blocks, and unfreeze = "last-{count}" asks for '
            f'more: set unfreeze = "last-{len(names)}" or less, or "all"'
        )
    return names[-count:]


def block_names(body: Any, described: str) -> list[str]:
    """Return the names of all residual blocks inside a backbone, in their order.

    Raises:
        InputError: it has none, or does not end in one.
    """
    prefix = "trunk." if hasattr(body, "trunk") else ""
    network = body.trunk if prefix else body
    for places in _PLACES:
        blocks = [found for place in places for found in _blocks_at(network, place)]
        # MobileNets end in a block that is no longer residual: it changes the width.
        if blocks and getattr(blocks[-1][1], "has_skip", True):
            return [f"{prefix}{name}" for name, _ in blocks]
    raise InputError(
        f'{described} has no last residual block: set unfreeze = "all", or use another backbone'
    )


def _blocks_at(network: Any, place: str) -> Iterator[tuple[str, Any]]:
    module = network
    for part in place.split("."):
        module = getattr(module, part, None)
    if module is not None:
        yield from _inside(module, place)


def _inside(module: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the blocks of a stage, or of stages; anything else is a block itself."""
    from torch import nn

    if hasattr(module, "blocks"):
        yield from _inside(module.blocks, f"{name}.blocks")
    # Exactly: a block may itself be a kind of Sequential.
    elif type(module) in (nn.Sequential, nn.ModuleList):
        for at, child in module.named_children():
            yield from _inside(child, f"{name}.{at}")
    else:
        yield name, module
