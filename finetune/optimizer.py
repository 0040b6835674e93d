"""The optimizer, its learning rates at every step, and the running average of the weights.

Every group of parameters carries the head's rate as `initial_lr` and its own share of it as
`lr_scale`. timm's schedules multiply the two, so warm-up and cosine keep the proportions of head,
backbone and layers. Rates follow from the step alone, so a resumed run needs no state of them.
"""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from archiveprobe.base.errors import InputError
from archiveprobe.embed.libraries import make_torchvision_importable
from archiveprobe.embed.models import quiet

if TYPE_CHECKING:
    import torch
    from torch import nn

    from archiveprobe.finetune.recipe import Ema, Optimizer, Schedule

OPTIMIZERS: Mapping[str, str] = MappingProxyType({"adamw": "adamw"})
"""Name in a recipe -> name for timm's factory."""
SCHEDULES: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "cosine": lambda timm, optimizer, steps, lowest, **warmup: timm.CosineLRScheduler(
            optimizer, t_initial=steps, lr_min=lowest, **warmup
        ),
        "constant": lambda timm, optimizer, steps, lowest, **warmup: timm.StepLRScheduler(  # noqa: ARG005
            optimizer, decay_t=steps + warmup["warmup_t"] + 1, decay_rate=1.0, **warmup
        ),
    }
)
"""Name in a recipe -> timm's schedule for (timm.scheduler, optimizer, steps after the warm-up, the
lowest rate). The cosine at step t of T is lowest + (highest - lowest) (1 + cos(pi t / T)) / 2."""
# Some files store GRN with four dimensions, where a rule on shapes would let it decay.
_ALWAYS_ONE_DIMENSIONAL = ("*.grn.*", "grn.*")
_CLIP_BLOCK = re.compile(r"(?:.*\.)?transformer\.resblocks\.(\d+)\.")
_BEHIND_CLIP_BLOCKS = ("ln_post", "proj", "attn_pool")


def make_optimizer(
    body: "nn.Module", head: "nn.Module", settings: "Optimizer"
) -> "torch.optim.Optimizer":
    """Make the optimizer over what is trainable in two modules: the backbone and its head.

    Raises:
        InputError: nothing is trainable, or the backbone has no layers that a layer decay knows.
    """
    make_torchvision_importable()
    from timm import optim

    groups = parameter_groups(body, head, settings)
    if not groups:
        raise InputError("nothing is left to train: unfreeze more of the backbone")
    optimizer: torch.optim.Optimizer = optim.create_optimizer_v2(  # type: ignore[attr-defined]
        groups,
        opt=OPTIMIZERS[settings.kind],
        lr=settings.head_lr,
        weight_decay=settings.weight_decay,
    )
    return optimizer


def parameter_groups(
    body: "nn.Module", head: "nn.Module", settings: "Optimizer"
) -> list[dict[str, Any]]:
    """Return groups of trainable parameters: `lr`, `initial_lr`, `lr_scale`, `weight_decay`."""
    make_torchvision_importable()
    from timm import optim as timm_optim

    optim: Any = timm_optim

    def groups_of(module: "nn.Module", *, layers: bool) -> list[dict[str, Any]]:
        rules: dict[str, Any] = {
            "weight_decay": settings.weight_decay,
            "weight_decay_exclude_1d": settings.weight_decay_exclude_1d,
            "no_weight_decay_list": _without_decay(module, settings),
        }
        if not layers:
            return list(optim.param_groups_weight_decay(module, **rules))
        layer = layer_of(module)
        # timm numbers the layers of its own networks only; open_clip's towers get theirs from here.
        layered: Any = SimpleNamespace(
            named_parameters=module.named_parameters,
            group_matcher=lambda coarse: layer,  # noqa: ARG005
        )
        return list(
            optim.param_groups_layer_decay(layered, layer_decay=settings.layer_decay, **rules)
        )

    trained = any(parameter.requires_grad for parameter in body.parameters())
    in_body = groups_of(body, layers=trained and settings.layer_decay != 1)
    in_head = groups_of(head, layers=False)
    for group in in_body:
        group["lr_scale"] = group.get("lr_scale", 1.0) * (settings.lr / settings.head_lr)
    for group in [*in_body, *in_head]:
        group.setdefault("lr_scale", 1.0)
        group["initial_lr"] = settings.head_lr
        group["lr"] = settings.head_lr * group["lr_scale"]
    return [*in_body, *in_head]


