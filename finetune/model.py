"""The network that is fine-tuned: a backbone and a head, of which a recipe frees a part."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import is_out_of_memory
from archiveprobe.embed.backbones import RANDOM, Backbone, decoded_on_cpu, resolve
from archiveprobe.embed.models import Model as LoadedModel
from archiveprobe.embed.models import at_size, load_model, misfit, quiet, wrong_size
from archiveprobe.embed.networks import is_convolutional
from archiveprobe.embed.preprocess import Preprocess
from archiveprobe.finetune.blocks import block_names, last_blocks
from archiveprobe.finetune.lora import add_lora, layer_of_change, layers_to_change, merged_tensors
from archiveprobe.finetune.recipe import Model
from archiveprobe.task.config import Task

if TYPE_CHECKING:
    import torch
    from torch import nn

_DROP_PATH = "drop_path_rate"


@dataclass(frozen=True)
class Network:
    """A torch module from input (n, ...) to logits (n, K), and what is known of it.

    `module` has the parts `body` (the backbone) and `head`, and may be copied (for a running
    average). It takes pixels, (n, 3, size, size) floats as `preprocess` has them, or tokens.
    `trained` names the parts that training may change. `digest` is the SHA-256 over the backbone's
    tensors as they were loaded.
    """

    module: Any
    preprocess: Preprocess
    trained: tuple[str, ...]
    digest: str
    described: str
    classes: int

    @property
    def body(self) -> Any:
        """Return the backbone."""
        return self.module.body

    @property
    def head(self) -> Any:
        """Return what comes behind the embedding."""
        return self.module.head

    def __call__(self, inputs: "torch.Tensor") -> "torch.Tensor":
        """Return logits (n, K) of a batch."""
        logits: torch.Tensor = self.module(inputs)
        return logits

    def train(self) -> Self:
        """Let dropout and BatchNorm of the trained parts work as in training."""
        self.module.train()
        return self

    def eval(self) -> Self:
        """Give the same answer every time."""
        self.module.eval()
        return self

    def to(self, device: str) -> Self:
        """Move to a device."""
        import torch

        if device == "mps":
            # There channels-last is slower, and has been wrong (pytorch/pytorch#193349, #174345).
            self.module.to(memory_format=torch.contiguous_format)
        self.module.to(device)
        return self

    def parameters(self) -> list["torch.nn.Parameter"]:
        """Return the parameters that are trained."""
        return [each for each in self.module.parameters() if each.requires_grad]

    def state(self, *, whole: bool = True) -> dict[str, "torch.Tensor"]:
        """Return copies of all tensors on the CPU, or of those that training may change."""
        return {
            name: _copy(tensor)
            for name, tensor in self.module.state_dict().items()
            if whole or self._is_trained(name)
        }

    def merged_state(self) -> dict[str, "torch.Tensor"]:
        """Return copies on the CPU of what is trained, with LoRA merged into its layers.

        That is what is stored, and what a network that was built with `merged` takes over.
        """
        layers = tuple(f"{layer_of_change(part)}." for part in self.trained)
        return {
            name: _copy(tensor)
            for name, tensor in merged_tensors(self.module)
            if name.startswith(layers)
        }

    def load_state(self, state: Mapping[str, Any], source: str = "this state") -> None:
        """Take over what `state` gave, whole or not; frozen tensors it lacks stay as they are.

        Raises:
            InputError: tensors are missing, unknown or of another shape; the first few are named.
        """
        own = self.module.state_dict()
        frozen = {name: own[name] for name in own if not self._is_trained(name)}
        given = dict(state) if state.keys() & frozen.keys() else {**frozen, **state}
        problem = misfit(self.module, given)
        if problem:
            raise InputError(
                f"the weights in {source} do not fit {self.described} with this head: {problem}: "
                "use those that this recipe saved"
            )
        self.module.load_state_dict(given, strict=True)

    def _is_trained(self, name: str) -> bool:
        return name.startswith(tuple(f"{part}." for part in self.trained))


def _copy(tensor: "torch.Tensor") -> "torch.Tensor":
    import torch

    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def backbone_of(settings: Model, task: Task) -> Backbone:
    """Return the backbone that a recipe asks for, seen from a task, which may have its own.

    Raises:
        InputError: no such backbone, or one without anything to train.
    """
    try:
        backbone = replace(decoded_on_cpu(resolve(settings.backbone, task)), layers="pooled")
    except InputError as error:
        raise InputError(f"model.backbone in the recipe: {error}") from None
    if backbone.library == "descriptor":
        raise InputError(
            f"{backbone.name} has nothing to train: name another backbone in the recipe"
        )
    if backbone.tuned is not None:
        raise InputError(
            f"model.backbone in the recipe: {backbone.name} has seen the rows of every fold: name "
            "the backbone that it began with"
        )
    return replace(backbone, weights=RANDOM) if settings.weights == RANDOM else backbone


def build_network(
    settings: Model,
    backbone: Backbone,
    classes: int,
    *,
    seed: int = 0,
    untrained: bool = False,
    merged: bool = False,
) -> Network:
    """Build a recipe's network on the CPU, in eval mode.

    With `untrained` no weights are loaded: for a state that holds all of them. With `merged` the
    layers that learn by LoRA are plain ones: for what `Network.merged_state` gave.

    Raises:
        InputError: weights that are missing or do not fit, too few blocks, an impossible size, a
            backbone without the stochastic depth, gradient checkpointing or layers for LoRA that
            are asked for.
    """
    loaded = _load(backbone, settings.drop_path, untrained=untrained)
    preprocess = at_size(loaded, settings.size, backbone)
    head = make_head(_width(loaded.module, preprocess, backbone), classes, settings, seed=seed)
    trained = ("head", *_freed(loaded.module, settings, backbone.described, seed, merged))
    if settings.grad_checkpointing:
        _checkpoint_gradients(loaded.module, backbone.described)
    module = assemble(loaded.module, head, trained)
    return Network(module, preprocess, trained, loaded.digest, backbone.described, classes)


def _load(backbone: Backbone, drop_path: float, *, untrained: bool) -> LoadedModel:
    """Load the backbone; with stochastic depth, which has no weights, by timm's argument."""
    if not drop_path:
        return load_model(backbone, untrained=untrained)
    none = f"{backbone.described} knows no stochastic depth: leave out model.drop_path"
    if backbone.library != "timm":
        raise InputError(none)
    arguments = {**backbone.arguments, _DROP_PATH: drop_path}
    try:
        return load_model(replace(backbone, arguments=arguments), untrained=untrained)
    except InputError as error:
        raise InputError(none) if _DROP_PATH in str(error) else error from None


