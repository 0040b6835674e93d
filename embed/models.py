"""Building the networks: from a library's registry, with weights loaded strictly."""

import contextlib
import hashlib
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiveprobe.base.errors import InputError
from archiveprobe.base.memory import is_out_of_memory
from archiveprobe.embed import libraries
from archiveprobe.embed.backbones import RANDOM, Backbone
from archiveprobe.embed.preprocess import Geometry, Preprocess, from_override
from archiveprobe.embed.views import RESAMPLING
from archiveprobe.embed.weights import declared, fetch

_SEED = 0
_SHOWN = 3


@dataclass(frozen=True)
class Model:
    """A network that maps pixels to pooled embeddings, with its preprocessing.

    `module` takes (n, 3, size, size) floats and gives (n, width); `digest` is the SHA-256 over its
    tensors.
    """

    module: Any
    preprocess: Preprocess
    digest: str


def load_model(backbone: Backbone, *, untrained: bool = False) -> Model:
    """Build a backbone with its weights, in `eval` mode on the CPU.

    With `untrained`, weights stay random: enough to measure speed.

    Raises:
        InputError: unknown model or weights, weights that are missing, unsafe or do not fit.
    """
    config = declared(backbone)
    module = seeded(backbone, lambda: _build(backbone, config))
    if backbone.weights != RANDOM and not untrained:
        _load_weights(module, backbone, fetch(backbone), config)
    module.eval().requires_grad_(False)
    preprocess = _preprocess(backbone, module, config)
    return Model(module, preprocess, tensor_digest(module.state_dict()))


def _build(backbone: Backbone, config: Mapping[str, Any]) -> Any:
    if backbone.library == "timm":
        return _build_timm(backbone)
    tower = build_clip(backbone, config).visual
    if getattr(tower, "output_tokens", False):
        # CoCa's gives its captioner the tokens too.
        tower.output_tokens = False
    return tower


def seeded(backbone: Backbone, build: Callable[[], Any]) -> Any:
    """What `build` makes, with the same random weights every time.

    Raises:
        InputError: the library refuses.
    """
    torch = libraries.torch()
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(_SEED)
        try:
            return build()
        except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
            if is_out_of_memory(error):
                raise
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"cannot build backbone {backbone.name!r} ({backbone.described}): {reason}: "
                "correct its arguments in task.toml"
            ) from error


def _build_timm(backbone: Backbone) -> Any:
    full = f"{backbone.model}.{backbone.tag}" if backbone.tag else backbone.model
    return libraries.timm().create_model(
        full, pretrained=False, num_classes=0, **dict(backbone.arguments)
    )


def build_clip(backbone: Backbone, config: Mapping[str, Any]) -> Any:
    """Both towers of an open_clip model, untrained; `config` is what the registry declares."""
    # The activation belongs to the weights: OpenAI's and DFN's give wrong embeddings, without any
    # error, in a model that was built with the ordinary GELU.
    return libraries.open_clip().create_model(
        backbone.model,
        load_weights=False,
        pretrained_text=False,
        force_quick_gelu=bool(config.get("quick_gelu", False)),
        **dict(backbone.arguments),
    )


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
        state = _visual_part(state)
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


def read_state(file: Path) -> dict[str, Any]:
    """Read the tensors of a .safetensors file, or of a torch file that holds nothing but tensors.

    Raises:
        InputError: unreadable, damaged, or a pickle that would run code.
    """
    torch = libraries.torch()
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
        reason = " ".join(str(error).split())[:120]
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


def _visual_part(state: Mapping[str, Any]) -> dict[str, Any]:
    visual = {
        name.removeprefix("visual."): tensor
        for name, tensor in state.items()
        if name.startswith("visual.")
    }
    return visual or dict(state)


def _without_classifier(state: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    classifier = config.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    dropped = {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    return {name: tensor for name, tensor in state.items() if name not in dropped}


def _renamed_by_timm(module: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Tensors under timm's names, where its model file knows how the original ones are called."""
    rename = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
    if rename is None:
        return state
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            renamed: dict[str, Any] = rename(state, module)
    except Exception:
        return state
    return renamed


def misfit(module: Any, state: Mapping[str, Any]) -> str:
    """The first tensors that are missing, unknown or of another shape; empty when all fit."""
    own = module.state_dict()
    missing = [f"{name} is missing" for name in own if name not in state]
    unknown = [f"{name} is unknown" for name in state if name not in own]
    shapes = [
        f"{name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and tensor.shape != state[name].shape
    ]
    faults = shapes + missing + unknown
    more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return ", ".join(faults[:_SHOWN]) + more


def tensor_digest(state: Mapping[str, Any]) -> str:
    """SHA-256 over tensors sorted by name: name, type, shape and bytes of each."""
    torch = libraries.torch()
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _preprocess(backbone: Backbone, module: Any, config: Mapping[str, Any]) -> Preprocess:
    if backbone.preprocess is not None:
        return from_override(backbone.preprocess)
    if backbone.library == "timm":
        return _preprocess_timm(backbone, module)
    return _preprocess_clip(backbone, module, config)


def _preprocess_timm(backbone: Backbone, module: Any) -> Preprocess:
    # The size that a model was built for, where the arguments say so, goes before the weights'.
    size_asked = {"img_size": backbone.arguments.get("img_size")}
    data = libraries.timm().data.resolve_model_data_config(module, args=size_asked)
    size = _square(backbone, data["input_size"][1:])
    mean, std = _channels(data["mean"]), _channels(data["std"])
    red, green, blue = (round(255 * value) for value in mean)
    geometry = Geometry(
        size=size,
        resize=int(size / data["crop_pct"]),
        crop=data["crop_mode"] or "center",
        interpolation=_interpolation(backbone, data["interpolation"]),
        fill=(red, green, blue),
    )
    return Preprocess(geometry, mean, std)


def _preprocess_clip(backbone: Backbone, module: Any, config: Mapping[str, Any]) -> Preprocess:
    transform = importlib.import_module(libraries.open_clip().__name__ + ".transform")
    data = transform.merge_preprocess_dict(transform.PreprocessCfg(), dict(config))
    size = module.image_size
    side = _square(backbone, size if isinstance(size, tuple | list) else (size, size))
    crop = {"shortest": "center", "longest": "border", "squash": "squash"}[data["resize_mode"]]
    fill = int(data["fill_color"])
    geometry = Geometry(
        size=side,
        resize=side,
        crop=crop,
        interpolation=_interpolation(backbone, data["interpolation"]),
        fill=(fill, fill, fill),
    )
    return Preprocess(geometry, _channels(data["mean"]), _channels(data["std"]))


def _channels(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _square(backbone: Backbone, size: Any) -> int:
    height, width = (int(side) for side in size)
    if height != width:
        raise InputError(
            f"backbone {backbone.name!r} wants {height} x {width} pixels: only square inputs work"
        )
    return height


def _interpolation(backbone: Backbone, name: str) -> str:
    # timm's "random" is for training; its own evaluation falls back on bilinear.
    known = {name: name for name in RESAMPLING} | {"random": "bilinear"}
    if name not in known:
        raise InputError(f"backbone {backbone.name!r} wants unknown interpolation {name!r}")
    return known[name]
