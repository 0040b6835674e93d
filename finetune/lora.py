"""LoRA (Hu et al., 2021): a weight W learns W + (alpha / r) B A, with A (r, in) and B (out, r).

A starts as torch starts a linear layer and B at zero, so that the first answers are those of the
pretrained network. W stays as it is in training; a trained network is stored with W + (alpha / r)
B A in its place, so that whoever reads it need not know of LoRA. A and B are parametrizations of
torch, because some attentions take their weights as plain tensors and never call a layer
(open_clip's `in_proj_weight`, the fused query, key and value of timm's Eva).
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from archiveprobe.base.errors import InputError
from archiveprobe.finetune.recipe import Model

if TYPE_CHECKING:
    import torch
    from torch import nn

# Small networks from two coordinates to a bias of attention: there is no rank to lower.
_OF_POSITIONS = frozenset({"rel_pos", "cpb_mlp"})
_CHANGED = ".parametrizations."
DOWN = ".down"
"""How the name of every A ends in a state; that of its B ends in ".up"."""


def add_lora(
    body: "nn.Module", blocks: Sequence[str], settings: Model, described: str, *, seed: int
) -> list[str]:
    """Let the linear layers of blocks learn by LoRA; return the names of what is to be trained.

    Raises:
        InputError: there is no such layer, or the rank is not below both sides of one.
    """
    import torch
    from torch.nn.utils import parametrize

    rank = settings.lora_rank
    assert rank is not None
    scale = (settings.lora_alpha or rank) / rank
    trained = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, layer, tensor in _layers(body, blocks, settings.lora_layers):
            shape = getattr(layer, tensor).shape
            if rank >= min(shape):
                raise InputError(
                    f"model.lora_rank = {rank} is no low rank for {name} of {described}, whose "
                    f"weight is {tuple(shape)}: set less than {min(shape)}"
                )
            change = _low_rank()(shape, rank, scale)
            parametrize.register_parametrization(layer, tensor, change)
            trained.append(f"{name}.parametrizations.{tensor}.0")
    if not trained:
        kind = "linear" if settings.lora_layers == "both" else settings.lora_layers
        raise InputError(
            f"the blocks of {described} have no {kind} layers for LoRA: leave out model.lora_rank, "
            "or use another backbone"
        )
    return trained


def layers_to_change(body: "nn.Module", blocks: Sequence[str], settings: Model) -> list[str]:
    """Return the names of the layers of blocks that learn by LoRA."""
    return [name for name, _, _ in _layers(body, blocks, settings.lora_layers)]


def layer_of_change(name: str) -> str:
    """Return the name of the layer that a name of `add_lora` changes; another name is its own."""
    return name.partition(_CHANGED)[0]


def merged_tensors(module: "nn.Module") -> Iterator[tuple[str, "torch.Tensor"]]:
    """Yield names and tensors as `state_dict` would without LoRA, W + (alpha / r) B A for W."""
    for name, tensor in module.state_dict().items():
        layer, changed, rest = name.partition(_CHANGED)
        if not changed:
            yield name, tensor
        elif rest.endswith(".original"):
            weight = rest.removesuffix(".original")
            yield f"{layer}.{weight}", getattr(module.get_submodule(layer), weight).detach()


def _layers(
    body: "nn.Module", blocks: Sequence[str], kinds: str
) -> Iterator[tuple[str, "nn.Module", str]]:
    """Yield the linear layers of blocks: name, module, and the name of its weight."""
    from torch import nn

    for block in blocks:
        # A list, since parametrizations are modules too.
        for inner, layer in list(body.get_submodule(block).named_modules()):
            parts = inner.split(".")
            # A MaxViT has an MLP in each of its "attn_block"s.
            attention = "mlp" not in parts and any("attn" in part for part in parts)
            asked = kinds in ("both", "attention" if attention else "mlp")
            if not asked or _OF_POSITIONS.intersection(parts):
                continue
            if isinstance(layer, nn.Linear):
                yield f"{block}.{inner}", layer, "weight"
            elif isinstance(getattr(layer, "in_proj_weight", None), nn.Parameter):
                yield f"{block}.{inner}", layer, "in_proj_weight"


@cache
def _low_rank() -> Any:
    """Make the class here, because torch is loaded where it is used."""
    import torch
    from torch import nn

    class LowRank(nn.Module):
        """Give W + scale B A for a weight W (out, in)."""

        def __init__(self, shape: torch.Size, rank: int, scale: float) -> None:
            super().__init__()
            self.scale = scale
            self.down = nn.Parameter(torch.empty(rank, shape[1]))
            self.up = nn.Parameter(torch.zeros(shape[0], rank))
            nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            # Never in half precision: what is stored is the weight that has learned.
            with torch.autocast(weight.device.type, enabled=False):
                return weight + self.scale * (self.up @ self.down)

    return LowRank