def _without_decay(module: Any, settings: "Optimizer") -> tuple[str, ...]:
    """Return names, or patterns of them, that do not decay whatever their shape."""
    if not settings.weight_decay_exclude_1d:
        return ()
    own: list[str] = []
    for prefix, network in (("", module), ("trunk.", getattr(module, "trunk", None))):
        if network is not None and hasattr(network, "no_weight_decay"):
            own += [prefix + name for name in network.no_weight_decay()]
    return (*sorted(own), *_ALWAYS_ONE_DIMENSIONAL)


def layer_of(body: Any) -> Callable[[str], float]:
    """Return the function that gives the layer of a parameter by its name.

    It knows timm's networks and open_clip's towers. Layers rise from the input to the output; what
    follows the last block comes last.

    Raises:
        InputError: the network does not say what its layers are.
    """
    prefix = "trunk." if hasattr(body, "trunk") else ""
    network = body.trunk if prefix else body
    if hasattr(network, "group_matcher"):
        from timm.models import group_parameters

        layers: dict[str, int] = group_parameters(
            network, network.group_matcher(coarse=False), reverse=True
        )
        last = max(layers.values()) + (1 if prefix else 0)
        return lambda name: float(layers.get(name.removeprefix(prefix), last))
    if any(_CLIP_BLOCK.match(name) for name, _ in network.named_parameters()):
        return _clip_layer
    raise InputError(
        f"a {type(network).__name__} does not say what its layers are: set layer_decay = 1.0"
    )


def _clip_layer(name: str) -> float:
    block = _CLIP_BLOCK.match(name)
    if block:
        return 1.0 + int(block[1])
    return float("inf") if name.startswith(_BEHIND_CLIP_BLOCKS) else 0.0


def make_learning_rates(
    optimizer: "torch.optim.Optimizer", settings: "Schedule", steps_per_epoch: int
) -> Callable[[int], float]:
    """Make the schedule of a recipe, by step: warm-up, then the rest.

    Returns:
        A function that sets every group's rate for a step (counted from 0) and returns the head's.
    """
    from timm import scheduler

    steps = settings.epochs * steps_per_epoch
    warmup = min(round(settings.warmup * steps_per_epoch), steps - 1)
    # timm warns of a run of a single step, whose rate a cosine cannot change.
    with quiet():
        schedule = SCHEDULES[settings.kind](
            scheduler,
            optimizer,
            steps - warmup,
            settings.min_lr,
            warmup_t=warmup,
            warmup_lr_init=settings.warmup_start * optimizer.param_groups[0]["initial_lr"],
            warmup_prefix=True,
            t_in_epochs=False,
        )

    def set_rates(step: int) -> float:
        schedule.step_update(step)
        group = optimizer.param_groups[0]
        return float(group["lr"] / group["lr_scale"])

    return set_rates


def decay_per_step(settings: "Ema", steps: int) -> float | None:
    """Return the decay of an average over that many steps; None where there is no average.

    After s steps the share decay^s of the first weights is left: a fixed decay leaves much of them
    in a short run, while a `remainder` r is reached in any run by decay = r^(1/s).
    """
    if settings.remainder is not None:
        return float(settings.remainder ** (1 / max(1, steps)))
    return settings.decay


def make_average(module: "nn.Module", settings: "Ema", steps: int) -> Any:
    """Make timm's ModelEmaV3 from a module as it is now; None where there is no average.

    Call ``average.update(module)`` after every step; ``average.module`` then predicts. Buffers of
    floats are averaged too.
    """
    decay = decay_per_step(settings, steps)
    if decay is None:
        return None
    make_torchvision_importable()
    from timm.utils.model_ema import ModelEmaV3

    return ModelEmaV3(module, decay=decay)
