"""The table of backbones, and how a name in task.toml becomes one."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from archiveprobe.base.errors import InputError
from archiveprobe.task.config import OwnBackbone, Preprocess, Task, nearest
from archiveprobe.task.texts import text_cache

PRETRAINED = "pretrained"
RANDOM = "random"
_TAG_MARK = {"timm": ".", "open_clip": "/"}


@dataclass(frozen=True)
class Backbone:
    """A network, its weights and what is known of it without building it.

    `model` and `tag` are the library's own names; `width` is the length of the pooled embedding and
    `size` the side of the input in pixels, both None where only the built model can tell. `weights`
    is "pretrained", "random" or the path of a file; `layers` says which numbers are the embedding,
    and `tower` which half of a CLIP they come from.
    """

    name: str
    library: Literal["timm", "open_clip", "descriptor"]
    model: str
    tag: str | None = None
    width: int | None = None
    size: int | None = None
    licence: str = "unknown"
    weights: str = PRETRAINED
    arguments: Mapping[str, str | int | float | bool] = field(
        default_factory=lambda: MappingProxyType({})
    )
    preprocess: Preprocess | None = None
    layers: str = "pooled"
    tower: Literal["image", "text"] = "image"

    @property
    def cache(self) -> str:
        """The name that its caches begin with."""
        return text_cache(self.name) if self.tower == "text" else self.name

    @property
    def described(self) -> str:
        """The library's name for model and weights, as task.toml may write it."""
        tag = f"{_TAG_MARK[self.library]}{self.tag}" if self.tag else ""
        return f"{self.library}:{self.model}{tag}"


def _clip(name: str, model: str, tag: str, width: int, size: int, licence: str) -> Backbone:
    return Backbone(name, "open_clip", model, tag, width, size, licence)


def _timm(name: str, model: str, tag: str, width: int, size: int, licence: str) -> Backbone:
    return Backbone(name, "timm", model, tag, width, size, licence)


_ROWS = (
    Backbone("hog", "descriptor", "hog", None, 1860, 128, "Apache-2.0"),
    _clip("clip-vit-b32", "ViT-B-32-quickgelu", "openai", 512, 224, "MIT"),
    _clip("clip-vit-l14-336", "ViT-L-14-336-quickgelu", "openai", 768, 336, "MIT"),
    _clip("dfn-vit-l14", "ViT-L-14-quickgelu", "dfn2b", 768, 224, "Apple-AMLR"),
    _clip("dfn-vit-h14-378", "ViT-H-14-378-quickgelu", "dfn5b", 1024, 378, "Apple-AMLR"),
    _clip("siglip2-so400m-384", "ViT-SO400M-16-SigLIP2-384", "webli", 1152, 384, "Apache-2.0"),
    _clip("eva02-l14-336", "EVA02-L-14-336", "merged2b_s6b_b61k", 768, 336, "MIT"),
    _clip(
        "laion-convnext-l-320",
        "convnext_large_d_320",
        "laion2b_s29b_b131k_ft_soup",
        768,
        320,
        "MIT",
    ),
    _timm(
        "convnextv2-nano-384",
        "convnextv2_nano",
        "fcmae_ft_in22k_in1k_384",
        640,
        384,
        "CC-BY-NC-4.0",
    ),
    _timm(
        "convnextv2-base-384",
        "convnextv2_base",
        "fcmae_ft_in22k_in1k_384",
        1024,
        384,
        "CC-BY-NC-4.0",
    ),
    _timm("convnext-tiny", "convnext_tiny", "in12k_ft_in1k", 768, 224, "Apache-2.0"),
    _timm("maxvit-base-384", "maxvit_base_tf_384", "in21k_ft_in1k", 768, 384, "Apache-2.0"),
    _timm("dinov2-vit-l14", "vit_large_patch14_dinov2", "lvd142m", 1024, 518, "Apache-2.0"),
    _timm("swin-base", "swin_base_patch4_window7_224", "ms_in22k_ft_in1k", 1024, 224, "MIT"),
    _timm("resnet18", "resnet18", "a1_in1k", 512, 224, "Apache-2.0"),
    _timm("resnet34", "resnet34", "a1_in1k", 512, 224, "Apache-2.0"),
    _timm("resnet50", "resnet50", "a1_in1k", 2048, 224, "Apache-2.0"),
    _timm("efficientnet-b0", "efficientnet_b0", "ra_in1k", 1280, 224, "Apache-2.0"),
    _timm("efficientnet-b3", "efficientnet_b3", "ra2_in1k", 1536, 288, "Apache-2.0"),
    _timm("mobilenetv2", "mobilenetv2_100", "ra_in1k", 1280, 224, "Apache-2.0"),
)
BACKBONES: Mapping[str, Backbone] = MappingProxyType({row.name: row for row in _ROWS})


def text_tower(backbone: Backbone) -> Backbone | None:
    """The other half of a CLIP, which embeds prompts and captions; None where there is none."""
    if backbone.library != "open_clip":
        return None
    return replace(backbone, tower="text", layers="pooled", preprocess=None)


def resolve(name: str, task: Task) -> Backbone:
    """The backbone that a name stands for: one of the task's own, of the table, or a library's.

    It is read at the layers that the task asks for.

    Raises:
        InputError: no such backbone; the message names the nearest.
    """
    return replace(_named(name, task), layers=task.embed.layers)


def _named(name: str, task: Task) -> Backbone:
    if name in task.backbone:
        return _own(name, task.backbone[name], task)
    if name in BACKBONES:
        return BACKBONES[name]
    library, colon, model = name.partition(":")
    if colon and model and library in ("timm", "open_clip"):
        return _from_library(name, library, model)
    known = [*task.backbone, *BACKBONES]
    raise InputError(
        f"unknown backbone {name!r}{nearest(name, known)} in {task.file}: `archiveprobe list "
        "backbones` shows the table; timm:NAME and open_clip:ARCH/TAG work too"
    )


def _from_library(name: str, library: str, model: str) -> Backbone:
    arch, tag = _split(library, model)
    if library == "timm":
        return Backbone(name, "timm", arch, tag)
    if tag is None:
        raise InputError(f"backbone {name!r} names no weights: write open_clip:ARCH/TAG")
    return Backbone(name, "open_clip", arch, tag)


def _split(library: str, model: str) -> tuple[str, str | None]:
    arch, mark, tag = model.partition(_TAG_MARK[library])
    return arch, tag if mark else None


def _own(name: str, own: OwnBackbone, task: Task) -> Backbone:
    arch, tag = _split(own.library, own.name)
    weights = own.weights
    if weights not in (PRETRAINED, RANDOM):
        weights = str(task.folder / weights)
    return Backbone(
        name,
        own.library,
        arch,
        tag,
        weights=weights,
        arguments=MappingProxyType(dict(own.arguments)),
        preprocess=own.preprocess,
    )