def _freed(body: Any, settings: Model, described: str, seed: int, merged: bool) -> list[str]:
    """Return the names of what is trained beside the head; adds LoRA unless it is `merged`."""
    if settings.unfreeze == "none" or settings.trains_everything:
        return ["body"] if settings.trains_everything else []
    count = settings.last_blocks
    names = last_blocks(body, count, described) if count else block_names(body, described)
    if settings.lora_rank is not None and merged:
        names = layers_to_change(body, names, settings)
    elif settings.lora_rank is not None:
        names = add_lora(body, names, settings, described, seed=seed)
    return [f"body.{name}" for name in names]


def _checkpoint_gradients(body: Any, described: str) -> None:
    """Let a backbone compute its activations again on the way back, instead of keeping them.

    Raises:
        InputError: it does not know how, or its BatchNorms would count every batch twice.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    if any(isinstance(part, _BatchNorm) for part in body.modules()):
        reason = "its BatchNorms would count every batch twice"
    else:
        with suppress(AttributeError, AssertionError, NotImplementedError):
            body.set_grad_checkpointing(True)
        # Some networks take the call and do nothing.
        if any(getattr(part, "grad_checkpointing", False) for part in body.modules()):
            return
        reason = "the network does not know how"
    raise InputError(
        f"{described} cannot checkpoint gradients ({reason}): leave out model.grad_checkpointing"
    )


def assemble(
    body: "nn.Module",
    head: "nn.Module",
    trained: tuple[str, ...],
    through: Callable[[Any, Any], Any] | None = None,
) -> "nn.Module":
    """Make a module of a body and a head, of which the named parts are trained.

    The embedding is what `through` gives of the body and the input; without it, the body's answer.
    In train mode the frozen parts stay in eval mode, so that the statistics of frozen BatchNorms do
    not move.
    """
    # Here, because torch is loaded where it is used.
    import torch
    from torch import nn

    class Classifier(nn.Module):
        """Inputs to logits; frozen parts are in eval mode always."""

        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = body, head

        def forward(self, inputs: torch.Tensor) -> Any:
            embedding = through(self.body, inputs) if through else self.body(inputs)
            return self.head(embedding)

        def train(self, mode: bool = True) -> Self:
            super().train(False)
            for name in trained:
                self.get_submodule(name).train(mode)
            self.training = mode
            return self

    module: nn.Module = Classifier()
    if is_convolutional(body):
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    module.requires_grad_(False)
    for name in trained:
        module.get_submodule(name).requires_grad_(True)
    return module.eval()


def _width(body: Any, preprocess: Preprocess, backbone: Backbone) -> int:
    """Return the length of the embedding, by trying; this also shows that the size is possible."""
    import torch

    side = preprocess.geometry.size
    try:
        with torch.no_grad(), quiet():
            embedding = body(torch.zeros(1, 3, side, side))
    except (AssertionError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise wrong_size(backbone, side, error) from None
    if embedding.ndim != 2:
        raise InputError(
            f"{backbone.described} gives {tuple(embedding.shape[1:])} instead of one embedding: "
            "use another backbone"
        )
    return int(embedding.shape[1])


def make_head(width: int, classes: int, settings: Model, *, seed: int = 0) -> "nn.Sequential":
    """Make a head from embeddings (n, width) to logits (n, classes), with torch's own random start.

    Equal seeds give equal heads, and the global generator does not move. For the CLIP paper,
    `hidden` 256 and `dropouts` 0.5 and 0.3, it is eq. (1): h = Dropout(0.5)(ReLU(W1 f + b1)), y =
    Dropout(0.3)(W2 h + b2), the second one on the logits.
    """
    import torch
    from torch import nn

    widths = (width, *settings.hidden, classes)
    dropouts = settings.dropouts or (0.0,) * (len(widths) - 1)
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for number, dropout in enumerate(dropouts):
            layers.append(nn.Linear(widths[number], widths[number + 1]))
            if number < len(settings.hidden):
                layers.append(nn.ReLU())
            if dropout:
                layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


def start_head(head: "nn.Sequential", arrays: Mapping[str, np.ndarray]) -> None:
    """Copy a linear probe into a linear head (LP-FT); `arrays` is what the fitted probe gives.

    The probe's candidates (C) count as it weighs them: coef (C, d, K), intercept (C, K), weights
    (C,). They are for the embedding as it is stored: standardisation is folded in.

    Raises:
        InputError: the probe is not linear, the head has hidden layers, or the shapes differ.
    """
    import torch

    if not {"weights", "coef", "intercept"} <= set(arrays):
        raise InputError(
            'the head can start from a linear probe only: use "logistic" or "ridge", or set '
            'head_init = "random"'
        )
    coef = np.tensordot(arrays["weights"], arrays["coef"], 1).T
    intercept = np.tensordot(arrays["weights"], arrays["intercept"], 1)
    layers = [part for part in head if isinstance(part, torch.nn.Linear)]
    if len(layers) != 1:
        raise InputError('head_init = "probe": the probe is linear, so leave out hidden')
    expected = tuple(layers[0].weight.shape)
    if coef.shape != expected or intercept.shape != expected[:1]:
        raise InputError(
            f"the probe's weights are {coef.shape}, the head's {expected}: probe the same backbone "
            "alone, on pooled embeddings, with the task's labels"
        )
    with torch.no_grad():
        # In Fortran order, as scikit-learn has them, some readers would scramble them.
        layers[0].weight.copy_(torch.from_numpy(np.ascontiguousarray(coef)))
        layers[0].bias.copy_(torch.from_numpy(np.ascontiguousarray(intercept)))
