"""Build the networks from their library's registry, with weights loaded strictly."""

import contextlib
import hashlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import is_out_of_memory
from archiveprobe.base.wording import first_few, one_line
from archiveprobe.embed.backbones import RANDOM, Backbone
from archiveprobe.embed.hub import local_name
from archiveprobe.embed.libraries import make_torchvision_importable
from archiveprobe.embed.preprocess import Geometry, Preprocess, from_task
from archiveprobe.embed.views import RESAMPLING
from archiveprobe.embed.weights import fetch, registry_config

if TYPE_CHECKING:
    import torch

_SEED = 0
_OPEN_CLIP_CROPS = {"shortest": "center", "longest": "border", "squash": "squash"}
# timm's "random" is for training; its own evaluation falls back on bilinear.
_INTERPOLATIONS = {name: name for name in RESAMPLING} | {"random": "bilinear"}

State = Mapping[str, "torch.Tensor"]
Network = TypeVar("Network")


@dataclass(frozen=True)
class Model:
    """A network that maps pixels to pooled embeddings, with its preprocessing.

    `module` takes (n, 3, size, size) floats and gives (n, width); `digest` is the SHA-256 over its
    tensors.
    """

    # timm's and open_clip's networks have methods and parts of their own.
    module: Any
    preprocess: Preprocess
    digest: str


def load_model(backbone: Backbone, *, untrained: bool = False) -> Model:
    """Build a backbone with its weights, in `eval` mode on the CPU.

    With `untrained`, weights stay random: enough to measure speed.

    Raises:
        InputError: unknown model or weights, weights that are missing, unsafe or do not fit.
    """
    config = registry_config(backbone)
    module = seeded(backbone, lambda: _build(backbone, config))
    if backbone.weights != RANDOM and not untrained:
        _load_weights(module, backbone, fetch(backbone), config)
    module.eval().requires_grad_(False)
    preprocess = _preprocess(backbone, module, config).decoded(backbone.decode)
    return Model(module, preprocess, tensor_digest(module.state_dict()))


def _build(backbone: Backbone, config: Mapping[str, Any]) -> Any:
    if backbone.library == "timm":
        make_torchvision_importable()
        import timm

        arguments: dict[str, Any] = dict(backbone.arguments)
        return timm.create_model(local_name(backbone), pretrained=False, num_classes=0, **arguments)
    tower = build_clip(backbone, config).visual
    if getattr(tower, "output_tokens", False):
        # CoCa's gives its captioner the tokens too.
        tower.output_tokens = False
    return tower


def build_clip(backbone: Backbone, config: Mapping[str, Any]) -> Any:
    """Build both towers of an open_clip model, untrained; `config` is the registry's."""
    make_torchvision_importable()
    import open_clip

    # The activation belongs to the weights: OpenAI's and DFN's give wrong embeddings, without any
    # error, in a model that was built with the ordinary GELU.
    return open_clip.create_model(
        local_name(backbone),
        load_weights=False,
        pretrained_text=False,
        force_quick_gelu=bool(config.get("quick_gelu", False)),
        **backbone.arguments,
    )


def seeded(backbone: Backbone, build: Callable[[], Network]) -> Network:
    """Return what `build` makes, with the same random weights every time.

    Raises:
        InputError: the library refuses.
    """
    import torch

    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(_SEED)
        try:
            return build()
        except (TypeError, ValueError, RuntimeError, AssertionError, KeyError, OSError) as error:
            if is_out_of_memory(error):
                raise
            reason = one_line(error, 200)
            raise InputError(
                f"cannot build backbone {backbone.name!r} ({backbone.described}): {reason}: "
                f"{_remedy(error, reason)}"
            ) from error


def _remedy(error: Exception, reason: str) -> str:
    """Return what to do where a network cannot be built."""
    # Text towers of transformers, as coca_roberta has, need that package and its configurations.
    if "transformers" in reason and not isinstance(error, OSError):
        return "install it with `pip install 'archiveprobe[texts]'`, or choose another backbone"
    if isinstance(error, OSError):
        return "run `embed --dry-run` once where there is a network, or choose another backbone"
    return "correct its arguments in task.toml"


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' own remarks out of the output; faults still raise."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _load_weights(module: Any, backbone: Backbone, file: Path, config: Mapping[str, Any]) -> None:
    state = read_state(file)
    if backbone.library == "open_clip":
        prefix = "visual."
        visual = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        # A file may also hold the image tower alone.
        state = visual or state
    else:
        state = _without_classifier(state, config)
    problem = misfit(module, state)
    if problem and backbone.library == "timm":
        state = _renamed_by_timm(module, state)
        problem = misfit(module, state)
    if problem:
        raise InputError(
            f"the weights in {file} do not fit {backbone.described}: {problem}: name the right "
            "model, or the right file"
        )
    module.load_state_dict(state, strict=True)


