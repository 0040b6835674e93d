"""The last residual block of a backbone: its name, and the network from its input onwards."""

from collections.abc import Callable
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries

# Where open_clip's towers and timm's networks keep their blocks, or stages of blocks.
_PLACES = ("transformer.resblocks", "blocks", "stages", "layers", "layer4")

FromTokens = Callable[[Any, Any], Any]
"""(backbone, (n, tokens, width)) -> the embedding (n, d) that the backbone would have given."""


def last_block(body: Any, described: str) -> str:
    """The name of the last residual block inside a backbone.

    Not what open_clip calls the last group: its `lock_image_tower(unlocked_groups=1)` frees the
    projection behind the block.

    Raises:
        InputError: the backbone has no such block.
    """
    prefix = "trunk." if hasattr(body, "trunk") else ""
    network = body.trunk if prefix else body
    for place in _PLACES:
        name = _last_inside(network, place)
        if name is not None:
            return f"{prefix}{name}"
    raise InputError(
        f'{described} has no last residual block: set unfreeze = "all", or use another backbone'
    )


def _last_inside(network: Any, place: str) -> str | None:
    """The last block below `place`, through stages; None where the last one is not residual."""
    block = network
    for part in place.split("."):
        block = getattr(block, part, None)
    name = place
    while block is not None:
        if hasattr(block, "blocks"):
            block, name = block.blocks, f"{name}.blocks"
        elif not _is_row(block):
            # MobileNets end in a block that is no longer residual: it changes the width.
            return name if getattr(block, "has_skip", True) else None
        elif len(block) == 0:
            return None
        else:
            block, name = block[len(block) - 1], f"{name}.{len(block) - 1}"
    return None


def _is_row(module: Any) -> bool:
    nn = libraries.torch().nn
    # Exactly: a block may itself be a kind of Sequential.
    return type(module) in (nn.Sequential, nn.ModuleList)


def from_tokens(body: Any, described: str) -> FromTokens:
    """How a backbone goes on from the input of its last block.

    Raises:
        InputError: it is no transformer whose end is known here.
    """
    if _is_clip_tower(body):
        return _end_of_clip
    vit = libraries.timm_part("models.vision_transformer").VisionTransformer
    if isinstance(getattr(body, "trunk", body), vit):
        return _end_of_timm
    raise InputError(
        f"the last block of {described} cannot be tuned from cached tokens: leave out --from-cache"
    )


def _is_clip_tower(body: Any) -> bool:
    """Whether the class token alone leaves the last block, which is of open_clip's common kind."""
    blocks = getattr(getattr(body, "transformer", None), "resblocks", None)
    return (
        blocks is not None
        and type(blocks[-1]).__name__ == "ResidualAttentionBlock"
        and blocks[-1].attn.batch_first
        and body.attn_pool is None
        and body.pool_type == "tok"
    )


def _end_of_clip(body: Any, tokens: Any) -> Any:
    # Only the class token leaves the block, so it alone asks and goes through the MLP: the output
    # is the same, for a fraction of the work.
    block = body.transformer.resblocks[-1]
    normed = block.ln_1(tokens)
    asked = block.attention(q_x=normed[:, :1], k_x=normed, v_x=normed)
    first = tokens[:, :1] + block.ls_1(asked)
    first = first + block.ls_2(block.mlp(block.ln_2(first)))
    pooled = body.ln_post(first[:, 0])
    return pooled if body.proj is None else pooled @ body.proj


def _end_of_timm(body: Any, tokens: Any) -> Any:
    network = getattr(body, "trunk", body)
    pooled = network.forward_head(network.norm(network.blocks[-1](tokens)))
    return pooled if network is body else body.head(pooled)
