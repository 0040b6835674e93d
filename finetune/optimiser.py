"""The optimiser: which parameters learn at which rate, and which of them decay.

Every group carries the head's rate as `initial_lr` and its own share of it as `lr_scale`. timm's
schedules multiply the two, so warm-up and cosine keep the proportions of head, body and layers.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.embed import libraries
from archiveprobe.finetune.settings import Optimiser

# Some files store GRN with four dimensions, where a rule on shapes would let it decay.
_ALWAYS_ONE_DIMENSIONAL = ("*.grn.*", "grn.*")
_BLOCK = re.compile(r"(?:.*\.)?transformer\.resblocks\.(\d+)\.")
_LAST = ("ln_post", "proj", "attn_pool")


def make_optimiser(body: Any, head: Any, settings: Optimiser) -> Any:
    """AdamW over what is trainable (`requires_grad`) in two modules: the backbone and its head.

    Raises:
        InputError: nothing is trainable, or the backbone has no layers that a layer decay knows.
    """
    groups = parameter_groups(body, head, settings)
    if not groups:
        raise InputError("nothing is left to train: unfreeze more of the backbone")
    return libraries.timm_part("optim").create_optimizer_v2(
        groups, opt="adamw", lr=settings.head_rate, weight_decay=settings.weight_decay
    )


def parameter_groups(body: Any, head: Any, settings: Optimiser) -> list[dict[str, Any]]:
    """Groups of trainable parameters, each with `lr`, `initial_lr`, `lr_scale`, `weight_decay`."""
    share = settings.body_rate / settings.head_rate
    groups = [*_body_groups(body, settings), *_plain_groups(head, settings)]
    of_body = {id(parameter) for parameter in body.parameters()}
    for group in groups:
        scale = group.get("lr_scale", 1.0) * (share if id(group["params"][0]) in of_body else 1)
        group |= {"initial_lr": settings.head_rate, "lr_scale": scale}
        group["lr"] = settings.head_rate * scale
    return groups


def _body_groups(body: Any, settings: Optimiser) -> list[dict[str, Any]]:
    trains = any(parameter.requires_grad for parameter in body.parameters())
    if settings.layer_decay == 1 or not trains:
        return _plain_groups(body, settings)
    groups: list[dict[str, Any]] = libraries.timm_part("optim").param_groups_layer_decay(
        _Layered(body, layer_of(body)),
        weight_decay=settings.weight_decay,
        no_weight_decay_list=_spared(body, settings),
        weight_decay_exclude_1d=not settings.decay_one_dimensional,
        layer_decay=settings.layer_decay,
    )
    return groups


def _plain_groups(module: Any, settings: Optimiser) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = libraries.timm_part("optim").param_groups_weight_decay(
        module,
        settings.weight_decay,
        weight_decay_exclude_1d=not settings.decay_one_dimensional,
        no_weight_decay_list=_spared(module, settings),
    )
    return groups


def _spared(module: Any, settings: Optimiser) -> tuple[str, ...]:
    """Names, or patterns of them, that do not decay whatever their shape."""
    if settings.decay_one_dimensional:
        return ()
    own: list[str] = []
    for prefix, network in (("", module), ("trunk.", getattr(module, "trunk", None))):
        if network is not None and hasattr(network, "no_weight_decay"):
            own += [prefix + name for name in network.no_weight_decay()]
    return (*sorted(own), *_ALWAYS_ONE_DIMENSIONAL)


@dataclass(frozen=True)
class _Layered:
    """A module as timm's layer decay sees it: parameters, and the layer of each."""

    module: Any
    layer: Callable[[str], float]

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        named: Iterator[tuple[str, Any]] = self.module.named_parameters()
        return named

    def group_matcher(self, coarse: bool) -> Callable[[str], float]:  # noqa: ARG002
        return self.layer


def layer_of(body: Any) -> Callable[[str], float]:
    """The layer that a parameter of a timm network or an open_clip tower belongs to, by its name.

    Layers rise from the input to the output; what follows the last block comes last.

    Raises:
        InputError: the network does not say what its layers are.
    """
    prefix = "trunk." if hasattr(body, "trunk") else ""
    network = body.trunk if prefix else body
    if hasattr(network, "group_matcher"):
        layers = libraries.timm_part("models").group_parameters(
            network, network.group_matcher(coarse=False), reverse=True
        )
        last = max(layers.values()) + (1 if prefix else 0)
        return lambda name: float(layers.get(name.removeprefix(prefix), last))
    if any(_BLOCK.match(name) for name, _ in network.named_parameters()):
        return _clip_layer
    raise InputError(
        f"a {type(network).__name__} does not say what its layers are: set layer_decay = 1.0"
    )


def _clip_layer(name: str) -> float:
    block = _BLOCK.match(name)
    if block:
        return 1.0 + int(block[1])
    return float("inf") if name.startswith(_LAST) else 0.0