def read_state(file: Path) -> dict[str, "torch.Tensor"]:
    """Read the tensors of a .safetensors file, or of a torch file that holds nothing but tensors.

    Raises:
        InputError: unreadable, damaged, or a pickle that would run code.
    """
    import torch

    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(file)
        else:
            with quiet():
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, OSError):
            why = error.strerror or error
            raise InputError(f"cannot read the weights {file}: {why}") from None
        reason = one_line(error)
        raise InputError(
            f"refused the weights {file}: neither a safetensors file nor a torch file of plain "
            f"tensors ({reason}): convert it to safetensors"
        ) from None
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = isinstance(content, Mapping) and all(map(torch.is_tensor, content.values()))
    if not tensors or not content:
        raise InputError(f"refused the weights {file}: it holds no table of tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _without_classifier(
    state: dict[str, "torch.Tensor"], config: Mapping[str, Any]
) -> dict[str, "torch.Tensor"]:
    classifier = config.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    dropped = {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    return {name: tensor for name, tensor in state.items() if name not in dropped}


def _renamed_by_timm(
    module: "torch.nn.Module", state: dict[str, "torch.Tensor"]
) -> dict[str, "torch.Tensor"]:
    """Return tensors under timm's names, where its model file knows what others call them."""
    rename = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if rename is None:
        return state
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            renamed: dict[str, torch.Tensor] = rename(state, module)
    except Exception:
        return state
    return renamed


def misfit(module: "torch.nn.Module", state: State) -> str:
    """Name the first tensors that are missing, unknown or of another shape; "" when all fit."""
    own = module.state_dict()
    missing = [f"{name} is missing" for name in own if name not in state]
    unknown = [f"{name} is unknown" for name in state if name not in own]
    shapes = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and tensor.shape != state[name].shape
    ]
    return first_few(shapes + missing + unknown)


def tensor_digest(state: State) -> str:
    """Return the SHA-256 over tensors sorted by name: name, type, shape and bytes of each."""
    import torch

    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _preprocess(backbone: Backbone, module: Any, config: Mapping[str, Any]) -> Preprocess:
    """Return the task's own preprocessing, else the one that the weights were trained with."""
    if backbone.preprocess is not None:
        return from_task(backbone.preprocess)
    if backbone.library == "timm":
        from timm.data.config import resolve_model_data_config

        # The size that the arguments build a model for goes before the weights'.
        size_asked = {"img_size": backbone.arguments.get("img_size")}
        data: dict[str, Any] = resolve_model_data_config(  # type: ignore[no-untyped-call]
            module, args=size_asked
        )
        size = _square(backbone, data["input_size"][1:])
        resize, crop = int(size / data["crop_pct"]), data["crop_mode"] or "center"
        red, green, blue = (round(255 * value) for value in data["mean"])
    else:
        from open_clip.transform import PreprocessCfg, merge_preprocess_dict

        data = merge_preprocess_dict(PreprocessCfg(), dict(config))
        sides = module.image_size
        size = resize = _square(backbone, sides if isinstance(sides, tuple | list) else [sides] * 2)
        crop = _OPEN_CLIP_CROPS[data["resize_mode"]]
        red = green = blue = int(data["fill_color"])
    interpolation = data["interpolation"]
    if interpolation not in _INTERPOLATIONS:
        raise InputError(
            f"backbone {backbone.name!r} wants unknown interpolation {interpolation!r}"
        )
    geometry = Geometry(size, resize, crop, _INTERPOLATIONS[interpolation], (red, green, blue))
    return Preprocess(geometry, _channels(data["mean"]), _channels(data["std"]))


def at_size(loaded: Model, size: int | None, backbone: Backbone) -> Preprocess:
    """Return the preprocessing at the side asked for, and set a backbone of fixed size to it.

    Raises:
        InputError: the backbone takes no images of that size.
    """
    geometry = loaded.preprocess.geometry
    if size is None or size == geometry.size:
        return loaded.preprocess
    network = getattr(loaded.module, "trunk", loaded.module)
    if hasattr(network, "set_input_size"):
        try:
            network.set_input_size(img_size=size)
        except (AssertionError, ValueError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise
            raise wrong_size(backbone, size, error) from None
    resize = max(size, round(geometry.resize * size / geometry.size))
    return replace(loaded.preprocess, geometry=replace(geometry, size=size, resize=resize))


def wrong_size(backbone: Backbone, size: int, error: Exception) -> InputError:
    """Return the error of a backbone that takes no images of a size."""
    reason = one_line(error)
    return InputError(
        f"{backbone.described} takes no images of {size} pixels ({reason}): correct model.size in "
        "the recipe"
    )


def _channels(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _square(backbone: Backbone, sides: Any) -> int:
    height, width = (int(side) for side in sides)
    if height != width:
        raise InputError(
            f"backbone {backbone.name!r} wants {height} x {width} pixels: only square inputs work"
        )
    return height
