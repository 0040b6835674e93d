"""The network that is tuned: a backbone and a head, of which a recipe frees a part."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from archiveprobe.base.errors import InputError
from archiveprobe.base.files import write_whole
from archiveprobe.embed import libraries
from archiveprobe.embed.backbones import RANDOM, Backbone, resolve
from archiveprobe.embed.models import Model as Trunk
from archiveprobe.embed.models import load_model, misfit, quiet, read_state
from archiveprobe.embed.preprocess import Preprocess
from archiveprobe.finetune.blocks import last_block
from archiveprobe.finetune.heads import make_head
from archiveprobe.finetune.settings import Model
from archiveprobe.task.config import Task

# A ViT has one convolution, its patch embedding; a network with more gains from channels-last.
_CONVOLUTIONAL = 3
_DROP_PATH = "drop_path_rate"


@dataclass(frozen=True)
class Network:
    """A torch module from input (n, ...) to logits (n, K), and what is known of it.

    `module` has the parts `body` and `head`, and may be copied (for a running average). `inputs`
    says what it takes: "pixels", (n, 3, size, size) floats as `preprocess` has them, or "tokens".
    `trained` names the parts that training may change; in train mode the rest stays as in eval
    mode, so that the statistics of frozen BatchNorms do not move. `digest` is the SHA-256 over the
    backbone's tensors as they were loaded.
    """

    module: Any
    preprocess: Preprocess
    trained: tuple[str, ...]
    digest: str
    described: str
    inputs: str = "pixels"

    @property
    def body(self) -> Any:
        """The backbone."""
        return self.module.body

    @property
    def head(self) -> Any:
        """What comes behind the embedding."""
        return self.module.head

    def __call__(self, inputs: Any) -> Any:
        """Logits (n, K) of a batch."""
        return self.module(inputs)

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
        self.module.to(device)
        return self

    def parameters(self) -> dict[str, list[Any]]:
        """What is trained, of the "body" and of the "head"; the optimiser knows the layers."""
        parts = {"body": self.body, "head": self.head}
        return {
            name: [each for each in part.parameters() if each.requires_grad]
            for name, part in parts.items()
        }

    def state(self, *, whole: bool = True) -> dict[str, Any]:
        """Copies of all tensors on the CPU, or of those that training may change."""
        torch = libraries.torch()
        copies = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.module.state_dict().items()
        }
        return copies if whole else {name: copies[name] for name in copies if self._tuned(name)}

    def load_state(self, state: Mapping[str, Any], source: str = "this state") -> None:
        """Take over what `state` gave, whole or not; frozen tensors it lacks stay as they are.

        Raises:
            InputError: tensors are missing, unknown or of another shape; the first few are named.
        """
        own = self.module.state_dict()
        frozen = {name: own[name] for name in own if not self._tuned(name)}
        given = dict(state) if state.keys() & frozen.keys() else {**frozen, **state}
        problem = misfit(self.module, given)
        if problem:
            raise InputError(
                f"the weights in {source} do not fit {self.described} with this head: {problem}: "
                "use those that this recipe saved"
            )
        self.module.load_state_dict(given, strict=True)

    def save(self, file: Path, *, whole: bool = True) -> None:
        """Write the state as safetensors, in one step.

        Raises:
            InputError: the disk is full or read-only; an old file is then untouched.
        """
        from safetensors.torch import save

        try:
            write_whole(file, save(self.state(whole=whole)))
        except OSError as error:
            raise InputError(
                f"cannot write {file}: {error.strerror or error}: make room, and run again"
            ) from None

    def load(self, file: Path) -> None:
        """Take over the state in a file.

        Raises:
            InputError: the file cannot be read, is damaged, or does not fit.
        """
        self.load_state(read_state(file), str(file))

    def _tuned(self, name: str) -> bool:
        return name.startswith(tuple(f"{part}." for part in self.trained))


def backbone_of(settings: Model, task: Task) -> Backbone:
    """The backbone that a recipe asks for, seen from a task, which may have its own.

    Raises:
        InputError: no such backbone, or one without anything to train.
    """
    try:
        backbone = replace(resolve(settings.backbone, task), layers="pooled")
    except InputError as error:
        raise InputError(f"model.backbone in the recipe: {error}") from None
    if backbone.library == "descriptor":
        raise InputError(
            f"{backbone.name} has nothing to train: name another backbone in the recipe"
        )
    return replace(backbone, weights=RANDOM) if settings.weights == RANDOM else backbone


def build_network(
    settings: Model, backbone: Backbone, classes: int, *, seed: int = 0, untrained: bool = False
) -> Network:
    """Build a recipe's network on the CPU, in eval mode.

    With `untrained` no weights are loaded: for a state that holds all of them.

    Raises:
        InputError: weights that are missing or do not fit, no last block, an impossible size, a
            backbone without stochastic depth where some is asked for.
    """
    loaded = _load(backbone, settings.drop_path, untrained=untrained)
    preprocess = _at_size(loaded, settings.size, backbone)
    head = make_head(_width(loaded.module, preprocess, backbone), classes, settings, seed=seed)
    module = assemble(loaded.module, head, _parts(settings, loaded.module, backbone))
    return Network(module, preprocess, module.trained, loaded.digest, backbone.described)


def _load(backbone: Backbone, drop_path: float, *, untrained: bool) -> Trunk:
    """The backbone; with stochastic depth, which has no weights and draws in training only."""
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


def _parts(settings: Model, body: Any, backbone: Backbone) -> tuple[str, ...]:
    if settings.unfreeze == "none":
        return ("head",)
    if settings.unfreeze == "all":
        return ("head", "body")
    return ("head", f"body.{last_block(body, backbone.described)}")


def assemble(body: Any, head: Any, trained: tuple[str, ...], through: Any = None) -> Any:
    """A module of a body and a head, of which the named parts are trained.

    The embedding is what `through` gives of the body and the input; without it, the body's answer.
    """
    # Here, because torch is loaded where it is used.
    from torch import nn

    class Tuned(nn.Module):
        """Inputs to logits; frozen parts are in eval mode always."""

        def __init__(self) -> None:
            super().__init__()
            self.body, self.head, self.trained = body, head, trained

        def forward(self, inputs: Any) -> Any:
            embedding = through(self.body, inputs) if through else self.body(inputs)
            return self.head(embedding)

        def train(self, mode: bool = True) -> Self:
            super().train(False)
            for name in self.trained:
                self.get_submodule(name).train(mode)
            self.training = mode
            return self

    module: Any = Tuned()
    convolutions = sum(isinstance(part, nn.Conv2d) for part in body.modules())
    if convolutions >= _CONVOLUTIONAL:
        module = module.to(memory_format=libraries.torch().channels_last)
    module.requires_grad_(False)
    for name in trained:
        module.get_submodule(name).requires_grad_(True)
    return module.eval()


def _at_size(loaded: Trunk, size: int | None, backbone: Backbone) -> Preprocess:
    """The preprocessing at the side asked for; a backbone of fixed size is told of it."""
    geometry = loaded.preprocess.geometry
    if size is None or size == geometry.size:
        return loaded.preprocess
    network = getattr(loaded.module, "trunk", loaded.module)
    if hasattr(network, "set_input_size"):
        try:
            network.set_input_size(img_size=size)
        except (AssertionError, ValueError, RuntimeError) as error:
            raise _wrong_size(backbone, size, error) from None
    resize = max(size, round(geometry.resize * size / geometry.size))
    return replace(loaded.preprocess, geometry=replace(geometry, size=size, resize=resize))


def _width(body: Any, preprocess: Preprocess, backbone: Backbone) -> int:
    """The length of the embedding, by trying; this also shows that the size is possible."""
    torch = libraries.torch()
    side = preprocess.geometry.size
    try:
        with torch.no_grad(), quiet():
            given = body(torch.zeros(1, 3, side, side))
    except (AssertionError, ValueError, RuntimeError) as error:
        raise _wrong_size(backbone, side, error) from None
    if given.ndim != 2:
        raise InputError(
            f"{backbone.described} gives {tuple(given.shape[1:])} instead of one embedding: use "
            "another backbone"
        )
    return int(given.shape[1])


def _wrong_size(backbone: Backbone, size: int, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:120]
    return InputError(
        f"{backbone.described} takes no images of {size} pixels ({reason}): correct model.size "
        "in the recipe"
    )


def arrays_of(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A state as C-contiguous arrays, as systems on disk keep it."""
    return {
        name: np.ascontiguousarray(tensor.numpy()).reshape(tensor.shape)
        for name, tensor in state.items()
    }


def state_of(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A state from what `arrays_of` gave."""
    torch = libraries.torch()
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
